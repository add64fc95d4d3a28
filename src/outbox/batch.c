/*
 * batch.c
 *		The lease of a batch: finish, release, extend, take over.
 *
 * Whoever says something about a batch locks it first and then looks with a
 * fresh snapshot, so that the answer cannot change under him; the unique key
 * of the closing receipt is the second line of defence.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "outbox/batch.h"
#include "outbox/cursor.h"
#include "outbox/locks.h"
#include "outbox/outbox.h"
#include "outbox/retry.h"
#include "outbox/place_number.h"
#include "lib/times.h"
#include "lib/tuples.h"
#include "wakeup/wake.h"

PG_FUNCTION_INFO_V1(sagaz_finish_batch);
PG_FUNCTION_INFO_V1(sagaz_release_batch);
PG_FUNCTION_INFO_V1(sagaz_extend_batch);

/* What was claimed is not the caller's any more. */
void
sagaz_batch_lost(int64 batch_id, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CONCURRENCY),
			 errmsg("batch " INT64_FORMAT " is not this worker's any more", batch_id),
			 errdetail_internal("%s", detail),
			 errhint("Its events are finished, or another worker has them or will get them: drop the work.")));
}

/*
 * When a lease runs out that was last extended to "extended", 0 for never.
 * The setting counts as it is now, also for leases that began under another.
 * A claim from before the clock was set back is over, unless it was extended:
 * to break a lease costs its events a second time, to wait until the clock
 * has caught up might stop a lane for hours.
 */
TimestampTz
sagaz_batch_lease_end(TimestampTz claimed_at, TimestampTz extended, TimestampTz now)
{
	if (sagaz_time_is_ahead(claimed_at, now))
		return Max(now - SAGAZ_CLOCK_SLACK, extended);
	return Max(claimed_at + (int64) sagaz_claim_timeout * 1000, extended);
}

/* Was the batch claimed so many microseconds ago?  0 is true of all. */
bool
sagaz_batch_is_older(TimestampTz claimed_at, int64 age, TimestampTz now)
{
	return age == 0 || claimed_at <= now - age ||
		sagaz_time_is_ahead(claimed_at, now);
}

/* Add up the batch's rows, one a lane. */
static void
add_up_batch(SagazLease *lease)
{
	bool		found = false;

	for (int16 lane = 0; lane < SAGAZ_LANES; lane++)
	{
		SagazScan  *scan = sagaz_cursor_scan_batch(lease->group.no, lane,
												   lease->batch_id,
												   lease->snapshot);

		if (sagaz_scan_next(scan))
		{
			int			events =
				DatumGetInt32(sagaz_column(scan->slot, batch_events));

			found = true;
			if (events > 0)
				lease->worker_id = sagaz_column_text(scan->slot, batch_worker_id);
			lease->in_stream |= !sagaz_column_is_null(scan->slot, batch_stream_ms);
			lease->events += events;
			lease->claimed_at =
				DatumGetTimestampTz(sagaz_column(scan->slot, batch_claimed_at));
		}
		sagaz_scan_end(scan);
	}
	if (!found || lease->events == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_NOT_FOUND),
				 errmsg("batch " INT64_FORMAT " does not exist", lease->batch_id)));
}

/*
 * Read a batch, open or closed, as of the snapshot, which is the caller's; an
 * error if there is none.  What it points to lies in the present memory
 * context.
 */
void
sagaz_batch_read(int64 batch_id, Snapshot snapshot, SagazLease *lease)
{
	memset(lease, 0, sizeof(SagazLease));
	lease->batch_id = batch_id;
	lease->snapshot = snapshot;
	sagaz_group_by_no(sagaz_batch_group(batch_id), &lease->group);
	add_up_batch(lease);
	sagaz_receipts_read(batch_id, snapshot, &lease->receipts);
}

/*
 * Was the batch claimed by that worker?  Looks with a snapshot of its own and
 * takes no lock; who claimed a batch never changes.
 */
bool
sagaz_batch_is_of(int64 batch_id, const char *worker_id)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		is = false;

	for (int16 lane = 0; lane < SAGAZ_LANES && !is; lane++)
	{
		SagazScan  *scan = sagaz_cursor_scan_batch(sagaz_batch_group(batch_id),
												   lane, batch_id, snapshot);

		if (sagaz_scan_next(scan))
		{
			char	   *owner = sagaz_column_text(scan->slot, batch_worker_id);
			is = owner && strcmp(owner, worker_id) == 0;
		}
		sagaz_scan_end(scan);
	}
	UnregisterSnapshot(snapshot);
	return is;
}

static void
check_batch_open(const SagazLease *lease)
{
	switch (lease->receipts.closed_by)
	{
		case RECEIPT_SENT:
			sagaz_batch_lost(lease->batch_id, "It is finished.");
			break;
		case RECEIPT_RELEASED:
			sagaz_batch_lost(lease->batch_id, "It was released.");
			break;
		case RECEIPT_TAKEN_OVER:
			sagaz_batch_lost(lease->batch_id, "Its lease ran out and it was taken over.");
			break;
	}
}

/*
 * Lock a batch until the transaction ends and check that worker_id holds it;
 * NULL for whoever holds it.  An error if the batch is closed or another's.
 * The lease has a snapshot taken under the lock, registered until
 * sagaz_batch_lease_done(); what it points to lies in the present memory
 * context.
 */
void
sagaz_batch_lease_open(int64 batch_id, const char *worker_id, SagazLease *lease)
{
	if (batch_id <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_NOT_FOUND),
				 errmsg("batch " INT64_FORMAT " does not exist", batch_id)));
	PreventCommandDuringRecovery("this function");
	(void) sagaz_lock_batch(batch_id, true);
	sagaz_batch_read(batch_id, RegisterSnapshot(GetLatestSnapshot()), lease);
	if (worker_id && (lease->worker_id == NULL || strcmp(lease->worker_id, worker_id) != 0))
		sagaz_batch_lost(batch_id, "It was claimed by another worker.");
	check_batch_open(lease);
}

/* Let go of the lease's snapshot.  The lock stays. */
void
sagaz_batch_lease_done(SagazLease *lease)
{
	UnregisterSnapshot(lease->snapshot);
}

/* Events of the batch that are neither finished nor moved one by one. */
int
sagaz_batch_still_owed(const SagazLease *lease)
{
	return lease->events - lease->receipts.events;
}

/*
 * After "events" more were finished or moved, whose receipts are written but
 * not in the lease's counts: with the last of them the lease ends.
 */
void
sagaz_batch_close_if_done(SagazLease *lease, int events, TimestampTz at)
{
	if (sagaz_batch_still_owed(lease) - events > 0)
		return;
	sagaz_receipt_close(lease->batch_id, RECEIPT_SENT, at, 0, 0, NULL);
	if (lease->group.ordered)
		sagaz_wake_at_commit();
}

/*
 * All events that the batch still owes were sent; returns how many.  Takes
 * the batch's lock and none of a lane.
 */
int
sagaz_batch_finish(int64 batch_id, const char *worker_id)
{
	TimestampTz now;
	SagazLease	lease;

	sagaz_batch_lease_open(batch_id, worker_id, &lease);
	now = GetCurrentTimestamp();
	sagaz_receipt_close(batch_id, RECEIPT_SENT, now, 0, sagaz_batch_still_owed(&lease),
						NULL);
	sagaz_retry_finish_batch(&lease.group, batch_id, now, lease.snapshot);
	if (lease.group.ordered)
		sagaz_wake_at_commit();
	sagaz_batch_lease_done(&lease);
	return sagaz_batch_still_owed(&lease);
}

/* finish_batch(batch_id, worker_id, storage): how many events it finished */
Datum
sagaz_finish_batch(PG_FUNCTION_ARGS)
{
	int64		batch_id = DatumGetInt64(sagaz_argument(fcinfo, 0, "batch_id"));
	char	   *worker_id = sagaz_text_argument(fcinfo, 1, "worker_id");

	PG_RETURN_INT32(sagaz_batch_finish(batch_id, worker_id));
}

/*
 * Give back what the batch still owes, not to be handed out before delay
 * microseconds have passed; returns how many events.  Takes the batch's lock
 * and none of a lane.
 */
int
sagaz_batch_release(int64 batch_id, const char *worker_id, const char *error,
					int64 delay)
{
	TimestampTz now;
	SagazLease	lease;

	sagaz_batch_lease_open(batch_id, worker_id, &lease);
	now = GetCurrentTimestamp();
	sagaz_wake_at_commit();
	sagaz_receipt_close(batch_id, RECEIPT_RELEASED, now, now + delay,
						sagaz_batch_still_owed(&lease), error);
	sagaz_retry_return_batch(batch_id, now + delay, lease.snapshot);
	sagaz_batch_lease_done(&lease);
	return sagaz_batch_still_owed(&lease);
}

/* release_batch(batch_id, worker_id, error, delay, storage): events released */
Datum
sagaz_release_batch(PG_FUNCTION_ARGS)
{
	int64		batch_id = DatumGetInt64(sagaz_argument(fcinfo, 0, "batch_id"));
	char	   *worker_id = sagaz_text_argument(fcinfo, 1, "worker_id");
	char	   *error = sagaz_text_argument_or_null(fcinfo, 2);
	int64		delay = sagaz_interval_argument(fcinfo, 3, "delay");

	PG_RETURN_INT32(sagaz_batch_release(batch_id, worker_id, error, delay));
}

/*
 * Extend the worker's lease on the batch if it runs out within half of
 * sagaz.claim_timeout.  Returns when it runs out; takes the batch's lock.
 */
TimestampTz
sagaz_batch_keep_lease(int64 batch_id, const char *worker_id)
{
	int64		lasts = sagaz_claim_timeout * INT64CONST(1000);
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until;
	SagazLease	lease;

	sagaz_batch_lease_open(batch_id, worker_id, &lease);
	until = sagaz_batch_lease_end(lease.claimed_at, lease.receipts.until, now);
	if (until < now + lasts / 2)
	{
		until = now + lasts;
		sagaz_receipt_extend(batch_id, until);
	}
	sagaz_batch_lease_done(&lease);
	return until;
}

/* extend_batch(batch_id, worker_id, by, storage): when the lease runs out */
Datum
sagaz_extend_batch(PG_FUNCTION_ARGS)
{
	int64		batch_id = DatumGetInt64(sagaz_argument(fcinfo, 0, "batch_id"));
	char	   *worker_id = sagaz_text_argument(fcinfo, 1, "worker_id");
	int64		by = sagaz_interval_argument(fcinfo, 2, "by");
	TimestampTz now;
	TimestampTz until;
	SagazLease	lease;

	sagaz_batch_lease_open(batch_id, worker_id, &lease);
	now = GetCurrentTimestamp();
	sagaz_receipt_extend(batch_id, now + by);
	until = sagaz_batch_lease_end(lease.claimed_at,
								  Max(now + by, lease.receipts.until), now);
	sagaz_batch_lease_done(&lease);
	PG_RETURN_TIMESTAMPTZ(until);
}
