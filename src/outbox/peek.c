/*
 * peek.c
 *		Is there something for a consumer group to claim?
 *
 * The same questions as a claim asks, without locks and without writing.
 * What is seen may be gone when the claim comes; what becomes claimable later
 * is announced by a commit or by the clock.
 *
 * New events are looked for in the window up to now before the rest of the
 * window being read: where there are many, the first look finds one.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "outbox/batch.h"
#include "outbox/cursor.h"
#include "outbox/group.h"
#include "outbox/outbox.h"
#include "outbox/peek.h"
#include "outbox/receipt.h"
#include "outbox/retry.h"
#include "outbox/place_number.h"
#include "outbox/window_scan.h"

/*
 * Having seen so many rows that are not to be handed out, say that there is
 * something: a claim then moves the cursor behind them.
 */
#define MANY_ROWS 1000

typedef struct Peek
{
	SagazGroup	group;
	int16		lane;
	Snapshot	snapshot;
	SagazEnd	end;			/* the moment of the snapshot */
	SagazCluster *cluster;
	SagazCursor cursor;
	TimestampTz now;
	TimestampTz next;			/* when the answer may change by itself */
	bool		blocking;		/* may a retry row block sagas? */
} Peek;

static void
note_peeked_time(Peek *peek, TimestampTz at)
{
	peek->next = Min(peek->next, at);
}

/* Would a claim hand out this event of the log? */
static bool
peek_is_for_group(Peek *peek, TupleTableSlot *event)
{
	const SagazGroup *group = &peek->group;

	if (group->start_time != 0 &&
		DatumGetTimestampTz(sagaz_column(event, outbox_created_at)) <
		group->start_time)
		return false;
	if (!sagaz_column_is_null(event, outbox_available_at))
	{
		TimestampTz available =
			DatumGetTimestampTz(sagaz_column(event, outbox_available_at));

		if (available > peek->now)
		{
			note_peeked_time(peek, available);
			return false;
		}
	}
	return !peek->blocking ||
		!sagaz_retry_blocks(group->no, sagaz_column(event, outbox_saga_id),
							DatumGetInt64(sagaz_column(event, outbox_seq)),
							peek->snapshot);
}

/* Is one of the events of a range to be handed out? */
static bool
peek_at_range(Peek *peek, const SagazWindow *window, int64 after,
			  int64 upto, const SagazOwed *again,
			  const SagazReceipts *receipts)
{
	SagazWindowScan *scan =
		sagaz_window_scan_begin(window, peek->cluster, peek->lane, after,
								upto, MANY_ROWS, peek->snapshot);
	SagazRetryPlaces places;
	TupleTableSlot *event;
	bool		found = false;

	sagaz_retry_places_begin(&places, peek->group.no, after, peek->snapshot);
	while (!found && (event = sagaz_window_scan_next(scan)) != NULL)
	{
		int64		seq = DatumGetInt64(sagaz_column(event, outbox_seq));

		if (again && (sagaz_owed_acked(again, seq) ||
					  (receipts->nseqs > 0 &&
					   bsearch(&seq, receipts->seqs, receipts->nseqs,
							   sizeof(int64), sagaz_receipt_compare_seqs))))
			continue;
		if (!sagaz_retry_places_have(&places, seq))
			found = peek_is_for_group(peek, event);
		if (sagaz_window_scan_rows_read(scan) > MANY_ROWS)
			found = true;
	}
	sagaz_retry_places_end(&places);
	sagaz_window_scan_end(scan);
	return found;
}

/* Is there an event that no claim has come to? */
static bool
peek_at_new(Peek *peek)
{
	SagazWindow next = {.from = peek->cursor.window.to,.to = peek->end};

	return peek_at_range(peek, &next, 0, PG_INT64_MAX, NULL, NULL) ||
		peek_at_range(peek, &peek->cursor.window, peek->cursor.last_seq,
					  PG_INT64_MAX, NULL, NULL);
}

/* Note when the first retry that waits is due. */
static void
peek_at_next_due(Peek *peek)
{
	ScanKeyData keys[3];
	SagazScan  *scan;

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, peek->group.no);
	sagaz_key_int2(&keys[1], 2, BTEqualStrategyNumber, peek->lane);
	sagaz_key_time(&keys[2], 3, BTGreaterStrategyNumber, peek->now);
	scan = sagaz_scan_begin("outbox_retry", "outbox_retry_due",
							peek->snapshot, keys, 3, ForwardScanDirection);
	if (sagaz_scan_next(scan))
		note_peeked_time(peek, DatumGetTimestampTz(sagaz_column(scan->slot,
																retry_next_attempt_at)));
	sagaz_scan_end(scan);
}

/* Is there a retry that is due and waits for no other? */
static bool
peek_at_due_retry(Peek *peek)
{
	SagazScan  *due = sagaz_retry_scan_due(peek->group.no, peek->lane,
										   peek->now, peek->snapshot);
	bool		found = false;

	while (!found && sagaz_scan_next(due))
		found = !peek->group.ordered ||
			!sagaz_retry_blocks(peek->group.no,
								sagaz_column(due->slot, retry_saga_id),
								DatumGetInt64(sagaz_column(due->slot, retry_seq)),
								peek->snapshot);
	sagaz_scan_end(due);
	if (!found)
		peek_at_next_due(peek);
	return found;
}

/*
 * Look at one entry of what the lane owes.  Sets *found if it can be handed
 * out, in whole or in part; returns whether it is still out or waits, so that
 * an ordered group gets nothing else from the lane.
 */
static bool
peek_at_owed(Peek *peek, const SagazOwed *owed, bool *found)
{
	SagazReceipts receipts;
	SagazWindow window;
	TimestampTz free_at = 0;

	sagaz_receipts_read(owed->holder, peek->snapshot, &receipts);
	if (receipts.closed_by == RECEIPT_SENT)
		return false;
	if (receipts.closed_by == 0)
		free_at = sagaz_batch_lease_end(owed->claimed_at, receipts.until);
	else if (!owed->range)
		return false;
	else
		free_at = receipts.until;
	if (free_at > peek->now)
	{
		note_peeked_time(peek, free_at);
		return true;
	}
	/* an expired batch of retries: a claim takes it over */
	if (!owed->range)
		*found = true;
	else if (sagaz_cursor_window(peek->group.no, peek->lane,
								 owed->window_batch, peek->snapshot, &window))
		*found = peek_at_range(peek, &window, owed->lo, owed->hi, owed,
							   &receipts);
	return false;
}

/* Is there something in the lane? */
static bool
peek_at_lane(Peek *peek)
{
	ListCell   *cell;
	bool		found = false;

	sagaz_cursor_read(peek->group.no, peek->lane, peek->snapshot,
					  &peek->cursor);
	foreach(cell, peek->cursor.owed)
	{
		if (peek_at_owed(peek, lfirst(cell), &found) && peek->group.ordered)
			return false;
		if (found)
			return true;
	}
	return peek_at_due_retry(peek) || peek_at_new(peek);
}

/*
 * Could a claim of the group hand something out now?  If not, *next is when
 * that may change though nothing is committed; PG_INT64_MAX for never.  Takes
 * no lock and no xid, and writes nothing; an error where the outbox is inert.
 * Memory of the look is left in the present context.
 */
bool
sagaz_peek(const char *group_name, TimestampTz now, TimestampTz *next)
{
	Peek		peek = {.now = now,.next = PG_INT64_MAX};
	bool		found = false;

	/* the default group need not exist to have something to claim */
	if (strcmp(group_name, SAGAZ_DEFAULT_GROUP) != 0)
		sagaz_group_get(group_name, &peek.group);
	else
		(void) sagaz_group_find(group_name, &peek.group);
	peek.snapshot = sagaz_window_end_read(&peek.end);
	peek.cluster = sagaz_cluster_active(peek.snapshot);
	sagaz_window_end_set_epoch(&peek.end, peek.cluster);
	peek.blocking = peek.group.ordered &&
		sagaz_retry_blocks_any(peek.group.no, peek.snapshot);
	while (!found && !peek.group.paused && peek.lane < SAGAZ_LANES)
	{
		found = peek_at_lane(&peek);
		peek.lane++;
	}
	UnregisterSnapshot(peek.snapshot);
	*next = peek.next;
	return found;
}
