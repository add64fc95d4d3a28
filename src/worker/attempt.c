/*
 * attempt.c
 *		Trying a batch on its target until each of its events has a verdict.
 *
 * At first the target gets the whole batch.  If it fails, it gets ever smaller
 * parts, until the events on which it fails stand alone.  These get a verdict,
 * the others stay delivered.  A target that undoes what it did is tried in
 * subtransactions of a new transaction of the claim; others while the claim
 * is committed and no transaction is open.
 *
 * Some errors are nobody's fault but the moment's, or the target's: a
 * deadlock, a full disk, a broken connection.  They are passed on, and the
 * batch is tried again as it is.  Where they come again and again an event may
 * still be the cause, which is so if others can be delivered meanwhile; so the
 * parts are tried all the same, and what fails gets the blame only if
 * something else went, with it or since it failed the last time.  Of a function
 * that is not asked: it is at hand, and called in the claim's own transaction.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

#include "outbox/batch.h"
#include "outbox/mark.h"
#include "outbox/outbox.h"
#include "outbox/event.h"
#include "outbox/receipt.h"
#include "status/event_scan.h"
#include "worker/attempt.h"
#include "worker/process.h"

/* What an error says. */
typedef struct Blame
{
	SagazCare	care;			/* how to go on; CARE_NONE: no event is to blame */
	SagazTargetVerdict verdict; /* on an event that fails alone */
	bool		doubted;		/* the target may be to blame as well */
	bool		timed_out;
} Blame;

/* ---------------------------------------------------------------------- */
/* What there is to deliver */

/* The row type of events; what claims fill. */
void
sagaz_attempt_prepare(SagazBatch *batch)
{
	Oid			schema = sagaz_schema_id();

	batch->row_type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
									  CStringGetDatum("outbox_event"),
									  ObjectIdGetDatum(schema));
	batch->claim.row_type =
		lookup_rowtype_tupdesc_copy(batch->row_type, -1);
	batch->claim.rows = tuplestore_begin_heap(false, false, work_mem);
}

/* Take the next claimed rows, up to so many, out of the tuplestore. */
static int
read_events_to_deliver(SagazBatch *batch, int max)
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

		event->event_id =
			datumCopy(slot_getattr(slot, event_event_id + 1, &isnull), false,
					  UUID_LEN);
		event->saga_id =
			TextDatumGetCString(slot_getattr(slot, event_saga_id + 1, &isnull));
		event->retry_count =
			DatumGetInt32(slot_getattr(slot, event_retry_count + 1, &isnull));
		batch->run->target->read(slot, event);
	}
	ExecDropSingleTupleTableSlot(slot);
	return batch->count;
}

static int
compare_handed_places(const void *a, const void *b)
{
	int64		x = ((const SagazHanded *) a)->seq;
	int64		y = ((const SagazHanded *) b)->seq;

	return (x > y) - (x < y);
}

/*
 * Sort by place, which is the order in which the outbox holds events back
 * behind a failed one.  A claim has those first that were longest due, so
 * scheduled events of a saga may come in another order.  In a transaction.
 */
static void
sort_handed_by_place(SagazBatch *batch)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	for (int i = 0; i < batch->count; i++)
	{
		SagazHanded *event = &batch->events[i];
		SagazScan  *log = NULL;
		TupleTableSlot *slot = sagaz_event_fetch(&log, event->event_id, snapshot);

		if (slot == NULL)
			sagaz_event_no_such(event->event_id);
		event->seq = DatumGetInt64(sagaz_column(slot, outbox_seq));
		sagaz_scan_end(log);
	}
	UnregisterSnapshot(snapshot);
	qsort(batch->events, batch->count, sizeof(SagazHanded), compare_handed_places);
}

/* ---------------------------------------------------------------------- */
/* Blame */

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

/* Does the error say that a target will never take an event? */
static bool
is_refusal(int sqlstate)
{
	return sqlstate == ERRCODE_SAGAZ_SERIALIZATION ||
		sqlstate == ERRCODE_SAGAZ_INPUT ||
		ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_DATA_EXCEPTION ||
		ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION;
}

/* Is an event among them that failed before? */
static bool
has_suspects(const SagazBatch *batch)
{
	for (int i = 0; i < batch->count; i++)
		if (batch->events[i].retry_count > 0)
			return true;
	return false;
}

/* Are we to wait for better times before an event gets the blame? */
static bool
is_patient(const SagazBatch *batch)
{
	return batch->run->patient && !has_suspects(batch);
}

/*
 * Only a function's errors say by themselves whether they pass.  After a
 * timeout each event is tried alone, lest the time be lost again and again.
 */
static Blame
blame_for(const SagazBatch *batch, const ErrorData *error)
{
	bool		undoes = batch->run->target->undoes;
	Blame		blame = {CARE_PARTS, TARGET_AGAIN, false, false};

	if (batch->called_at == 0 || error->sqlerrcode == ERRCODE_SAGAZ_CONCURRENCY)
		blame.care = CARE_NONE;
	else if (error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
			 TimestampDifferenceExceeds(batch->called_at, GetCurrentTimestamp(),
										batch->delivery->timeout_ms))
	{
		blame.timed_out = true;
		blame.doubted = !undoes;
		blame.care = blame.doubted && is_patient(batch) ? CARE_NONE : CARE_SINGLY;
	}
	else if (!undoes && is_refusal(error->sqlerrcode))
		blame.verdict = TARGET_NEVER;
	else if (!undoes || is_passing(error->sqlerrcode))
	{
		blame.doubted = true;
		blame.care = is_patient(batch) ? CARE_NONE : CARE_PARTS;
	}
	return blame;
}

/*
 * For whoever gave up the transaction of a claim: how is the batch to be tried
 * again?  CARE_NONE if no event is to blame for the error.
 */
SagazCare
sagaz_attempt_blame(const SagazBatch *batch, const ErrorData *error)
{
	return batch->run->target && batch->run->target->undoes ?
		blame_for(batch, error).care : CARE_NONE;
}

/* ---------------------------------------------------------------------- */
/* Suspects */

/* The event, if it is one of those that failed; else NULL. */
static SagazSuspect *
find_suspect(SagazRun *run, Datum event_id)
{
	for (int i = 0; i < Min(run->nsuspects, SAGAZ_SUSPECTS); i++)
		if (memcmp(&run->suspects[i].event_id, DatumGetUUIDP(event_id), UUID_LEN) == 0)
			return &run->suspects[i];
	return NULL;
}

/*
 * The event failed alone; the target may be to blame, unless others went.
 * Returns whether they did.
 */
static bool
suspect_event(SagazBatch *batch, Datum event_id)
{
	SagazRun   *run = batch->run;
	SagazSuspect *suspect = find_suspect(run, event_id);

	if (batch->went || (suspect && suspect->others_went))
		return true;
	if (suspect == NULL)
	{
		suspect = &run->suspects[run->nsuspects++ % SAGAZ_SUSPECTS];
		suspect->event_id = *DatumGetUUIDP(event_id);
	}
	suspect->others_went = false;
	return false;
}

static void
note_success(SagazBatch *batch)
{
	batch->went = true;
	batch->vain = 0;
	for (int i = 0; i < Min(batch->run->nsuspects, SAGAZ_SUSPECTS); i++)
		batch->run->suspects[i].others_went = true;
}

/* ---------------------------------------------------------------------- */
/* One attempt */

/* Until sagaz_attempt_time_over() the target has so long. */
void
sagaz_attempt_time(int timeout_ms)
{
	enable_timeout_after(STATEMENT_TIMEOUT, timeout_ms);
}

/* A timeout that fired too late to stop the target must stop nothing else. */
void
sagaz_attempt_time_over(void)
{
	disable_timeout(STATEMENT_TIMEOUT, false);
	if (get_timeout_indicator(STATEMENT_TIMEOUT, true))
		QueryCancelPending = false;
}

static void
deliver_in_time(SagazBatch *batch, int first, int end, bool last)
{
	batch->called_at = GetCurrentTimestamp();
	sagaz_attempt_time(batch->delivery->timeout_ms);
	batch->run->target->deliver(batch, first, end, last);
	sagaz_attempt_time_over();
	batch->called_at = 0;
	for (int i = first; i < end; i++)
		batch->events[i].delivered = !batch->events[i].skipped;
}

/* In a PG_CATCH block. */
static ErrorData *
take_error(SagazBatch *batch, MemoryContext context, Blame *blame)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	sagaz_attempt_time_over();
	*blame = blame_for(batch, error);
	batch->called_at = 0;
	return error;
}

/* In a subtransaction.  Returns the error that was raised, or NULL. */
static ErrorData *
try_within(SagazBatch *batch, int first, int end, Blame *blame)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		deliver_in_time(batch, first, end, false);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		error = take_error(batch, context, blame);
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

/* While no transaction is open. */
static ErrorData *
try_outside(SagazBatch *batch, int first, int end, Blame *blame)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		deliver_in_time(batch, first, end, true);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		error = take_error(batch, context, blame);
		disable_all_timeouts(false);
		AbortCurrentTransaction();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return error;
}

/* Others must not take the batch over while it is tried part by part. */
static void
keep_lease_of_attempt(SagazBatch *batch)
{
	MemoryContext context = CurrentMemoryContext;

	if (GetCurrentTimestamp() < batch->lease_until - sagaz_claim_timeout * INT64CONST(500))
		return;
	sagaz_process_begin();
	batch->lease_until = sagaz_batch_keep_lease(batch->claim.batch_id,
												batch->run->worker_id);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/* Is there anything to deliver from first up to end? */
static bool
has_events_to_deliver(const SagazBatch *batch, int first, int end)
{
	for (int i = first; i < end; i++)
		if (!batch->events[i].skipped)
			return true;
	return false;
}

/* The error of delivering the events from first up to end, or NULL. */
static ErrorData *
try_part(SagazBatch *batch, int first, int end, Blame *blame)
{
	ErrorData  *error;

	CHECK_FOR_INTERRUPTS();
	if (!has_events_to_deliver(batch, first, end))
		return NULL;
	if (batch->run->target->undoes)
		error = try_within(batch, first, end, blame);
	else
	{
		keep_lease_of_attempt(batch);
		error = try_outside(batch, first, end, blame);
	}
	if (error == NULL)
		note_success(batch);
	else if (blame->doubted)
	{
		if (batch->doubt == NULL)
			batch->doubt = error;
		batch->vain++;
	}
	return error;
}

/* ---------------------------------------------------------------------- */
/* Parts and verdicts */

/* In an ordered group the rest of the saga waits for the event. */
static void
skip_behind(SagazBatch *batch, int failed)
{
	for (int i = failed + 1; i < batch->count; i++)
		if (strcmp(batch->events[i].saga_id, batch->events[failed].saga_id) == 0 &&
			!batch->events[i].skipped)
		{
			batch->events[i].skipped = true;
			batch->behind++;
		}
}

static SagazFailure
failure_of_verdict(SagazTargetVerdict verdict)
{
	switch (verdict)
	{
		case TARGET_NEVER:
			return FAILURE_FOR_GOOD;
		case TARGET_ASIDE:
			return FAILURE_ASIDE;
		default:
			return FAILURE_COUNTS;
	}
}

/* Write the verdict on one event, in a transaction. */
static void
mark_verdict(SagazBatch *batch, SagazHanded *event)
{
	sagaz_mark_event_failed(&batch->claim.group, event->event_id,
							batch->claim.worker_id, event->reason,
							failure_of_verdict(event->verdict));
	event->settled = true;
}

/* Write and commit the verdict on one event of a target that keeps. */
static void
settle_verdict(SagazBatch *batch, int failed)
{
	MemoryContext context = CurrentMemoryContext;
	SagazHanded *event = &batch->events[failed];

	batch->run->target->judged(batch, failed);
	sagaz_process_begin();
	PushActiveSnapshot(GetTransactionSnapshot());
	/* held back is what comes behind it by place, not what went before it */
	for (int i = 0; i < failed && batch->claim.group.ordered; i++)
		if (batch->events[i].delivered && !batch->events[i].settled &&
			strcmp(batch->events[i].saga_id, event->saga_id) == 0)
		{
			sagaz_mark_event_sent(&batch->claim.group, batch->events[i].event_id,
								  batch->claim.worker_id);
			batch->events[i].settled = true;
		}
	mark_verdict(batch, event);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/*
 * The detail of an error of a function may show the values that it was about,
 * or whole queries.
 */
static bool
may_quote_a_row(const ErrorData *error)
{
	int			class = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	return class == ERRCODE_DATA_EXCEPTION ||
		class == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION ||
		class == ERRCODE_WITH_CHECK_OPTION_VIOLATION ||
		strchr(error->detail, '\n') != NULL;
}

/* The target failed on one event that stood alone. */
static void
judge_event(SagazBatch *batch, int failed, const ErrorData *error, const Blame *blame)
{
	SagazHanded *event = &batch->events[failed];

	event->verdict = blame->verdict;
	event->doubted = blame->doubted && !batch->run->target->undoes &&
		!suspect_event(batch, event->event_id);
	event->skipped = true;
	if (event->doubted && batch->run->target->keeps)
		event->verdict = TARGET_ASIDE;
	if (blame->timed_out)
		event->reason = psprintf("the %s did not end within %d ms",
								 batch->run->target->undoes ? "handler" : "target",
								 batch->delivery->timeout_ms);
	else if (error->detail && !(batch->run->target->undoes && may_quote_a_row(error)))
		event->reason = psprintf("%s: %s", error->message, error->detail);
	else
		event->reason = pstrdup(error->message);
	if (batch->run->target->keeps)
		settle_verdict(batch, failed);
	if (batch->claim.group.ordered)
		skip_behind(batch, failed);
}

/* Is there no more sense in trying parts, or no time? */
static bool
attempts_are_vain(const SagazBatch *batch)
{
	if (batch->run->target->undoes)
		return false;
	return (batch->doubt && !batch->went && batch->vain >= batch->run->max_vain) ||
		!batch->run->slot->wanted || batch->run->slot->yield ||
		batch->run->slot->is_awaited;
}

static void deliver_parts(SagazBatch *batch, int first, int end, SagazCare care);

/* Deliver the events from first up to end, in parts if that fails. */
static void
deliver_part(SagazBatch *batch, int first, int end)
{
	Blame		blame = {0};
	ErrorData  *error = try_part(batch, first, end, &blame);

	if (error == NULL)
		return;
	if (blame.care == CARE_NONE || attempts_are_vain(batch))
		ReThrowError(error);
	if (end - first > 1)
		deliver_parts(batch, first, end, blame.care);
	else
		judge_event(batch, first, error, &blame);
}

/* Deliver the events from first up to end, in halves or one by one. */
static void
deliver_parts(SagazBatch *batch, int first, int end, SagazCare care)
{
	int			step = care == CARE_SINGLY ? 1 : (end - first + 1) / 2;

	for (int i = first; i < end; i += step)
		deliver_part(batch, i, Min(i + step, end));
}

/* Where nothing went, doubt is no verdict. */
static void
rethrow_doubt(const SagazBatch *batch)
{
	for (int i = 0; i < batch->count && !batch->went; i++)
		if (batch->events[i].doubted && !batch->events[i].settled)
			ReThrowError(batch->doubt);
}

/* Write what is not committed of the verdicts, in a transaction. */
static void
mark_verdicts(SagazBatch *batch, bool doubted)
{
	for (int i = 0; i < batch->count; i++)
	{
		SagazHanded *event = &batch->events[i];

		if (event->verdict == TARGET_DONE || (event->doubted && !doubted))
			continue;
		if (!event->settled)
			mark_verdict(batch, event);
		if (event->verdict == TARGET_NEVER ||
			(event->verdict == TARGET_AGAIN && event->retry_count + 1 > sagaz_max_retries))
			batch->dead++;
		else
			batch->failed++;
	}
}

/* Is there something left of the batch?  Verdicts may have closed it. */
static bool
is_attempt_open(const SagazBatch *batch)
{
	TimestampTz until;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		open = sagaz_receipt_closing(batch->claim.batch_id, snapshot, &until) == 0;

	UnregisterSnapshot(snapshot);
	return open;
}

/* Write all verdicts; what has none is sent.  In a transaction. */
static void
finish_attempt(SagazBatch *batch)
{
	mark_verdicts(batch, true);
	if (is_attempt_open(batch))
		(void) sagaz_batch_finish(batch->claim.batch_id, batch->claim.worker_id);
}

/* ---------------------------------------------------------------------- */
/* The whole batch */

/* Hand over what was claimed, at most "at_once" events at a time. */
static void
deliver_plainly(SagazBatch *batch, int at_once)
{
	MemoryContext part = AllocSetContextCreate(CurrentMemoryContext,
											   "sagaz part of a batch",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(part);
	int			done = 0;

	while (read_events_to_deliver(batch, at_once) > 0)
	{
		done += batch->count;
		deliver_in_time(batch, 0, batch->count, done >= batch->claim.picked);
		batch->count = 0;
		MemoryContextReset(part);
	}
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(part);
}

/* In the transaction of the claim, which is committed. */
static void
deliver_within(SagazBatch *batch, SagazCare care, int at_once)
{
	MemoryContext context = CurrentMemoryContext;

	if (care == CARE_NONE)
		deliver_plainly(batch, at_once);
	else
	{
		(void) read_events_to_deliver(batch, batch->claim.picked);
		if (batch->claim.group.ordered)
			sort_handed_by_place(batch);
		deliver_parts(batch, 0, batch->count, care);
	}
	tuplestore_end(batch->claim.rows);
	finish_attempt(batch);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/*
 * Deliver the batch's events while no transaction is open: first as a whole,
 * then in parts.  Raises the error of a target that is unwell; verdicts may be
 * there all the same.
 */
void
sagaz_attempt_events(SagazBatch *batch)
{
	MemoryContext context = CurrentMemoryContext;
	Blame		blame = {0};
	ErrorData  *error = try_part(batch, 0, batch->count, &blame);

	if (error == NULL)
		return;
	if (blame.care == CARE_NONE)
		ReThrowError(error);
	if (batch->claim.group.ordered && !batch->run->target->keeps)
	{
		sagaz_process_begin();
		sort_handed_by_place(batch);
		CommitTransactionCommand();
		MemoryContextSwitchTo(context);
	}
	if (batch->count > 1)
		deliver_parts(batch, 0, batch->count, blame.care);
	else
		judge_event(batch, 0, error, &blame);
	rethrow_doubt(batch);
}

/* Write all verdicts and finish the batch, in a transaction of its own. */
void
sagaz_attempt_finish(SagazBatch *batch)
{
	MemoryContext context = CurrentMemoryContext;

	sagaz_process_begin();
	PushActiveSnapshot(GetTransactionSnapshot());
	finish_attempt(batch);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	batch->out = false;
}

static bool
deliver_outside(SagazBatch *batch)
{
	MemoryContext context = CurrentMemoryContext;

	(void) read_events_to_deliver(batch, batch->claim.picked);
	tuplestore_end(batch->claim.rows);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	batch->lease_until = batch->claim.now + sagaz_claim_timeout * INT64CONST(1000);
	batch->out = !batch->run->target->keeps;
	if (!batch->run->target->begin(batch))
		return false;
	sagaz_attempt_events(batch);
	sagaz_attempt_finish(batch);
	return true;
}

/*
 * Deliver what batch->claim holds, in whose transaction this is called, and
 * commit; false if that was not the time for it, and the batch is kept.  Where
 * this raises an error, the caller gives up the transaction if there is one,
 * asks sagaz_attempt_blame() how to go on, and gives back what is out.
 */
bool
sagaz_attempt_deliver(SagazBatch *batch, SagazCare care, int at_once)
{
	batch->run->target->bind(batch);
	if (!batch->run->target->undoes)
		return deliver_outside(batch);
	deliver_within(batch, care, at_once);
	return true;
}

/*
 * The target is unwell: of the batch that is out, keep the verdicts that are
 * beyond doubt and give the rest back, with one write.  Begins a transaction
 * and commits it.
 */
void
sagaz_attempt_give_back(SagazBatch *batch, const char *error)
{
	batch->out = false;
	sagaz_process_begin();
	PushActiveSnapshot(GetTransactionSnapshot());
	mark_verdicts(batch, false);
	if (is_attempt_open(batch))
		(void) sagaz_batch_release(batch->claim.batch_id, batch->claim.worker_id, error, 0);
	PopActiveSnapshot();
	CommitTransactionCommand();
}
