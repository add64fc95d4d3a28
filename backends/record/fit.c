/*
 * fit.c
 *		Whether a record fits the tables of a sagaz: ours, or those of the one
 *		at the other end, which have the same limits.
 */
#include "lib/sagaz.h"

#include "mb/pg_wchar.h"

#include "backends/record/filter.h"
#include "backends/record/record.h"
#include "lib/encoding.h"
#include "backends/record/bounds.h"
#include "saga/saga.h"

/* A message of the parser without what ends it as a sentence. */
static char *
unfit_complaint(const ErrorData *error)
{
	size_t		length = error->detail ? strlen(error->detail) : 0;

	if (length == 0)
		return pstrdup(error->message);
	return psprintf("%s: %.*s", error->message,
					(int) (error->detail[length - 1] == '.' ? length - 1 : length),
					error->detail);
}

/*
 * What is wrong with the steps.  Parsing allocates memory and nothing else,
 * so its error can be caught without a subtransaction.
 */
static char *
unfit_steps(const SagazSaga *saga)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *volatile why = NULL;
	SagaSteps	steps = {0};

	PG_TRY();
	{
		steps = saga_parse_steps((Datum) 0, saga->steps);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_SAGAZ_INPUT)
			PG_RE_THROW();
		FlushErrorState();
		why = unfit_complaint(error);
	}
	PG_END_TRY();
	for (int i = 0; why == NULL && i < steps.count; i++)
	{
		why = sagaz_bounds_of_text(psprintf("saga_id with steps[%d].name",
											DatumGetInt32(saga_get(&steps.rows[i], step_ordinal))),
								   strlen(saga->saga_id) +
								   VARSIZE_ANY_EXHDR(DatumGetPointer(saga_get(&steps.rows[i], step_step_name))));
	}
	return why;
}

static char *
unfit_saga(const SagazSaga *saga)
{
	char	   *why;
	int			i = 0;

	while (i < saga_statuses.count && strcmp(saga_statuses.words[i], saga->status) != 0)
		i++;
	if (i == saga_statuses.count)
		return psprintf("status is not a status: \"%s\"", saga->status);
	if ((why = sagaz_bounds_of_text("saga_id", strlen(saga->saga_id))) != NULL ||
		(why = sagaz_bounds_of_text("saga_name", strlen(saga->saga_name))) != NULL)
		return why;
	return unfit_steps(saga);
}

static char *
unfit_event(const SagazEvent *event)
{
	if (!sagaz_filter_is_uuid(event->event_id))
		return "event_id is not a UUID";
	if (event->saga_id[0] == '\0')
		return "saga_id is empty";
	return sagaz_bounds_of_event(event);
}

static char *
record_is_unfit(const SagazRecord *record)
{
	return record->kind == SAGAZ_SAGA ? unfit_saga(&record->saga) :
		unfit_event(&record->event);
}

/*
 * Why the tables cannot hold a record as it is; NULL if they can.  A copy that
 * has its key in other letters is another record, of which there may be two.
 */
char *
sagaz_fit_problem(const SagazRecord *record)
{
	char	   *why = record_is_unfit(record);

	if (why == NULL && record->kind == SAGAZ_EVENT &&
		strpbrk(record->event.event_id, "ABCDEF") != NULL)
		return "event_id is not in lower case";
	return why;
}

/* Looks at all of its text; costs nothing where the encoding is the database's. */
char *
sagaz_unfit_for_encoding(const SagazRecord *record, int encoding)
{
	StringInfoData text;

	if (encoding == GetDatabaseEncoding())
		return NULL;
	initStringInfo(&text);
	sagaz_record_to_wire(record, &text);
	return sagaz_text_fits(text.data, encoding) ? NULL :
		psprintf("it has a character that %s does not have", pg_encoding_to_char(encoding));
}

/* An error if the tables cannot hold it, be its key in whatever letters. */
void
sagaz_check_fit(const SagazRecord *record)
{
	char	   *why = record_is_unfit(record);

	if (why)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_SERIALIZATION),
				 errmsg("record \"%s\" is refused", sagaz_record_key(record)),
				 errdetail("The native tables cannot hold it: %s.", why)));
}
