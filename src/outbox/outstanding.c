/*
 * outstanding.c
 *		The batches of a group that are in the hands of workers, as the lanes'
 *		cursors name them.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "outbox/batch.h"
#include "outbox/cursor.h"
#include "outbox/locks.h"
#include "outbox/outstanding.h"
#include "outbox/receipt.h"
#include "outbox/place_number.h"

static bool
is_known_outstanding(List *batches, int64 batch_id)
{
	ListCell   *cell;

	foreach(cell, batches)
		if (((SagazOutstanding *) lfirst(cell))->batch_id == batch_id)
			return true;
	return false;
}

static List *
add_outstanding_of_lane(List *batches, const SagazGroup *group, int16 lane,
						Snapshot snapshot)
{
	SagazCursor cursor;
	ListCell   *cell;

	sagaz_cursor_read(group->no, lane, snapshot, &cursor);
	foreach(cell, cursor.owed)
	{
		SagazOwed  *owed = lfirst(cell);
		SagazOutstanding *batch;
		TimestampTz until;

		if (is_known_outstanding(batches, owed->holder) ||
			sagaz_receipt_closing(owed->holder, snapshot, &until) != 0)
			continue;
		batch = palloc0(sizeof(SagazOutstanding));
		batch->batch_id = owed->holder;
		batch->claimed_at = owed->claimed_at;
		batches = lappend(batches, batch);
	}
	return batches;
}

static int
compare_outstanding(const ListCell *a, const ListCell *b)
{
	int64		x = ((const SagazOutstanding *) lfirst(a))->batch_id;
	int64		y = ((const SagazOutstanding *) lfirst(b))->batch_id;

	return (x > y) - (x < y);
}

/*
 * The open batches of a lane, or of all if that is NULL, by their ids: the
 * order in which to lock them.  As the snapshot has them, in the present
 * memory context.
 */
List *
sagaz_outstanding_in(const SagazGroup *group, const int16 *lane,
					 Snapshot snapshot)
{
	List	   *batches = NIL;

	for (int16 i = 0; i < SAGAZ_LANES; i++)
		if (lane == NULL || *lane == i)
			batches = add_outstanding_of_lane(batches, group, i, snapshot);
	list_sort(batches, compare_outstanding);
	return batches;
}

/*
 * The same as of now; without a lock, so each may be closed when it is looked
 * at next.
 */
List *
sagaz_outstanding_batches(const SagazGroup *group, const int16 *lane)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	List	   *batches = sagaz_outstanding_in(group, lane, snapshot);

	UnregisterSnapshot(snapshot);
	return batches;
}

/*
 * Lock the batch, waiting if need be, and note how long its lease lasts;
 * false if it is closed by then.  The lock stays in both cases.
 */
bool
sagaz_outstanding_lock(SagazOutstanding *batch)
{
	SagazReceipts receipts;
	Snapshot	snapshot;

	(void) sagaz_lock_batch(batch->batch_id, true);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	sagaz_receipts_read(batch->batch_id, snapshot, &receipts);
	UnregisterSnapshot(snapshot);
	batch->extended_to = receipts.until;
	batch->lease_end = sagaz_batch_lease_end(batch->claimed_at, receipts.until,
											 GetCurrentTimestamp());
	return receipts.closed_by == 0;
}
