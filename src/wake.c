/*
 * wake.c
 *		A commit that makes events claimable wakes those who wait for them.
 *
 * A flag of this process says that the present transaction drew a place in
 * the log, gave back a batch or a retry, or freed a lane; the commit callback turns it into a broadcast on a condition
 * variable in shared memory.  A subtransaction that is rolled back leaves the
 * flag set: a waiter that wakes for nothing looks and sleeps again.  COMMIT
 * PREPARED runs no callback of the inserting session, so waiters also look
 * every sagaz.poll_interval.
 */
#include "sagaz.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/wait_event.h"

#include "wake.h"

typedef struct WakeState
{
	pg_atomic_uint32 waiters;
	ConditionVariable committed;
} WakeState;

static WakeState *wake = NULL;	/* NULL without shared_preload_libraries */
static bool wake_wanted = false;
static bool callback_registered = false;
static bool waiting = false;

static shmem_startup_hook_type previous_startup_hook = NULL;
#if PG_VERSION_NUM >= 150000
static shmem_request_hook_type previous_request_hook = NULL;
#endif

static void
request_shared_memory(void)
{
#if PG_VERSION_NUM >= 150000
	if (previous_request_hook)
		previous_request_hook();
#endif
	RequestAddinShmemSpace(MAXALIGN(sizeof(WakeState)));
}

static void
start_shared_memory(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	wake = ShmemInitStruct("sagaz wake", sizeof(WakeState), &found);
	if (!found)
	{
		pg_atomic_init_u32(&wake->waiters, 0);
		ConditionVariableInit(&wake->committed);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Called while shared_preload_libraries are loaded. */
void
sagaz_wake_install(void)
{
#if PG_VERSION_NUM >= 150000
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
#else
	request_shared_memory();
#endif
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = start_shared_memory;
}

/* Runs in the committing transaction's last steps, where nothing may fail. */
static void
at_transaction_end(XactEvent event, void *arg)
{
	if (wake_wanted && event == XACT_EVENT_COMMIT &&
		pg_atomic_read_u32(&wake->waiters) > 0)
		ConditionVariableBroadcast(&wake->committed);
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		wake_wanted = false;
}

/* When this transaction commits, there may be more to claim, or sooner. */
void
sagaz_wake_at_commit(void)
{
	if (wake == NULL)
		return;
	if (!callback_registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		callback_registered = true;
	}
	wake_wanted = true;
}

/* Can a commit wake this process? */
bool
sagaz_wake_available(void)
{
	return wake != NULL;
}

/* A waiter whose process ends must not be counted any more. */
static void
forget_waiter(int code, Datum arg)
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
		before_shmem_exit(forget_waiter, 0);
		exit_registered = true;
	}
	if (!waiting)
	{
		pg_atomic_fetch_add_u32(&wake->waiters, 1);
		waiting = true;
	}
	ConditionVariablePrepareToSleep(&wake->committed);
}

/* Sleep until a commit or the timeout; true when it was a commit. */
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
