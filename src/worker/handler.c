/*
 * handler.c
 *		The target that is a SQL function, called in the transaction that
 *		claimed the batch and will finish it: exactly once.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "utils/array.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "worker/session.h"
#include "worker/target.h"

static bool
handler_serves(const SagazDelivery *delivery)
{
	return delivery->target == NULL;
}

static bool
handler_catch_up(SagazRun *run, const SagazDelivery *delivery)
{
	return false;
}

static void
handler_read(TupleTableSlot *slot, SagazHanded *event)
{
	event->row = ExecFetchSlotHeapTupleDatum(slot);
}

static void
handler_bind(SagazBatch *batch)
{
	batch->bound = palloc(sizeof(FmgrInfo));
	fmgr_info(batch->delivery->object_id, batch->bound);
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

static ArrayType *
collect_for_handler(SagazBatch *batch, int first, int end)
{
	Datum	   *rows = palloc((end - first) * sizeof(Datum));
	int			nrows = 0;

	for (int i = first; i < end; i++)
		if (!batch->events[i].skipped)
			rows[nrows++] = batch->events[i].row;
	return construct_array(rows, nrows, batch->row_type, -1, false, TYPALIGN_DOUBLE);
}

/* What it SETs, the role too, ends with the call. */
static void
handler_deliver(SagazBatch *batch, int first, int end, bool last)
{
	ArrayType  *events = collect_for_handler(batch, first, end);
	int			settings;

	sagaz_session_clear();
	settings = NewGUCNestLevel();
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	invoke_handler(batch->bound, events);
	if (last || IsSubTransaction())
		fire_deferred(!last);
	PopActiveSnapshot();
	AtEOXact_GUC(false, settings);
}

/* Leave the session as the function found it. */
static void
handler_end(SagazRun *run, bool done)
{
	sagaz_session_end();
}

const SagazTarget sagaz_handler_target = {
	.name = "function",
	.undoes = true,
	.serves = handler_serves,
	.catch_up = handler_catch_up,
	.prepare = sagaz_target_no_more,
	.read = handler_read,
	.bind = handler_bind,
	.begin = sagaz_target_begins,
	.deliver = handler_deliver,
	.judged = sagaz_target_judges_nothing,
	.end = handler_end
};
