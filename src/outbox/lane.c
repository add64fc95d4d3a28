/*
 * lane.c
 *		A lane as it is at one moment, and whose turn it is to be handed out.
 *
 * A claim asks under the lane's lock and acts on the answers; a peek asks
 * without it, to know whether a claim is worth while.
 */
#include "lib/sagaz.h"

#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "outbox/batch.h"
#include "outbox/lane.h"
#include "outbox/outbox.h"
#include "outbox/retry.h"

/*
 * Look at the lane as it is now; a claim holds its lock already.  The
 * snapshot is registered, in place of the one of the last look; the caller
 * lets go of the last one.  What is found lies in the present memory context.
 * An error where the outbox is inert.
 */
void
sagaz_lane_look(SagazLane *lane)
{
	if (lane->snapshot)
		UnregisterSnapshot(lane->snapshot);
	lane->snapshot = sagaz_window_end_read(&lane->end);
	lane->cluster = sagaz_cluster_active(lane->snapshot);
	sagaz_window_end_set_epoch(&lane->end, lane->cluster);
	lane->blocking = lane->group->ordered &&
		sagaz_retry_blocks_any(lane->group->no, lane->snapshot);
}

/* Walk events of a window that the lane was read in, or is to be. */
SagazWindowScan *
sagaz_lane_scan(const SagazLane *lane, const SagazWindow *window, int64 after,
				int64 upto, int chunk)
{
	return sagaz_window_scan_begin(window, lane->cluster, lane->group->no,
								   lane->no, after, upto, chunk, lane->snapshot);
}

/*
 * In an ordered group: does the saga wait for an earlier event?  One with a
 * lower place than those that wait was inserted before their commit, so it
 * does not follow from them.
 */
static bool
is_saga_blocked(const SagazLane *lane, Datum saga_id, Datum seq)
{
	return lane->blocking &&
		sagaz_retry_blocks(lane->group->no, saga_id, DatumGetInt64(seq),
						   lane->snapshot);
}

/* The turn of an event of the log that has no retry row. */
SagazTurn
sagaz_lane_turn_of_event(const SagazLane *lane, TupleTableSlot *event)
{
	TimestampTz created_at =
		DatumGetTimestampTz(sagaz_column(event, outbox_created_at));

	if (!sagaz_group_gets(lane->group, event))
		return TURN_NEVER;
	if (lane->older_than > 0 && created_at > lane->now - lane->older_than)
		return TURN_TOO_YOUNG;
	if (!sagaz_column_is_null(event, outbox_available_at) &&
		DatumGetTimestampTz(sagaz_column(event, outbox_available_at)) > lane->now)
		return TURN_SCHEDULED;
	if (is_saga_blocked(lane, sagaz_column(event, outbox_saga_id),
						sagaz_column(event, outbox_seq)))
		return TURN_HELD;
	return TURN_NOW;
}

/* The turn of a retry that is due. */
SagazTurn
sagaz_lane_turn_of_retry(const SagazLane *lane, TupleTableSlot *retry)
{
	return is_saga_blocked(lane, sagaz_column(retry, retry_saga_id),
						   sagaz_column(retry, retry_seq)) ?
		TURN_HELD : TURN_NOW;
}

/*
 * The turn of an entry of what the lane owes; of one that is out, *at is when
 * that may end.  If a lease seems to last, nobody asks whether it was extended
 * beyond that.  Who hands out an entry of TURN_EXPIRED takes it over first.
 */
SagazTurn
sagaz_lane_turn_of_owed(const SagazLane *lane, const SagazOwed *owed,
						TimestampTz *at)
{
	SagazReceipts receipts;

	switch (sagaz_receipt_closing(owed->holder, lane->snapshot, at))
	{
		case RECEIPT_SENT:
			return TURN_NEVER;
		case RECEIPT_RELEASED:
		case RECEIPT_TAKEN_OVER:
			if (!owed->range)
				return TURN_NEVER;
			return *at <= lane->now ? TURN_NOW : TURN_OUT;
	}
	*at = sagaz_batch_lease_end(owed->claimed_at, 0, lane->now);
	if (*at > lane->now)
		return TURN_OUT;
	sagaz_receipts_read(owed->holder, lane->snapshot, &receipts);
	*at = sagaz_batch_lease_end(owed->claimed_at, receipts.until, lane->now);
	return *at > lane->now ? TURN_OUT : TURN_EXPIRED;
}
