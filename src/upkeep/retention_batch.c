/*
 * retention_batch.c
 *		Removing batches whose events are gone, and their receipts.
 *
 * A lane's batches are looked at from the oldest on, up to the first that is
 * still needed: the cursor, what the cursor's list of owed ranges names, and
 * those that tell about an event that is still in the log.  The last one
 * before that stays, too, since a row may read on in its predecessor's window.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "access/tableam.h"
#include "storage/lmgr.h"
#include "utils/snapmgr.h"

#include "outbox/outbox.h"
#include "outbox/receipt.h"
#include "upkeep/retention.h"

/* The lowest batch that the cursor or its list names. */
static int64
first_batch_in_use(const SagazCursor *cursor)
{
	int64		first = cursor->batch_id;
	ListCell   *cell;

	foreach(cell, cursor->owed)
	{
		SagazOwed  *owed = lfirst(cell);

		first = Min(first, owed->holder);
		if (owed->range)
			first = Min(first, Min(owed->root, owed->window_batch));
	}
	return first;
}

/* Does a range that the batch handed out first hold an event that stays? */
static bool
batch_range_is_needed(const SagazKeeper *keeper, int16 lane, const SagazOwed *owed,
					  int64 end_seq)
{
	SagazStates *states = keeper->states;

	if (owed->hi >= end_seq)
		return true;
	for (int i = 0; i < keeper->nkept; i++)
		if (sagaz_cursor_range_has(owed, states->group.no, lane,
								   keeper->kept[i].pos, keeper->kept[i].seq,
								   states->cluster, states->snapshot))
			return true;
	return false;
}

/* Is the batch of this row still needed? */
static bool
batch_is_needed(const SagazKeeper *keeper, int16 lane, TupleTableSlot *slot,
				int64 end_seq, TimestampTz before)
{
	int64		batch_id = DatumGetInt64(sagaz_column(slot, batch_batch_id));
	SagazReceipts receipts;
	ListCell   *cell;

	if (DatumGetTimestampTz(sagaz_column(slot, batch_claimed_at)) >= before)
		return true;
	if (DatumGetInt32(sagaz_column(slot, batch_events)) > 0)
	{
		sagaz_receipts_read(batch_id, keeper->states->snapshot, &receipts);
		if (receipts.closed_by == 0 || receipts.closed_at >= before)
			return true;
	}
	foreach(cell, sagaz_cursor_row_owed(slot))
	{
		SagazOwed  *owed = lfirst(cell);

		if (owed->range && owed->root == batch_id &&
			batch_range_is_needed(keeper, lane, owed, end_seq))
			return true;
	}
	return false;
}

/*
 * Remove a group's batches of one lane that are not needed any more and add
 * their ids to *removed.  Events at places from end_seq on were not looked at.
 */
void
sagaz_remove_batches(const SagazKeeper *keeper, int16 lane, int64 end_seq,
					 TimestampTz before, List **removed)
{
	SagazStates *states = keeper->states;
	int64		in_use = first_batch_in_use(sagaz_states_cursor(states, lane));
	ScanKeyData keys[3];
	SagazScan  *scan;
	ItemPointerData previous_tid;
	int64		previous = 0;

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, states->group.no);
	sagaz_key_int2(&keys[1], 2, BTEqualStrategyNumber, lane);
	sagaz_key_int8(&keys[2], 3, BTLessStrategyNumber, in_use);
	LockRelationOid(sagaz_relation_id("outbox_batch"), RowExclusiveLock);
	scan = sagaz_scan_begin("outbox_batch", "outbox_batch_key",
							states->snapshot, keys, 3, ForwardScanDirection);
	while (sagaz_scan_next(scan) &&
		   !batch_is_needed(keeper, lane, scan->slot, end_seq, before))
	{
		if (previous != 0)
		{
			int64	   *id = palloc(sizeof(int64));

			simple_table_tuple_delete(scan->rel, &previous_tid,
									  states->snapshot);
			*id = previous;
			*removed = lappend(*removed, id);
		}
		previous = DatumGetInt64(sagaz_column(scan->slot, batch_batch_id));
		previous_tid = scan->slot->tts_tid;
	}
	sagaz_scan_end(scan);
}

/* Has the batch a row in some lane? */
static bool
batch_exists(int64 batch_id, Snapshot snapshot)
{
	SagazWindow window;

	for (int16 lane = 0; lane < SAGAZ_LANES; lane++)
		if (sagaz_cursor_window(sagaz_batch_group(batch_id), lane, batch_id,
								snapshot, &window))
			return true;
	return false;
}

/*
 * Remove the receipts of those of the batches that are gone from all lanes,
 * as the present transaction sees them.
 */
void
sagaz_retention_remove_receipts(List *batch_ids)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ListCell   *cell;

	LockRelationOid(sagaz_relation_id("outbox_receipt"), RowExclusiveLock);
	foreach(cell, batch_ids)
	{
		int64		batch_id = *(int64 *) lfirst(cell);

		if (!batch_exists(batch_id, snapshot))
			sagaz_receipts_remove(batch_id);
	}
	UnregisterSnapshot(snapshot);
}
