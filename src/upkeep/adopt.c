/*
 * adopt.c
 *		The C part of sagaz.adopt(), which is SQL otherwise.
 *
 * Events that the Python library's workers hold stay claimed: they become
 * retry rows that are out in a batch of nobody, which holds nothing else.
 * Once that lease has run out the batch is taken over like any other.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "lib/library_tables.h"
#include "upkeep/adopt.h"
#include "outbox/cursor.h"
#include "outbox/group.h"
#include "outbox/locks.h"
#include "outbox/place_number.h"

PG_FUNCTION_INFO_V1(sagaz_adopt_batch);
PG_FUNCTION_INFO_V1(sagaz_adopt_trust);

/*
 * adopt_trust(schema, tables): an error if reading one of the tables could run
 * somebody else's code, or would not show all of its rows.
 */
Datum
sagaz_adopt_trust(PG_FUNCTION_ARGS)
{
	Oid			types[] = {TEXTOID, NAMEOID, TEXTARRAYOID};
	Datum		values[] = {
		CStringGetTextDatum(sagaz_text_argument(fcinfo, 0, "schema")), (Datum) 0,
		PG_ARGISNULL(1) ? (Datum) 0 : PG_GETARG_DATUM(1)
	};

	SPI_connect();
	if (SPI_execute_with_args(LIBRARY_TABLES_CHECK, lengthof(types), types, values,
							  PG_ARGISNULL(1) ? " nn" : " n ", false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look at the library's tables");
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("the tables are not to be trusted"),
				 errdetail("%s %s.",
						   SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1),
						   SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2)),
				 errhint("They and their schema must belong to you, a superuser or the owner of the database.")));
	SPI_finish();
	PG_RETURN_VOID();
}

/* Events of the batch in each lane. */
static void
read_adopted_counts(Datum array, int *counts)
{
	Datum	   *values;
	bool	   *nulls;
	int			count;

	deconstruct_array(DatumGetArrayTypeP(array), INT4OID, 4, true,
					  TYPALIGN_INT, &values, &nulls, &count);
	for (int lane = 0; lane < SAGAZ_LANES; lane++)
		counts[lane] = lane < count && !nulls[lane] ?
			DatumGetInt32(values[lane]) : 0;
}

/*
 * Write the batch's row of one lane: the cursor stays where it is.  The row
 * is as old as it is, only what it owes is as old as the claim.
 */
static void
adopt_lane(SagazWriter *writer, const SagazGroup *group, int16 lane,
		   int64 batch_id, int events, TimestampTz claimed_at,
		   Snapshot snapshot)
{
	SagazOwed  *owed = palloc0(sizeof(SagazOwed));
	SagazCursor row;

	sagaz_cursor_read(group->no, lane, snapshot, &row);
	owed->holder = owed->root = owed->window_batch = batch_id;
	owed->claimed_at = claimed_at;
	row.batch_id = batch_id;
	row.claimed_at = GetCurrentTimestamp();
	row.owed = lappend(row.owed, owed);
	sagaz_cursor_write(writer, group->no, lane, &row, 0, events, NULL);
}

/*
 * Make a batch of nobody that holds so many retry rows in each lane, which
 * the caller writes; 0 if there are none.
 */
int64
sagaz_adopted_batch(const SagazGroup *group, const int *counts,
					TimestampTz claimed_at)
{
	SagazWriter *writer;
	Snapshot	snapshot;
	int64		batch_id = 0;

	for (int16 lane = 0; lane < SAGAZ_LANES; lane++)
		if (counts[lane] > 0)
			(void) sagaz_lock_lane(group->no, lane, true);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	writer = sagaz_writer_begin("outbox_batch");
	for (int16 lane = 0; lane < SAGAZ_LANES; lane++)
	{
		if (counts[lane] <= 0)
			continue;
		if (batch_id == 0)
			batch_id = sagaz_cursor_next_batch_id(group->no);
		adopt_lane(writer, group, lane, batch_id, counts[lane], claimed_at,
				   snapshot);
	}
	sagaz_writer_end(writer);
	UnregisterSnapshot(snapshot);
	CommandCounterIncrement();
	return batch_id;
}

/*
 * adopt_batch(events integer[], claimed_at): makes the default group if it is
 * not there, and in it a batch of so many retry rows in each lane, which the
 * caller writes; NULL if there are none.
 */
Datum
sagaz_adopt_batch(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz claimed_at = PG_ARGISNULL(1) ? 0 : PG_GETARG_TIMESTAMPTZ(1);
	int			counts[SAGAZ_LANES] = {0};
	int64		batch_id;
	SagazGroup	group;

	if (!PG_ARGISNULL(0))
		read_adopted_counts(PG_GETARG_DATUM(0), counts);
	sagaz_group_use(SAGAZ_DEFAULT_GROUP, &group);
	batch_id = sagaz_adopted_batch(&group, counts,
								   Max(0, Min(claimed_at, now)));
	if (batch_id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(batch_id);
}
