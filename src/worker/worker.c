/*
 * worker.c
 *		The process that runs one delivery.
 *
 * It claims a batch, has it delivered, finishes it, and when there is nothing
 * to claim sleeps on its latch until a commit sets it, or something falls
 * due, or sagaz.poll_interval has passed.  The latch is reset before it looks,
 * so no commit is missed.
 *
 * After an error that tells nothing about single events it waits, twice as
 * long each time, and tries the same again.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "lib/times.h"
#include "outbox/batch.h"
#include "worker/attempt.h"
#include "worker/delivery.h"
#include "upkeep/housekeeping.h"
#include "outbox/locks.h"
#include "outbox/peek.h"
#include "outbox/retry.h"
#include "worker/obstacle.h"
#include "worker/process.h"
#include "worker/target.h"
#include "wakeup/shared.h"
#include "wakeup/crash.h"

#if PG_VERSION_NUM >= 170000
#define CONNECT_FLAGS BGWORKER_BYPASS_ROLELOGINCHECK
#else
#define CONNECT_FLAGS 0
#endif

/* The longest wait after errors. */
#define MAX_BACKOFF_MS 60000
/* Errors are logged at most that often. */
#define LOG_INTERVAL_MS 60000
/* One that is past can be seen for so long. */
#define SHOW_ERROR_MS 60000
/* Where others hold what there is to claim, look again after so long. */
#define TAKEN_RETRY_MS 20
/* While commits come fast, collect them for a tenth of a ms each. */
#define MAX_COLLECT_MS 10
#define EVENTS_PER_MS 10
/* So many batches go into one transaction, if they take no longer. */
#define MAX_SCALE 10
#define SCALE_MS 20
/* So many errors in a row that may pass, and an event may be to blame. */
#define MAX_PATIENCE 3
/* Then so many parts of a batch are tried if nothing goes, twice as many each time. */
#define MAX_VAIN 8
#define MAX_VAIN_DOUBLINGS 8
/* House-keeping rests so many times as long as it works. */
#define REST_FACTOR 4

PGDLLEXPORT void sagaz_worker_main(Datum main_arg);

typedef enum Outcome
{
	NOTHING,					/* to deliver now */
	DELIVERED,
	LOOKED,						/* at what was delivered earlier */
	RETRY_WITH_CARE,			/* the target failed, and all is undone */
	FAILED						/* something else did */
} Outcome;

typedef struct Worker
{
	SagazWorkerSlot *slot;
	char	   *name;			/* of the delivery */
	SagazRun	run;			/* what its target knows */
	Oid			owner;			/* whom this process is connected as */
	MemoryContext context;		/* of one round */
	SagazCare	care;			/* how the next batch is tried */
	int			singly;			/* events that are yet to be tried with it */
	bool		called;			/* the target, since the last end() */
	bool		gone;			/* the delivery is not to run any more */
	bool		expect;			/* there is likely something to claim */
	int			errors;			/* in a row */
	TimestampTz not_before;		/* after an error: no round earlier */
	TimestampTz next;			/* when there may be something to claim */
	TimestampTz next_housekeeping;
	TimestampTz logged_at;
	int			count;			/* events of the last transaction */
	bool		full;			/* it could not have been larger */
	bool		done;			/* nothing is left of this round's batch */
	int			scale;			/* batches in one transaction */
} Worker;

static void
detach_worker(int code, Datum arg)
{
	SagazWorkerSlot *slot = (SagazWorkerSlot *) DatumGetPointer(arg);

	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	sagaz_process_ended(slot);
	LWLockRelease(sagaz_workers_lock);
	sagaz_shared_wake_launcher();
}

/* Take the slot over; ends the process where it is not to run any more. */
static void
attach_worker(Worker *worker, int slot_no, Oid *database, Oid *owner)
{
	SagazWorkerSlot *slot = &sagaz_workers->slots[slot_no];
	SagazCrashMark mark = {0};
	bool		wanted;

	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	wanted = slot->wanted && slot->pid == 0 &&
		!sagaz_shared_is_closed(slot->database);
	if (wanted)
	{
		slot->pid = MyProcPid;
		slot->latch = MyLatch;
		slot->state = WORKER_IDLE;
		slot->started_at = GetCurrentTimestamp();
	}
	else if (slot->pid == 0)
		slot->state = WORKER_NONE;
	*database = slot->database;
	*owner = slot->owner;
	mark.database = slot->database;
	mark.delivery = slot->name;
	mark.confirmed_at = slot->confirmed_at;
	worker->slot = slot;
	worker->name = MemoryContextStrdup(TopMemoryContext, NameStr(slot->name));
	LWLockRelease(sagaz_workers_lock);
	if (!wanted)
	{
		sagaz_shared_wake_launcher();
		proc_exit(0);
	}
	before_shmem_exit(detach_worker, PointerGetDatum(slot));
	sagaz_crash_attach(slot_no, &mark);
}

/*
 * The delivery, as it is to be run now; false where there is none, it is
 * paused, or somebody is changing it.
 */
static bool
worker_open_delivery(Worker *worker, SagazDelivery *delivery)
{
	Snapshot	snapshot;
	bool		found;

	worker->gone = false;
	if (!sagaz_lock_delivery(worker->name, false, false))
	{
		/* nobody tells when a change is undone */
		worker->next = GetCurrentTimestamp() +
			TAKEN_RETRY_MS * INT64CONST(1000);
		return false;
	}
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	found = sagaz_delivery_find(worker->name, snapshot, delivery);
	UnregisterSnapshot(snapshot);
	/* one of another owner runs in another process */
	worker->gone = !found || delivery->paused ||
		delivery->owner_id != worker->owner ||
		sagaz_delivery_obstacle(delivery) != NULL;
	if (!worker->gone)
		sagaz_delivery_rename(delivery);
	return !worker->gone;
}

static void
worker_count_batch(Worker *worker, const SagazBatch *batch)
{
	SagazDone  *done = &worker->slot->done;

	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	done->batches++;
	done->delivered += batch->claim.picked - batch->failed - batch->dead -
		batch->behind;
	done->failed += batch->failed;
	done->dead += batch->dead;
	done->last_delivery = GetCurrentTimestamp();
	LWLockRelease(sagaz_workers_lock);
}

/* Count events of a batch that was finished later. */
static void
worker_count_delivered(Worker *worker, int events)
{
	SagazDone  *done = &worker->slot->done;

	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	done->batches++;
	done->delivered += events;
	done->last_delivery = GetCurrentTimestamp();
	LWLockRelease(sagaz_workers_lock);
}

/* Keep an error for the statistics, and log it unless one was just now. */
static void
worker_note_error(Worker *worker, const char *error, const char *context)
{
	TimestampTz now = GetCurrentTimestamp();
	SagazDone  *done = &worker->slot->done;

	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	done->last_error_at = now;
	strlcpy(done->last_error, error,
			pg_mbcliplen(error, strlen(error), SAGAZ_ERROR_LENGTH - 1) + 1);
	LWLockRelease(sagaz_workers_lock);
	if (!TimestampDifferenceExceeds(worker->logged_at, now, LOG_INTERVAL_MS))
		return;
	worker->logged_at = now;
	ereport(LOG,
			(errmsg("delivery \"%s\": %s", worker->name, error),
			 errdetail_internal("%s", context)));
}

/*
 * There is nothing to deliver: if no event has failed that waits or is a dead
 * letter, then all is well, and the last error is past; it stays to be seen
 * for a minute.
 */
static void
worker_forget_error(Worker *worker, const SagazDelivery *delivery)
{
	SagazDone  *done = &worker->slot->done;
	SagazGroup	group;
	Snapshot	snapshot;
	bool		failed;

	if (done->last_error[0] == '\0' ||
		!TimestampDifferenceExceeds(done->last_error_at, GetCurrentTimestamp(), SHOW_ERROR_MS) ||
		!sagaz_group_find(delivery->consumer_group, &group))
		return;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	failed = sagaz_retry_any_failed(group.no, snapshot);
	UnregisterSnapshot(snapshot);
	if (failed)
		return;
	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	done->last_error[0] = '\0';
	LWLockRelease(sagaz_workers_lock);
}

/* Keep the error of the first event that has a verdict. */
static void
worker_note_failures(Worker *worker, const SagazBatch *batch)
{
	for (int i = 0; i < batch->count; i++)
		if (batch->events[i].verdict != TARGET_DONE)
		{
			worker_note_error(worker, psprintf("event %s: %s",
											   DatumGetCString(DirectFunctionCall1(uuid_out,
																				   batch->events[i].event_id)),
											   batch->events[i].reason),
							  psprintf("The target failed on %d of %d events, first on event %s.",
									   batch->failed + batch->dead, batch->count,
									   DatumGetCString(DirectFunctionCall1(uuid_out,
																		   batch->events[i].event_id))));
			return;
		}
}

static void
worker_report_batch(const SagazBatch *batch)
{
	char	   *activity = psprintf("sagaz: delivering %d events of batch "
									INT64_FORMAT " to %s",
									batch->claim.picked, batch->claim.batch_id,
									batch->delivery->handler ?
									batch->delivery->handler :
									batch->delivery->target);

	pgstat_report_activity(STATE_RUNNING, activity);
}

/*
 * Where there is much to deliver and the handler is quick, several batches
 * share the cost of a commit.
 */
static void
adapt_worker_scale(Worker *worker, TimestampTz start)
{
	if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(), SCALE_MS))
		worker->scale = Max(worker->scale / 2, 1);
	else if (worker->full)
		worker->scale = Min(worker->scale * 2, MAX_SCALE);
}

/* What was tried event by event is through. */
static void
worker_relax(Worker *worker, const SagazBatch *batch)
{
	worker->singly -= batch->claim.picked;
	if (worker->care != CARE_SINGLY || worker->singly <= 0)
		worker->care = CARE_NONE;
}

/* Deliver what was claimed and commit. */
static void
worker_deliver(Worker *worker, SagazBatch *batch, int at_once)
{
	TimestampTz start = GetCurrentTimestamp();

	sagaz_process_state(worker->slot, WORKER_DELIVERING);
	worker_report_batch(batch);
	worker->called = true;
	if (!sagaz_attempt_deliver(batch, worker->care, at_once))
		return;
	worker_count_batch(worker, batch);
	worker_note_failures(worker, batch);
	pgstat_report_stat(false);
	worker_relax(worker, batch);
	worker->errors = 0;
	worker->count = batch->claim.picked;
	worker->full = sagaz_claim_is_full(&batch->claim);
	worker->done = true;
	adapt_worker_scale(worker, start);
}

/* The delivery may be another of that name by now: what was known is no more. */
static void
worker_choose_target(Worker *worker, const SagazDelivery *delivery)
{
	const SagazTarget *target = sagaz_target_of(delivery);

	if (target == worker->run.target)
		return;
	if (worker->run.state)
		pfree(worker->run.state);
	worker->run.state = NULL;
	worker->run.once = false;
	worker->run.target = target;
}

/* What earlier batches left is settled now, or not; was there something? */
static bool
worker_catch_up(Worker *worker, const SagazDelivery *delivery)
{
	worker->run.caught_up = 0;
	worker->run.patient = worker->errors < MAX_PATIENCE;
	worker->run.max_vain = MAX_VAIN <<
		Min(Max(worker->errors - MAX_PATIENCE, 0), MAX_VAIN_DOUBLINGS);
	if (!worker->run.target->catch_up(&worker->run, delivery))
		return false;
	if (worker->run.caught_up > 0)
		worker_count_delivered(worker, worker->run.caught_up);
	worker->errors = 0;
	return true;
}

/* So many events are claimed at most. */
static int
worker_limit(const Worker *worker, int at_once)
{
	switch (worker->care)
	{
		case CARE_NONE:
			return at_once * worker->scale;
		case CARE_PARTS:
			return at_once;
		case CARE_SINGLY:
			return 1;
	}
	return at_once;				/* keep compiler quiet */
}

/*
 * Claim and deliver.  Where there was nothing, worker->next tells when
 * there may be.
 */
static Outcome
worker_claim_and_deliver(Worker *worker, SagazBatch *batch)
{
	SagazDelivery *delivery = palloc0(sizeof(SagazDelivery));
	int			at_once;

	batch->delivery = delivery;
	worker->done = false;
	if (!worker_open_delivery(worker, delivery))
		return NOTHING;
	worker_choose_target(worker, delivery);
	if (worker_catch_up(worker, delivery))
		return LOOKED;
	if (!worker->expect &&
		!sagaz_peek(delivery->consumer_group, GetCurrentTimestamp(), &worker->next))
	{
		worker_forget_error(worker, delivery);
		return NOTHING;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	at_once = delivery->batch_size > 0 ? delivery->batch_size : sagaz_batch_size;
	batch->claim.worker_id = worker->run.worker_id;
	batch->claim.limit = worker_limit(worker, at_once);
	sagaz_attempt_prepare(batch);
	worker->run.target->prepare(batch);
	sagaz_claim(&batch->claim, delivery->consumer_group);
	if (batch->claim.picked > 0)
	{
		worker_deliver(worker, batch, at_once);
		return DELIVERED;
	}
	PopActiveSnapshot();
	if (sagaz_peek(delivery->consumer_group, GetCurrentTimestamp(), &worker->next))
		worker->next = GetCurrentTimestamp() + TAKEN_RETRY_MS * INT64CONST(1000);
	return NOTHING;
}

/* After an error that no event is to blame for: wait, ever longer. */
static void
worker_back_off(Worker *worker)
{
	worker->not_before = GetCurrentTimestamp() +
		sagaz_backoff(Max(sagaz_retry_backoff, 100), MAX_BACKOFF_MS, worker->errors++);
	worker->slot->resting_until = worker->not_before;
	sagaz_process_state(worker->slot, WORKER_BACKING_OFF);
}

/*
 * In a PG_CATCH block: give up the transaction.  Returns the error, and in
 * *care what the target's failure, if it was that, makes of the next try.
 */
static ErrorData *
worker_give_up(Worker *worker, const SagazBatch *batch, SagazCare *care)
{
	ErrorData  *error;

	MemoryContextSwitchTo(worker->context);
	error = CopyErrorData();
	FlushErrorState();
	HOLD_INTERRUPTS();
	disable_all_timeouts(false);
	QueryCancelPending = false;
	*care = batch ? sagaz_attempt_blame(batch, error) : CARE_NONE;
	AbortCurrentTransaction();
	RESUME_INTERRUPTS();
	MemoryContextSwitchTo(worker->context);
	return error;
}

/* The target did not take the batch: give it back. */
static void
worker_release(Worker *worker, SagazBatch *batch, const char *error)
{
	PG_TRY();
	{
		sagaz_attempt_give_back(batch, error);
	}
	PG_CATCH();
	{
		SagazCare	care;
		ErrorData  *again = worker_give_up(worker, NULL, &care);

		/* then its lease runs out */
		worker_note_error(worker, sagaz_error_text(again), "A batch could not be given back.");
	}
	PG_END_TRY();
	MemoryContextSwitchTo(worker->context);
}

/* The events of the batch are as if never claimed. */
static Outcome
worker_recover(Worker *worker, SagazBatch *batch)
{
	ErrorData  *error = worker_give_up(worker, batch, &worker->care);

	worker->scale = 1;
	worker->singly = worker->care == CARE_SINGLY ? batch->claim.picked : 0;
	if (batch->out)
		worker_release(worker, batch, sagaz_error_text(error));
	if (worker->care != CARE_NONE)
		return RETRY_WITH_CARE;
	worker_note_error(worker, sagaz_error_text(error),
					  "No event is to blame; the same will be tried again.");
	worker_back_off(worker);
	return FAILED;
}

/*
 * The target was called: let it tidy up.  Where that cannot be done a new
 * process has to go on.
 */
static void
worker_end_batch(Worker *worker)
{
	worker->called = false;
	PG_TRY();
	{
		worker->run.target->end(&worker->run, worker->done);
	}
	PG_CATCH();
	{
		SagazCare	care;
		ErrorData  *error = worker_give_up(worker, NULL, &care);

		worker_note_error(worker, sagaz_error_text(error), "What a batch left could not be removed.");
		proc_exit(1);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(worker->context);
}

static Outcome
worker_run_round(Worker *worker)
{
	SagazBatch *batch;
	volatile Outcome outcome;

	MemoryContextReset(worker->context);
	MemoryContextSwitchTo(worker->context);
	batch = palloc0(sizeof(SagazBatch));
	batch->run = &worker->run;
	worker->next = PG_INT64_MAX;
	PG_TRY();
	{
		sagaz_process_begin();
		MemoryContextSwitchTo(worker->context);
		outcome = worker_claim_and_deliver(worker, batch);
		if (IsTransactionState())
			CommitTransactionCommand();
	}
	PG_CATCH();
	{
		outcome = worker_recover(worker, batch);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(worker->context);
	if (worker->called)
		worker_end_batch(worker);
	return outcome;
}

/* Do a slice of house-keeping; true if there is more to do at once. */
static bool
worker_keep_house(Worker *worker)
{
	SagazHousekeeping did = {0};
	volatile bool failed = false;

	MemoryContextReset(worker->context);
	pgstat_report_activity(STATE_RUNNING, "sagaz: house-keeping");
	sagaz_process_state(worker->slot, WORKER_HOUSEKEEPING);
	PG_TRY();
	{
		sagaz_process_begin();
		PushActiveSnapshot(GetTransactionSnapshot());
		sagaz_housekeep(&did);
		PopActiveSnapshot();
		CommitTransactionCommand();
		MemoryContextSwitchTo(worker->context);
	}
	PG_CATCH();
	{
		SagazCare	care;
		ErrorData  *error = worker_give_up(worker, NULL, &care);

		worker_note_error(worker, sagaz_error_text(error), "House-keeping failed.");
		memset(&did, 0, sizeof(did));
		failed = true;
	}
	PG_END_TRY();
	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	worker->slot->done.archived += did.archived;
	worker->slot->done.inbox_removed += did.inbox_removed;
	worker->slot->done.last_housekeeping = GetCurrentTimestamp();
	LWLockRelease(sagaz_workers_lock);
	return did.more && !failed;
}

/* A slice of house-keeping, if it is time for one; was it? */
static bool
worker_keep_house_if_due(Worker *worker)
{
	TimestampTz start = GetCurrentTimestamp();
	TimestampTz now;

	if (start < worker->next_housekeeping)
		return false;
	if (worker_keep_house(worker))
	{
		now = GetCurrentTimestamp();
		worker->next_housekeeping = now + (now - start) * REST_FACTOR;
	}
	else
		worker->next_housekeeping = GetCurrentTimestamp() +
			sagaz_housekeeping_interval * INT64CONST(1000);
	return true;
}

/* Was there never a moment without events, for as long as another interval? */
static bool
worker_neglects_house(const Worker *worker)
{
	return GetCurrentTimestamp() > worker->next_housekeeping +
		sagaz_housekeeping_interval * INT64CONST(1000);
}

static void
worker_sleep(Worker *worker)
{
	TimestampTz net = GetCurrentTimestamp() +
		sagaz_poll_interval * INT64CONST(1000);

	sagaz_process_state(worker->slot, WORKER_IDLE);
	sagaz_crash_busy(false);
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
	worker->expect =
		sagaz_process_sleep(Min(net, Min(worker->next,
										 worker->next_housekeeping)), true);
}

/*
 * Several commits fell into one transaction of ours, which is not full: give
 * more of them the time to come, so that a stream of small transactions does
 * not cost a batch each.
 */
static void
worker_collect(const Worker *worker)
{
	int			wait_ms = Min(worker->count / EVENTS_PER_MS, MAX_COLLECT_MS);

	if (wait_ms > 0 && !worker->full)
		(void) sagaz_process_sleep(GetCurrentTimestamp() +
								   wait_ms * INT64CONST(1000), false);
}

/*
 * Do not wait to be told that the delivery is gone: to find that out, the
 * launcher needs a process, and this one may be the last.  It looks afterwards,
 * as the delivery may have come back meanwhile.
 */
static void
retire_worker(Worker *worker)
{
	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	worker->slot->wanted = false;
	LWLockRelease(sagaz_workers_lock);
	sagaz_shared_database_changed(MyDatabaseId);
}

static void
worker_step(Worker *worker)
{
	if (GetCurrentTimestamp() < worker->not_before)
	{
		sagaz_crash_busy(false);
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) sagaz_process_sleep(worker->not_before, true);
		return;
	}
	sagaz_crash_busy(true);
	switch (worker_run_round(worker))
	{
		case DELIVERED:
			worker->expect = worker->full;
			worker_collect(worker);
			if (worker_neglects_house(worker))
				(void) worker_keep_house_if_due(worker);
			break;
		case NOTHING:
			if (worker->gone)
			{
				retire_worker(worker);
				break;
			}
			/* its waits may have taken a commit's wake-up away: look again */
			if (!worker_keep_house_if_due(worker))
				worker_sleep(worker);
			break;
		case LOOKED:
			break;
		case RETRY_WITH_CARE:
			worker->expect = true;
			break;
		case FAILED:
			break;
	}
}

void
sagaz_worker_main(Datum main_arg)
{
	Worker	   *worker = MemoryContextAllocZero(TopMemoryContext, sizeof(Worker));
	char	   *application;
	Oid			database;
	Oid			owner;

	sagaz_process_signals();
	attach_worker(worker, DatumGetInt32(main_arg), &database, &owner);
	BackgroundWorkerInitializeConnectionByOid(database, owner, CONNECT_FLAGS);
	sagaz_process_settings();
	application = psprintf("sagaz delivery %s", worker->name);
	SetConfigOption("application_name", application, PGC_USERSET,
					PGC_S_OVERRIDE);
	pgstat_report_appname(application);
	worker->owner = owner;
	worker->run.slot = worker->slot;
	worker->run.worker_id = MemoryContextStrdup(TopMemoryContext, application);
	worker->context = AllocSetContextCreate(TopMemoryContext, "sagaz worker",
											ALLOCSET_DEFAULT_SIZES);
	worker->expect = true;
	worker->scale = 1;
	ereport(LOG, (errmsg("delivery \"%s\" started", worker->name)));
	while (worker->slot->wanted && worker->slot->owner == owner &&
		   !worker->slot->yield)
	{
		ResetLatch(MyLatch);
		sagaz_process_interrupts(0);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			worker->next_housekeeping = 0;
		}
		if (pg_atomic_exchange_u32(&worker->slot->nudged, 0) != 0)
			worker->not_before = 0;
		worker_step(worker);
	}
	ereport(LOG, (errmsg("delivery \"%s\" stopped", worker->name)));
	proc_exit(0);
}
