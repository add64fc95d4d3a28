/*
 * lost.c
 *		Batches whose workers are gone, and how their events go out again.
 *
 * A worker that vanishes says nothing about its events, and one of them may be
 * why: an event that kills whoever handles it.  So what a lost batch still
 * owed goes out again in batches of half its size, with nothing else in them,
 * until the event that kills stands alone; each loss of it alone is a failure
 * like others but for the wait, which the lease was, and with the last of them
 * it is a dead letter.  What else was in those batches is delivered on the way.
 *
 * Nothing is written for this when a batch is lost but the receipt that ends
 * its lease, and how many events it still owed: the next claim reads it there.
 * Only what one claim leaves of a lost range, and rows of outbox_retry, carry
 * the limit.
 *
 * The events of a batch that has places in a stream are never divided: which
 * of them the stream has is told by the order in which they go out again.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "outbox/lost.h"
#include "outbox/locks.h"
#include "outbox/outbox.h"
#include "outbox/retry.h"

/* Events that a lost batch still owed: they may have to do with it; else 0. */
static int
suspects_in(const SagazLease *lease)
{
	return lease->in_stream ? 0 : sagaz_batch_still_owed(lease);
}

static char *
lost_error(const char *worker_id)
{
	return psprintf("worker \"%s\" was lost while it had this event and no other",
					worker_id ? worker_id : "");
}

/* How many events the batch may have that is next with some of so many. */
static int
half_of_lost(int events)
{
	return (events + 1) / 2;
}

/* Write the retry that was out in a lost batch: it waits, or has failed. */
static void
return_lost_retry(SagazWriter *writer, TupleTableSlot *retry, const SagazLease *lease,
				  TimestampTz now)
{
	int			suspects = suspects_in(lease);

	sagaz_writer_copy(writer, retry);
	if (suspects == 1)
		sagaz_retry_failed(writer, now, lost_error(lease->worker_id), FAILURE_LOST);
	else
		sagaz_retry_wait(writer, now);
	sagaz_writer_clear(writer, retry_batch_id);
	if (suspects > 0)
		sagaz_writer_set(writer, retry_batch_limit, Int32GetDatum(half_of_lost(suspects)));
	sagaz_writer_update(writer, retry, lease->snapshot);
}

/*
 * End the lease of a batch whose worker is gone; note is who says so.  The
 * batch's lock is held, the lease was read under it and found open.  What is
 * written is visible to a new snapshot.
 */
void
sagaz_lost_close(SagazLease *lease, TimestampTz now, const char *note)
{
	SagazScan  *scan = sagaz_retry_scan_batch(lease->batch_id, lease->snapshot);
	SagazWriter *writer = NULL;

	sagaz_receipt_close(lease->batch_id, RECEIPT_TAKEN_OVER, now, 0, suspects_in(lease), note);
	while (sagaz_scan_next(scan))
	{
		if (writer == NULL)
			writer = sagaz_writer_begin("outbox_retry");
		return_lost_retry(writer, scan->slot, lease, now);
		sagaz_retry_let_go(&lease->group, sagaz_column(scan->slot, retry_saga_id), now);
	}
	sagaz_scan_end(scan);
	if (writer)
		sagaz_writer_end(writer);
	CommandCounterIncrement();
}

/*
 * End an expired lease for worker_id.  False if it is not expired after all,
 * or if somebody is saying something about the batch right now: the caller
 * holds a lane and must not wait for a batch.  After true the caller's
 * snapshot is too old to read receipts with.
 */
bool
sagaz_lost_take_over(const SagazOwed *owed, TimestampTz now, const char *worker_id)
{
	SagazLease	lease;
	bool		taken;

	if (!sagaz_lock_batch(owed->holder, false))
		return false;
	sagaz_batch_read(owed->holder, RegisterSnapshot(GetLatestSnapshot()), &lease);
	taken = lease.receipts.closed_by == 0 &&
		sagaz_batch_lease_end(owed->claimed_at, lease.receipts.until, now) <= now;
	if (taken)
		sagaz_lost_close(&lease, now, worker_id);
	sagaz_batch_lease_done(&lease);
	return taken;
}

/*
 * The range is to go out again: set the limit of the batch that has it next,
 * if its last one was lost.  Was it in there alone, returns the worker that was
 * lost with it, else NULL.  How many there were says the receipt, as retention
 * may have removed the batch's rows of other lanes.
 */
char *
sagaz_lost_set_limit(SagazOwed *owed)
{
	Snapshot	snapshot;
	SagazLease	lease;

	if (owed->limit > 0)
		return NULL;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	sagaz_batch_read(owed->holder, snapshot, &lease);
	UnregisterSnapshot(snapshot);
	owed->limit = half_of_lost(lease.receipts.lost);
	if (lease.receipts.lost != 1)
		return NULL;
	return lease.worker_id ? lease.worker_id : "";
}

/*
 * Start a row for an event of the log with which alone a worker was lost; the
 * caller inserts it.
 */
void
sagaz_lost_retry_row(SagazWriter *writer, int16 group_no, TupleTableSlot *event,
					 const SagazOwed *owed, const char *worker_id, TimestampTz now)
{
	sagaz_retry_row_of_event(writer, group_no, event, RETRY_WAITING);
	sagaz_writer_set(writer, retry_claimed_at, TimestampTzGetDatum(owed->claimed_at));
	sagaz_writer_set(writer, retry_worker_id, CStringGetTextDatum(worker_id));
	sagaz_writer_set(writer, retry_batch_limit, Int32GetDatum(1));
	sagaz_retry_failed(writer, now, lost_error(worker_id), FAILURE_LOST);
}
