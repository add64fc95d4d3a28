/*
 * bounds.c
 *		How large the parts of an event may be, whichever way it comes in.
 *
 * What is accepted here must fit wherever an event goes later: into the keys
 * of retries and of the archive, into a worker's memory, into ISO 8601.  Each
 * function returns what is wrong, in the present memory context, or NULL.
 */
#include "lib/sagaz.h"

#include "utils/builtins.h"
#include "utils/numeric.h"

#include "backends/record/bounds.h"
#include "lib/times.h"

/*
 * Text of a number, at most, and bytes of JSON that hold one at least.  Binary
 * JSON that is this much smaller than the limit needs no counting.
 */
#define LONGEST_NUMBER	(131072 + 16383 + 3)
#define SMALLEST_NUMBER	8

/* Bytes that one of a string takes at most, as \u0001. */
#define ESCAPED			6

/* Why a key of so many bytes is too long for the index; NULL if it is not. */
char *
sagaz_bounds_of_text(const char *field, size_t bytes)
{
	if (bytes <= SAGAZ_KEY_LENGTH)
		return NULL;
	return psprintf("%s is too long: it has %zu bytes; the limit is %d", field, bytes,
					SAGAZ_KEY_LENGTH);
}

/* 0 is none. */
char *
sagaz_bounds_of_time(const char *field, TimestampTz time)
{
	if (time == 0 || sagaz_time_in_range(time))
		return NULL;
	return psprintf("%s must be between the years 1 and 9999", field);
}

/* Bytes of JSON as text: at least, without any escape, and at most. */
static void
count_json_text(const Jsonb *json, int64 *least, int64 *most)
{
	JsonbIterator *iterator = JsonbIteratorInit(unconstify(JsonbContainer *, &json->root));
	JsonbValue	value;
	JsonbIteratorToken token;

	*least = *most = 0;
	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		int			bytes = 0;

		if (token == WJB_KEY || token == WJB_VALUE || token == WJB_ELEM)
		{
			if (value.type == jbvString)
				bytes = value.val.string.len;
			else if (value.type == jbvNumeric)
			{
				char	   *number = DatumGetCString(DirectFunctionCall1(numeric_out,
																		 NumericGetDatum(value.val.numeric)));

				bytes = strlen(number);
				pfree(number);
			}
		}
		*least += bytes;
		*most += ESCAPED * (int64) bytes + ESCAPED;
	}
}

/* Has it more text than that? */
static bool
json_is_longer(const Jsonb *json, int64 limit)
{
	int64		least;
	int64		most;

	if (VARSIZE(json) / SMALLEST_NUMBER * (int64) LONGEST_NUMBER <= limit)
		return false;
	count_json_text(json, &least, &most);
	if (least > limit || most <= limit)
		return least > limit;
	return (int64) strlen(JsonbToCString(NULL, unconstify(JsonbContainer *, &json->root),
								 VARSIZE(json))) > limit;
}

/* By its text: a number of few digits and a large exponent has a long one. */
char *
sagaz_bounds_of_json(const char *field, const Jsonb *json)
{
	if (!json_is_longer(json, sagaz_max_payload_size * INT64CONST(1024)))
		return NULL;
	return psprintf("%s is too large: sagaz.max_payload_size allows %d kB of text", field,
					sagaz_max_payload_size);
}

/* The texts and documents of an event; its times were read by who read it. */
char *
sagaz_bounds_of_event(const SagazEvent *event)
{
	const struct
	{
		const char *field;
		const char *value;
	}			texts[] = {
		{"saga_id", event->saga_id},
		{"event_type", event->event_type},
		{"aggregate_type", event->aggregate_type},
		{"aggregate_id", event->aggregate_id},
		{"routing_key", event->routing_key},
		{"partition_key", event->partition_key}
	};
	char	   *why = sagaz_bounds_of_json("payload", event->payload);

	if (why == NULL)
		why = sagaz_bounds_of_json("headers", event->headers);
	for (int i = 0; why == NULL && i < (int) lengthof(texts); i++)
		if (texts[i].value)
			why = sagaz_bounds_of_text(texts[i].field, strlen(texts[i].value));
	return why;
}

/* ---------------------------------------------------------------------- */
/* What the Python library can read */

/*
 * Python reads whole numbers of so many digits, and no more by default; its
 * reader of JSON goes some thousand levels deep, of which a record takes a few.
 */
#define LIBRARY_DIGITS	4300
#define LIBRARY_LEVELS	900

static bool
number_is_too_long(Numeric number)
{
	const char *text;
	bool		is_large = false;

	(void) numeric_int4_opt_error(number, &is_large);
	if (!is_large)
		return false;
	text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(number)));
	return strchr(text, '.') == NULL &&
		strlen(text) > LIBRARY_DIGITS + (text[0] == '-' ? 1 : 0);
}

/* Why the library could not read a document; NULL if it can. */
static char *
bounds_of_library_json(const char *field, const Jsonb *json)
{
	JsonbIterator *iterator;
	JsonbValue	value;
	JsonbIteratorToken token;
	int			levels = 0;

	if (json == NULL)
		return NULL;
	iterator = JsonbIteratorInit(unconstify(JsonbContainer *, &json->root));
	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		if (token == WJB_BEGIN_ARRAY || token == WJB_BEGIN_OBJECT)
			levels++;
		else if (token == WJB_END_ARRAY || token == WJB_END_OBJECT)
			levels--;
		if (levels > LIBRARY_LEVELS)
			return psprintf("%s has more than %d levels, which the Python library cannot read",
							field, LIBRARY_LEVELS);
		if ((token == WJB_VALUE || token == WJB_ELEM) && value.type == jbvNumeric &&
			number_is_too_long(value.val.numeric))
			return psprintf("%s has a number of more than %d digits, which the Python library cannot read",
							field, LIBRARY_DIGITS);
	}
	return NULL;
}

/*
 * The first document that the Python library could not read; those that were
 * there before, if a record is given that was, are not looked at.
 */
char *
sagaz_bounds_for_library(const SagazRecord *record, const SagazRecord *before)
{
	const SagazSaga *saga = &record->saga;
	const SagazEvent *event = &record->event;
	static const SagazRecord nothing = {0};
	const SagazRecord *was = before ? before : &nothing;
	const struct
	{
		SagazKind	kind;
		const char *field;
		const Jsonb *json;
		const Jsonb *before;
	}			documents[] = {
		{SAGAZ_SAGA, "steps", saga->steps, was->saga.steps},
		{SAGAZ_SAGA, "context", saga->context, was->saga.context},
		{SAGAZ_SAGA, "metadata", saga->metadata, was->saga.metadata},
		{SAGAZ_EVENT, "payload", event->payload, was->event.payload},
		{SAGAZ_EVENT, "headers", event->headers, was->event.headers}
	};
	char	   *why = NULL;

	for (int i = 0; why == NULL && i < (int) lengthof(documents); i++)
		if (documents[i].kind == record->kind && documents[i].json != documents[i].before)
			why = bounds_of_library_json(documents[i].field, documents[i].json);
	return why;
}
