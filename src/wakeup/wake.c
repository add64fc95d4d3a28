/*
 * wake.c
 *		A commit that makes events claimable wakes those who wait for them.
 *
 * A flag of this process says that the present transaction drew a place in
 * the log, gave back a batch or a retry, or freed a lane.  The commit callback
 * turns it into a broadcast on a condition variable in shared memory, for
 * wait_for_events(), and sets the latches of the database's workers.  A
 * subtransaction that is rolled back leaves the flag set: who wakes for
 * nothing looks and sleeps again.  COMMIT PREPARED runs no callback of the
 * inserting session, so all look every sagaz.poll_interval, too.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/wait_event.h"

#include "wakeup/wake.h"
#include "wakeup/shared.h"

typedef struct WakeState
{
	pg_atomic_uint32 waiters;
	ConditionVariable committed;
} WakeState;

static WakeState *wake = NULL;	/* NULL without shared_preload_libraries */
static bool wake_wanted = false;
static bool deliveries_changed = false;
static bool databases_changed = false;
static bool waiting = false;

Size
sagaz_wake_size(void)
{
	return sizeof(WakeState);
}

/* Take the shared memory; fresh: as yet it holds nothing. */
void
sagaz_wake_attach(void *memory, bool fresh)
{
	wake = memory;
	if (fresh)
	{
		pg_atomic_init_u32(&wake->waiters, 0);
		ConditionVariableInit(&wake->committed);
	}
}

/* Wake those who wait for events, and this database's workers. */
void
sagaz_wake_all(void)
{
	if (wake == NULL)
		return;
	if (pg_atomic_read_u32(&wake->waiters) > 0)
		ConditionVariableBroadcast(&wake->committed);
	sagaz_shared_wake_workers(MyDatabaseId, false);
}

/* Runs in the committing transaction's last steps, where nothing may fail. */
static void
wake_at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_PREPARE && deliveries_changed)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has changed deliveries")));
	if (event == XACT_EVENT_COMMIT && deliveries_changed)
	{
		sagaz_shared_database_changed(MyDatabaseId);
		sagaz_shared_wake_workers(MyDatabaseId, true);
	}
	if (event == XACT_EVENT_COMMIT && databases_changed)
		sagaz_shared_all_changed();
	if (event == XACT_EVENT_COMMIT && wake_wanted)
		sagaz_wake_all();
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		wake_wanted = deliveries_changed = databases_changed = false;
}

static void
register_wake_callback(void)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(wake_at_transaction_end, NULL);
	registered = true;
}

/*
 * When this transaction commits, there may be more to claim, or sooner.
 * Whoever makes something claimable calls it, once or often; a rollback
 * forgets it.
 */
void
sagaz_wake_at_commit(void)
{
	if (wake == NULL)
		return;
	register_wake_callback();
	wake_wanted = true;
}

/*
 * When this transaction commits, this database's deliveries are others.  It
 * cannot be prepared from here on, as nobody would be told of its commit.
 */
void
sagaz_wake_for_deliveries(void)
{
	register_wake_callback();
	deliveries_changed = true;
}

/* When this transaction commits, the launcher shall look into all databases. */
void
sagaz_wake_for_databases(void)
{
	register_wake_callback();
	databases_changed = true;
}

/* A waiter whose process ends must not be counted any more. */
static void
wake_forget_waiter(int code, Datum arg)
{
	if (waiting)
		sagaz_wake_end();
}

/*
 * From here on no commit is missed.  Look for events after this call and
 * before each sagaz_wake_sleep().
 */
void
sagaz_wake_prepare(void)
{
	static bool exit_registered = false;

	if (wake == NULL)
		return;
	if (!exit_registered)
	{
		before_shmem_exit(wake_forget_waiter, 0);
		exit_registered = true;
	}
	if (!waiting)
	{
		pg_atomic_fetch_add_u32(&wake->waiters, 1);
		waiting = true;
	}
	ConditionVariablePrepareToSleep(&wake->committed);
}

/*
 * Sleep until a commit or the timeout; true when it was a commit.  The
 * caller holds no snapshot; a cancel is raised as an error.
 */
bool
sagaz_wake_sleep(long timeout_ms)
{
	if (wake != NULL)
		return !ConditionVariableTimedSleep(&wake->committed, timeout_ms,
											PG_WAIT_EXTENSION);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 timeout_ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	return false;
}

/* To be called on every way out, errors included. */
void
sagaz_wake_end(void)
{
	if (wake == NULL || !waiting)
		return;
	ConditionVariableCancelSleep();
	pg_atomic_fetch_sub_u32(&wake->waiters, 1);
	waiting = false;
}
