/*
 * inbox.c
 *		The inbox: a consumer notes each event it works on, in the transaction
 *		of that work, and so can tell a second delivery.
 *
 * Where two sessions note the same event at once, the second waits for the
 * first; if that one rolls back, the second is the first.
 */
#include "lib/sagaz.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sagaz_check_and_insert_inbox);
PG_FUNCTION_INFO_V1(sagaz_cleanup_inbox);

/* The plan for a query, kept for the session. */
static SPIPlanPtr
prepare_once(SPIPlanPtr *plan, const char *query, int nargs, Oid *types)
{
	if (*plan == NULL)
	{
		SPIPlanPtr	fresh = SPI_prepare(query, nargs, types);

		if (fresh == NULL)
			elog(ERROR, "could not prepare a query on the inbox: %s",
				 SPI_result_code_string(SPI_result));
		SPI_keepplan(fresh);
		*plan = fresh;
	}
	return *plan;
}

/*
 * check_and_insert_inbox(event_id, consumer_name, source_topic, event_type,
 * payload): was it seen before?
 */
Datum
sagaz_check_and_insert_inbox(PG_FUNCTION_ARGS)
{
	static SPIPlanPtr plan = NULL;
	static const char *const fields[] = {
		"event_id", "consumer_name", "source_topic", "event_type"
	};
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID};
	Datum		values[lengthof(types)];
	bool		seen;

	for (int i = 0; i < (int) lengthof(fields); i++)
	{
		(void) sagaz_text_argument(fcinfo, i, fields[i]);
		values[i] = PG_GETARG_DATUM(i);
	}
	if (PG_ARGISNULL(4))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("payload must not be null")));
	values[4] = PG_GETARG_DATUM(4);
	SPI_connect();
	prepare_once(&plan,
				 "INSERT INTO sagaz.consumer_inbox"
				 " (event_id, consumer_name, source_topic, event_type, payload)"
				 " VALUES ($1, $2, $3, $4, $5)"
				 " ON CONFLICT (consumer_name, event_id) DO NOTHING",
				 lengthof(types), types);
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not insert into the inbox");
	seen = SPI_processed == 0;
	SPI_finish();
	PG_RETURN_BOOL(seen);
}

/* cleanup_inbox(older_than): how many were forgotten */
Datum
sagaz_cleanup_inbox(PG_FUNCTION_ARGS)
{
	static SPIPlanPtr plan = NULL;
	int64		older_than = sagaz_interval_us(fcinfo, 0, "older_than");
	Oid			types[] = {TIMESTAMPTZOID};
	Datum		values[] = {
		TimestampTzGetDatum(GetCurrentTimestamp() - older_than)
	};
	int64		removed;

	SPI_connect();
	prepare_once(&plan,
				 "DELETE FROM sagaz.consumer_inbox WHERE consumed_at < $1",
				 lengthof(types), types);
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not clean the inbox");
	removed = SPI_processed;
	SPI_finish();
	PG_RETURN_INT64(removed);
}
