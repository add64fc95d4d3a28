/*
 * stuck.c
 *		release_stuck_events(): end the leases of workers that are gone, before
 *		they run out by themselves.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "outbox/batch.h"
#include "outbox/lost.h"
#include "outbox/outbox.h"
#include "outbox/outstanding.h"
#include "outbox/retry.h"
#include "wakeup/wake.h"

PG_FUNCTION_INFO_V1(sagaz_release_stuck_events);

/* End the lease of an open batch whose lock is ours; returns its events. */
static int
end_stuck_lease(int64 batch_id, TimestampTz now)
{
	SagazLease	lease;

	sagaz_batch_lease_open(batch_id, NULL, &lease);
	sagaz_lost_close(&lease, now, NULL);
	sagaz_batch_lease_done(&lease);
	return sagaz_batch_still_owed(&lease);
}

/*
 * release_stuck_events(claimed_older_than, consumer_group, storage): how many
 * events.  A worker that extended its lease is not stuck until that runs out.
 */
Datum
sagaz_release_stuck_events(PG_FUNCTION_ARGS)
{
	int64		older_than = sagaz_interval_argument(fcinfo, 0, "claimed_older_than");
	TimestampTz now = GetCurrentTimestamp();
	SagazGroup	group;
	ListCell   *cell;
	int64		released = 0;

	PreventCommandIfReadOnly("release_stuck_events()");
	sagaz_group_use(sagaz_group_argument(fcinfo, 1, SAGAZ_DEFAULT_GROUP), &group);
	foreach(cell, sagaz_outstanding_batches(&group, NULL))
	{
		SagazOutstanding *batch = lfirst(cell);

		CHECK_FOR_INTERRUPTS();
		if (!sagaz_batch_is_older(batch->claimed_at, older_than, now) ||
			!sagaz_outstanding_lock(batch) || batch->extended_to > now)
			continue;
		released += end_stuck_lease(batch->batch_id, now);
	}
	if (released > 0)
		sagaz_wake_at_commit();
	PG_RETURN_INT64(released);
}
