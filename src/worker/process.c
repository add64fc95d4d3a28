/*
 * process.c
 *		What the background processes have in common.
 */
#include "lib/sagaz.h"

#include <limits.h>

#include "access/xact.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "lib/times.h"
#include "worker/process.h"

/* A worker that ran for less ended at once. */
#define QUICK_END_S 10
#define MAX_RESTART_MS 60000

/* SIGTERM ends the process at its next chance, also within a handler. */
void
sagaz_process_signals(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
}

/*
 * Once connected: settings that the role or the database may have, but that
 * we cannot work with.
 */
void
sagaz_process_settings(void)
{
	SetConfigOption("search_path", "", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed",
					PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off",
					PGC_SUSET, PGC_S_OVERRIDE);
#if PG_VERSION_NUM >= 170000
	SetConfigOption("transaction_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
#endif
	SetConfigOption("default_transaction_deferrable", "off",
					PGC_SUSET, PGC_S_OVERRIDE);
}

/* Begin a transaction, in which now() is now. */
void
sagaz_process_begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
}

/*
 * Outside of a transaction: end quietly if told to.  A cancel that comes now
 * finds nothing to stop.
 */
void
sagaz_process_interrupts(int exit_code)
{
	QueryCancelPending = false;
	if (ProcDiePending)
		proc_exit(exit_code);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Sleep until then, PG_INT64_MAX for ever; wake: or until the latch is set,
 * which is what is returned.
 */
bool
sagaz_process_sleep(TimestampTz until, bool wake)
{
	int			events = WL_EXIT_ON_PM_DEATH;
	long		timeout = -1;

	if (until != PG_INT64_MAX)
	{
		events |= WL_TIMEOUT;
		timeout = Min(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until),
					  INT_MAX);
	}
	if (wake)
		events |= WL_LATCH_SET;
	return (WaitLatch(wake ? MyLatch : NULL, events, timeout,
					  PG_WAIT_EXTENSION) & WL_LATCH_SET) != 0;
}

/*
 * What a worker does now, for all to see; takes the workers' lock.  Whoever
 * changes a delivery waits while a batch is delivered.
 */
void
sagaz_process_state(SagazWorkerSlot *slot, SagazWorkerState state)
{
	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	if (slot->state != state || state == WORKER_DELIVERING)
		slot->state_since = GetCurrentTimestamp();
	slot->state = state;
	slot->is_awaited = false;
	LWLockRelease(sagaz_workers_lock);
}

/*
 * A slot's worker is gone; the caller holds the lock.  One that ends again
 * and again as soon as it is started is started ever later.
 */
void
sagaz_process_ended(SagazWorkerSlot *slot)
{
	TimestampTz now = GetCurrentTimestamp();

	slot->state = WORKER_NONE;
	slot->pid = 0;
	slot->latch = NULL;
	slot->not_before = 0;
	slot->look_first = slot->wanted && !slot->yield;
	if (!slot->wanted || slot->yield ||
		TimestampDifferenceExceeds(slot->started_at, now, QUICK_END_S * 1000))
	{
		slot->quick_ends = 0;
		slot->yield = false;
		return;
	}
	slot->not_before = now +
		sagaz_backoff(1000, MAX_RESTART_MS, slot->quick_ends++);
}
