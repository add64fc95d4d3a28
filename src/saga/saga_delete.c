/*
 * saga_delete.c
 *		delete_saga_state() and cleanup_completed_sagas().
 *
 * The steps are deleted here too: rows deleted without SQL fire no foreign
 * key.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "saga/saga.h"
#include "lib/tuples.h"

PG_FUNCTION_INFO_V1(sagaz_delete_saga_state);
PG_FUNCTION_INFO_V1(sagaz_cleanup_completed_sagas);

/* The tables, and the snapshot with which they are looked at. */
typedef struct SagaDelete
{
	SagazWriter *sagas;
	SagazWriter *steps;
	Snapshot	snapshot;
} SagaDelete;

static void
delete_steps(SagaDelete *delete, Datum saga_id)
{
	SagaSteps	steps = saga_read_steps(saga_id, delete->snapshot);

	for (int i = 0; i < steps.count; i++)
		saga_step_written(sagaz_writer_try_delete(delete->steps,
												  &steps.rows[i].tid,
												  delete->snapshot));
}

/* Delete a saga that was read; false if another transaction changed it. */
static bool
delete_saga(SagaDelete *delete, Datum saga_id, ItemPointer tid)
{
	if (saga_look_again(sagaz_writer_try_delete(delete->sagas, tid,
												delete->snapshot)))
		return false;
	delete_steps(delete, saga_id);
	return true;
}

static void
begin_delete(SagaDelete *delete)
{
	delete->sagas = sagaz_writer_begin("sagas");
	delete->steps = sagaz_writer_begin("saga_steps");
}

static void
end_delete(SagaDelete *delete)
{
	sagaz_writer_end(delete->steps);
	sagaz_writer_end(delete->sagas);
	CommandCounterIncrement();
}

/*
 * Delete a saga and its steps; was it there? Waits for who is changing it,
 * and looks again; in a REPEATABLE READ transaction that is an error.
 */
bool
saga_delete(Datum saga_id)
{
	SagaDelete	delete;
	SagaRow		saga;
	bool		found;
	bool		done;

	begin_delete(&delete);
	do
	{
		CHECK_FOR_INTERRUPTS();
		delete.snapshot = saga_latest_snapshot();
		found = saga_read(saga_id, delete.snapshot, &saga);
		done = !found || delete_saga(&delete, saga_id, &saga.tid);
		UnregisterSnapshot(delete.snapshot);
	} while (!done);
	end_delete(&delete);
	return found;
}

/*
 * delete_saga_state(saga_id, storage)
 */
Datum
sagaz_delete_saga_state(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(saga_delete(saga_text_argument(fcinfo, 0, "saga_id", INT_MAX)));
}

/*
 * Delete the sagas of one status not changed since the cutoff.  One that
 * another transaction is just changing is not old any more.
 */
static int64
delete_of_status(SagaDelete *delete, Oid status, TimestampTz cutoff)
{
	MemoryContext item = AllocSetContextCreate(CurrentMemoryContext,
											   "sagaz clean-up",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = CurrentMemoryContext;
	ScanKeyData key;
	SagazScan  *scan;
	int64		deleted = 0;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_ENUM_EQ,
				ObjectIdGetDatum(status));
	scan = sagaz_scan_begin("sagas", "sagas_status", delete->snapshot, &key, 1,
							ForwardScanDirection);
	while (sagaz_scan_next(scan))
	{
		CHECK_FOR_INTERRUPTS();
		if (DatumGetTimestampTz(sagaz_column(scan->slot, saga_updated_at)) >=
			cutoff)
			continue;
		MemoryContextSwitchTo(item);
		if (delete_saga(delete, sagaz_column(scan->slot, saga_saga_id),
						&scan->slot->tts_tid))
			deleted++;
		MemoryContextSwitchTo(caller);
		MemoryContextReset(item);
	}
	sagaz_scan_end(scan);
	MemoryContextDelete(item);
	return deleted;
}

/* A status at which a saga is done with: nobody will go on with it. */
Oid
saga_finished_status(const char *word)
{
	static const char *const finished[] = {
		"completed", "failed", "rolled_back", "partially_committed"
	};
	Oid			status = saga_status_of_word(&saga_statuses, word, "statuses");

	for (int i = 0; i < (int) lengthof(finished); i++)
		if (strcmp(word, finished[i]) == 0)
			return status;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_INPUT),
			 errmsg("statuses must be those of finished sagas: \"%s\"", word),
			 errhint("Valid values are: completed, failed, rolled_back, partially_committed.")));
}

/* The statuses argument, in statuses; returns how many. */
static int
read_statuses_to_delete(FunctionCallInfo fcinfo, int argno, Oid **statuses)
{
	int			count;
	char	  **words = sagaz_text_array_argument(fcinfo, argno, "statuses", &count);

	*statuses = palloc(Max(count, 1) * sizeof(Oid));
	for (int i = 0; i < count; i++)
		(*statuses)[i] = saga_finished_status(words[i]);
	return count;
}

/*
 * cleanup_completed_sagas(older_than, statuses, storage)
 */
Datum
sagaz_cleanup_completed_sagas(PG_FUNCTION_ARGS)
{
	SagaDelete	delete;
	Oid		   *statuses;
	int			count;
	TimestampTz cutoff;
	int64		deleted = 0;

	cutoff = GetCurrentTimestamp() - sagaz_interval_argument(fcinfo, 0, "older_than");
	count = read_statuses_to_delete(fcinfo, 1, &statuses);
	begin_delete(&delete);
	for (int i = 0; i < count; i++)
	{
		delete.snapshot = saga_latest_snapshot();
		deleted += delete_of_status(&delete, statuses[i], cutoff);
		UnregisterSnapshot(delete.snapshot);
		CommandCounterIncrement();
	}
	end_delete(&delete);
	PG_RETURN_INT64(deleted);
}
