/*
 * postgres_library_fit.c
 *		The Python library's tables in another PostgreSQL database: what they
 *		have no place for.
 */
#include "backends/postgres/postgres_library.h"

#include <limits.h>

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/formatting.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "backends/record/bounds.h"
#include "backends/record/record.h"
#include "lib/times.h"

#define MAX_TEXT 255			/* characters */
#define MAX_STATUS 50

/* ---------------------------------------------------------------------- */
/* Texts */

static char *
complain_of_length(const char *field, const char *text, int room)
{
	/* no shorter in characters than in bytes */
	if (text == NULL || (int) strlen(text) <= room || pg_mbstrlen(text) <= room)
		return NULL;
	return psprintf("%s has more than %d characters", field, room);
}

typedef struct LimitedText
{
	const char *field;
	const char *text;
	int			room;
} LimitedText;

/* What is wrong with the first of them that is too long. */
static char *
complain_of_lengths(const LimitedText *texts, int count)
{
	char	   *why = NULL;

	for (int i = 0; why == NULL && i < count; i++)
		why = complain_of_length(texts[i].field, texts[i].text, texts[i].room);
	return why;
}

/* ---------------------------------------------------------------------- */
/* Steps */

static char *
complain_of_text(JsonbContainer *step, int number, const char *key, int room)
{
	JsonbValue	buffer;
	JsonbValue *value = sagaz_normal_step_value(step, key, &buffer);

	if (value == NULL)
		return NULL;
	if (value->type != jbvString)
		return psprintf("%s of step %d is not a string", key, number);
	if (value->val.string.len <= room ||
		pg_mbstrlen_with_len(value->val.string.val, value->val.string.len) <= room)
		return NULL;
	return psprintf("%s of step %d has more than %d characters", key, number, room);
}

static char *
complain_of_time(JsonbContainer *step, int number, const char *key)
{
	JsonbValue	buffer;
	JsonbValue *value = sagaz_normal_step_value(step, key, &buffer);
	TimestampTz time;

	if (value == NULL)
		return NULL;
	if (value->type != jbvString)
		return psprintf("%s of step %d is not a string", key, number);
	if (sagaz_parse_time(value->val.string.val, value->val.string.len, &time))
		return NULL;
	return psprintf("%s of step %d is not a time", key, number);
}

/* Is it a whole number, and one that an integer can be?  1.0 is. */
static bool
fits_integer(const JsonbValue *value)
{
	bool		wrong = false;
	int32		count;

	if (value->type != jbvNumeric)
		return false;
	count = numeric_int4_opt_error(value->val.numeric, &wrong);
	return !wrong && count >= 0 &&
		DatumGetBool(DirectFunctionCall2(numeric_eq,
										 NumericGetDatum(value->val.numeric),
										 NumericGetDatum(int64_to_numeric(count))));
}

static char *
complain_of_count(JsonbContainer *step, int number)
{
	JsonbValue	buffer;
	JsonbValue *value = sagaz_normal_step_value(step, "retry_count", &buffer);

	if (value == NULL || fits_integer(value))
		return NULL;
	return psprintf("retry_count of step %d is not a count", number);
}

static char *
complain_of_step(const JsonbValue *value, int number)
{
	JsonbContainer *step = value->val.binary.data;
	JsonbValue	buffer;
	char	   *why;

	if (value->type != jbvBinary || !JsonContainerIsObject(step))
		return psprintf("step %d is not an object", number);
	if (sagaz_normal_step_value(step, "name", &buffer) == NULL)
		return psprintf("step %d has no name", number);
	if ((why = complain_of_text(step, number, "name", MAX_TEXT)) == NULL &&
		(why = complain_of_text(step, number, "status", MAX_STATUS)) == NULL &&
		(why = complain_of_text(step, number, "error", INT_MAX)) == NULL &&
		(why = complain_of_time(step, number, "executed_at")) == NULL &&
		(why = complain_of_time(step, number, "compensated_at")) == NULL)
		why = complain_of_count(step, number);
	return why;
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* Is a name there twice?  All steps are known to have one. */
static bool
has_names_twice(Jsonb *steps)
{
	int			count = JB_ROOT_COUNT(steps);
	char	  **names = palloc((count + 1) * sizeof(char *));

	for (int i = 0; i < count; i++)
	{
		JsonbValue	buffer;
		JsonbValue *step = getIthJsonbValueFromContainer(&steps->root, i);
		JsonbValue *name = sagaz_normal_step_value(step->val.binary.data, "name", &buffer);

		names[i] = pnstrdup(name->val.string.val, name->val.string.len);
	}
	qsort(names, count, sizeof(char *), compare_names);
	for (int i = 1; i < count; i++)
		if (strcmp(names[i - 1], names[i]) == 0)
			return true;
	return false;
}

/* They must be objects with names of their own. */
static char *
complain_of_steps(Jsonb *steps)
{
	char	   *why = NULL;

	if (!JB_ROOT_IS_ARRAY(steps) || JB_ROOT_IS_SCALAR(steps))
		return "steps is not an array";
	for (int i = 0; why == NULL && i < (int) JB_ROOT_COUNT(steps); i++)
		why = complain_of_step(getIthJsonbValueFromContainer(&steps->root, i), i + 1);
	if (why == NULL && has_names_twice(steps))
		why = "two steps have the same name";
	return why;
}

/* ---------------------------------------------------------------------- */
/* Records */

static char *
complain_of_saga(const SagazSaga *saga)
{
	const LimitedText texts[] = {
		{"saga_id", saga->saga_id, MAX_TEXT},
		{"saga_name", saga->saga_name, MAX_TEXT},
		{"status", saga->status, MAX_STATUS}
	};
	char	   *why = complain_of_lengths(texts, lengthof(texts));

	return why ? why : complain_of_steps(saga->steps);
}

static char *
complain_of_event(const SagazEvent *event)
{
	const LimitedText texts[] = {
		{"saga_id", event->saga_id, MAX_TEXT},
		{"aggregate_type", event->aggregate_type, MAX_TEXT},
		{"aggregate_id", event->aggregate_id, MAX_TEXT},
		{"event_type", event->event_type, MAX_TEXT},
		{"worker_id", event->worker_id, MAX_TEXT}
	};

	if (!sagaz_filter_is_uuid(event->event_id))
		return "event_id is not a UUID";
	return complain_of_lengths(texts, lengthof(texts));
}

static char *
complain_of_saga_apart(const SagazSaga *saga)
{
	MemoryContext part = AllocSetContextCreate(CurrentMemoryContext, "sagaz check",
											   ALLOCSET_SMALL_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(part);
	char	   *why = complain_of_saga(saga);

	MemoryContextSwitchTo(outer);
	if (why)
		why = pstrdup(why);
	MemoryContextDelete(part);
	return why;
}

static char *
complain_of(const SagazRecord *record)
{
	return record->kind == SAGAZ_SAGA ? complain_of_saga_apart(&record->saga) :
		complain_of_event(&record->event);
}

static bool
has_capitals(const char *event_id)
{
	return strpbrk(event_id, "ABCDEF") != NULL;
}

/*
 * Why the tables cannot hold a record as it is; NULL if they can.  They have
 * UUIDs in small letters, by which a copy must be found again.
 */
char *
library_unfit(PostgresStore *store, const SagazRecord *record)
{
	char	   *why = complain_of(record);

	if (why == NULL && record->kind == SAGAZ_EVENT &&
		has_capitals(record->event.event_id))
		return "event_id is not in lower case";
	return why ? why : sagaz_bounds_for_library(record, NULL);
}

/*
 * Raise an error that names what the tables cannot take; spell the key as
 * they do.  Records that library_unfit() lets pass are left as they are, for
 * they outlive an attempt to write them.
 */
void
library_check_record(const PostgresStore *store, SagazRecord *record)
{
	char	   *why = complain_of(record);

	if (why)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_SERIALIZATION),
				 errmsg("record \"%s\" is refused", sagaz_record_key(record)),
				 errdetail_internal("%s.", why),
				 errhint("Storage \"%s\" has the Python library's tables, which have no place for that.",
						 store->base.name)));
	if (record->kind == SAGAZ_EVENT && has_capitals(record->event.event_id))
		record->event.event_id = asc_tolower(record->event.event_id,
											 strlen(record->event.event_id));
}
