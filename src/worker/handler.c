/*
 * handler.c
 *		Handing a claimed batch to a SQL function, in the transaction that
 *		claimed it and will finish it.
 *
 * At first the handler gets the whole batch and no subtransaction is made.
 * If it raises, the transaction is given up, and the next one runs it in
 * subtransactions, on ever smaller parts of the batch, until the events on
 * which it fails stand alone.  These are marked as failed, the others stay
 * delivered.
 *
 * Some errors are nobody's fault but the moment's, such as a deadlock or a
 * full disk: they are passed on, and the batch is tried again as it is.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

#include "outbox/batch.h"
#include "status/event_scan.h"
#include "worker/handler.h"
#include "worker/session.h"
#include "outbox/place.h"
#include "outbox/mark.h"
#include "outbox/outbox.h"
#include "outbox/receipt.h"

typedef struct Handler
{
	SagazBatch *batch;
	FmgrInfo	function;
} Handler;

/* The row type of events; what claims fill. */
void
sagaz_handler_prepare(SagazBatch *batch)
{
	Oid			schema = get_namespace_oid(SAGAZ_SCHEMA, false);

	batch->row_type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
									  CStringGetDatum("outbox_event"),
									  ObjectIdGetDatum(schema));
	batch->claim.row_type =
		lookup_rowtype_tupdesc_copy(batch->row_type, -1);
	batch->claim.rows = tuplestore_begin_heap(false, false, work_mem);
}

/* Take the next claimed rows, up to so many, out of the tuplestore. */
static int
read_events_to_handle(SagazBatch *batch, int max)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(batch->claim.row_type,
													&TTSOpsMinimalTuple);

	batch->count = 0;
	batch->events = palloc0(max * sizeof(SagazHanded));
	while (batch->count < max &&
		   tuplestore_gettupleslot(batch->claim.rows, true, false, slot))
	{
		SagazHanded *event = &batch->events[batch->count++];
		bool		isnull;

		event->row = ExecFetchSlotHeapTupleDatum(slot);
		event->event_id =
			datumCopy(slot_getattr(slot, event_event_id + 1, &isnull), false,
					  UUID_LEN);
		event->saga_id =
			TextDatumGetCString(slot_getattr(slot, event_saga_id + 1, &isnull));
		event->retry_count =
			DatumGetInt32(slot_getattr(slot, event_retry_count + 1, &isnull));
	}
	ExecDropSingleTupleTableSlot(slot);
	return batch->count;
}

/* A timeout that fired too late to stop the handler must stop nothing else. */
static void
disarm_handler_timeout(void)
{
	disable_timeout(STATEMENT_TIMEOUT, false);
	if (get_timeout_indicator(STATEMENT_TIMEOUT, true))
		QueryCancelPending = false;
}

/* Call it whatever it returns: a SQL function of type void returns NULL. */
static void
invoke_handler(FmgrInfo *function, ArrayType *events)
{
	LOCAL_FCINFO(fcinfo, 1);

	InitFunctionCallInfoData(*fcinfo, function, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = PointerGetDatum(events);
	fcinfo->args[0].isnull = false;
	(void) FunctionCallInvoke(fcinfo);
}

/*
 * Have deferred constraints and triggers speak now and not at commit, where
 * no event could be blamed for what they say.  In a transaction that goes on
 * they are deferred again.
 */
static void
fire_deferred(bool go_on)
{
	ConstraintsSetStmt statement = {.type = T_ConstraintsSetStmt};

	AfterTriggerSetState(&statement);
	statement.deferred = true;
	if (go_on)
		AfterTriggerSetState(&statement);
}

/*
 * Call the handler for some of the events, which are not skipped.  check: its
 * deferred constraints, too; last: no other call follows in the transaction.
 * What it SETs, the role too, ends with the call.
 */
static void
call_handler(Handler *handler, Datum *rows, int nrows, bool check, bool last)
{
	ArrayType  *array = construct_array(rows, nrows, handler->batch->row_type,
										-1, false, TYPALIGN_DOUBLE);
	int			settings;

	sagaz_session_clear();
	settings = NewGUCNestLevel();
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	handler->batch->called_at = GetCurrentTimestamp();
	enable_timeout_after(STATEMENT_TIMEOUT,
						 handler->batch->delivery->timeout_ms);
	invoke_handler(&handler->function, array);
	if (check)
		fire_deferred(!last);
	disarm_handler_timeout();
	handler->batch->called_at = 0;
	PopActiveSnapshot();
	AtEOXact_GUC(false, settings);
}

static int
collect_for_handler(const SagazBatch *batch, int first, int end, Datum *rows)
{
	int			nrows = 0;

	for (int i = first; i < end; i++)
		if (!batch->events[i].skipped)
			rows[nrows++] = batch->events[i].row;
	return nrows;
}

/* Is the error the moment's, so that the same batch may well succeed later? */
static bool
is_passing(int sqlstate)
{
	return sqlstate == ERRCODE_T_R_SERIALIZATION_FAILURE ||
		sqlstate == ERRCODE_T_R_DEADLOCK_DETECTED ||
		sqlstate == ERRCODE_QUERY_CANCELED ||
		sqlstate == ERRCODE_LOCK_NOT_AVAILABLE ||
		ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_INSUFFICIENT_RESOURCES ||
		ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_OPERATOR_INTERVENTION ||
		ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_SYSTEM_ERROR;
}

/*
 * Does an error tell something about the events?  Then that is how the batch
 * is to be tried again; else CARE_NONE.  After a timeout each event is tried
 * alone, lest the time be lost again and again.
 */
SagazCare
sagaz_handler_blame(const SagazBatch *batch, const ErrorData *error)
{
	if (batch->called_at == 0)
		return CARE_NONE;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		TimestampDifferenceExceeds(batch->called_at, GetCurrentTimestamp(),
								   batch->delivery->timeout_ms))
		return CARE_SINGLY;
	return batch->patient && is_passing(error->sqlerrcode) ? CARE_NONE : CARE_PARTS;
}

/*
 * Call the handler in a subtransaction.  Returns the error that it raised, or
 * NULL.
 */
static ErrorData *
try_handler(Handler *handler, Datum *rows, int nrows, SagazCare *blame)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		call_handler(handler, rows, nrows, true, false);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		disarm_handler_timeout();
		*blame = sagaz_handler_blame(handler->batch, error);
		handler->batch->called_at = 0;
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

/* The handler failed on one event: in an ordered group its saga waits. */
static void
set_handler_failed(SagazBatch *batch, int failed, const char *error)
{
	SagazHanded *event = &batch->events[failed];

	event->error = pstrdup(error);
	event->skipped = true;
	if (!batch->claim.group.ordered)
		return;
	for (int i = failed + 1; i < batch->count; i++)
		if (strcmp(batch->events[i].saga_id, event->saga_id) == 0 &&
			!batch->events[i].skipped)
		{
			batch->events[i].skipped = true;
			batch->behind++;
		}
}

static void deliver_parts(Handler *handler, int first, int end,
						  SagazCare care);

/* Deliver the events from first up to end, in parts if that fails. */
static void
deliver_part(Handler *handler, int first, int end)
{
	SagazBatch *batch = handler->batch;
	Datum	   *rows = palloc((end - first) * sizeof(Datum));
	int			nrows = collect_for_handler(batch, first, end, rows);
	SagazCare	blame = CARE_NONE;
	ErrorData  *error;

	CHECK_FOR_INTERRUPTS();
	if (nrows == 0)
		return;
	error = try_handler(handler, rows, nrows, &blame);
	if (error == NULL)
		return;
	if (blame == CARE_NONE)
		ReThrowError(error);
	if (end - first > 1)
		deliver_parts(handler, first, end, blame);
	else if (blame == CARE_SINGLY)
		set_handler_failed(batch, first,
						   psprintf("the handler did not end within %d ms",
									batch->delivery->timeout_ms));
	else
		set_handler_failed(batch, first, error->message);
}

/* Deliver the events from first up to end, in halves or one by one. */
static void
deliver_parts(Handler *handler, int first, int end, SagazCare care)
{
	int			step = care == CARE_SINGLY ? 1 : (end - first + 1) / 2;

	for (int i = first; i < end; i += step)
		deliver_part(handler, i, Min(i + step, end));
}

static void
mark_handler_failures(SagazBatch *batch)
{
	for (int i = 0; i < batch->count; i++)
	{
		SagazHanded *event = &batch->events[i];

		if (event->error == NULL)
			continue;
		sagaz_mark_event_failed(&batch->claim.group, event->event_id,
								batch->claim.worker_id, event->error);
		if (event->retry_count + 1 > sagaz_max_retries)
			batch->dead++;
		else
			batch->failed++;
	}
}

/* Whatever was not marked as failed, or held back, is sent. */
static void
finish_handled(SagazBatch *batch)
{
	TimestampTz until;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	if (sagaz_receipt_closing(batch->claim.batch_id, snapshot, &until) == 0)
		(void) sagaz_batch_finish(batch->claim.batch_id,
								  batch->claim.worker_id);
	UnregisterSnapshot(snapshot);
}

/* Hand over what was claimed, at most "at_once" events at a time. */
static void
deliver_plainly(Handler *handler, int at_once)
{
	SagazBatch *batch = handler->batch;
	MemoryContext part = AllocSetContextCreate(CurrentMemoryContext,
											   "sagaz part of a batch",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(part);
	int			done = 0;

	while (read_events_to_handle(batch, at_once) > 0)
	{
		Datum	   *rows = palloc(batch->count * sizeof(Datum));

		done += batch->count;
		call_handler(handler, rows, collect_for_handler(batch, 0, batch->count, rows),
					 done >= batch->claim.picked, true);
		MemoryContextReset(part);
	}
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(part);
}

static int
compare_handled_places(const void *a, const void *b)
{
	int64		x = ((const SagazHanded *) a)->seq;
	int64		y = ((const SagazHanded *) b)->seq;

	return (x > y) - (x < y);
}

/*
 * Sort by place, which is the order in which the outbox holds events back
 * behind a failed one.  A claim has those first that were longest due, so
 * scheduled events of a saga may come in another order.
 */
static void
sort_handled_by_place(SagazBatch *batch)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	for (int i = 0; i < batch->count; i++)
	{
		SagazHanded *event = &batch->events[i];
		SagazScan  *log = NULL;
		TupleTableSlot *slot = sagaz_place_fetch_event(&log, event->event_id, snapshot);

		if (slot == NULL)
			sagaz_mark_no_such_event(event->event_id);
		event->seq = DatumGetInt64(sagaz_column(slot, outbox_seq));
		sagaz_scan_end(log);
	}
	UnregisterSnapshot(snapshot);
	qsort(batch->events, batch->count, sizeof(SagazHanded), compare_handled_places);
}

static void
deliver_carefully(Handler *handler, SagazCare care)
{
	SagazBatch *batch = handler->batch;

	(void) read_events_to_handle(batch, batch->claim.picked);
	if (batch->claim.group.ordered)
		sort_handled_by_place(batch);
	deliver_parts(handler, 0, batch->count, care);
	mark_handler_failures(batch);
}

/*
 * Deliver what batch->claim holds.  Where this raises an error, the caller
 * gives up the transaction and asks sagaz_handler_blame() how to go on.
 */
void
sagaz_handler_deliver(SagazBatch *batch, SagazCare care, int at_once)
{
	Handler		handler = {.batch = batch};

	fmgr_info(batch->delivery->object_id, &handler.function);
	if (care == CARE_NONE)
		deliver_plainly(&handler, at_once);
	else
		deliver_carefully(&handler, care);
	tuplestore_end(batch->claim.rows);
	finish_handled(batch);
}
