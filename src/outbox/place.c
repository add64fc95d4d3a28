/*
 * place.c
 *		Which batch holds an event: where the event stands for one group.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "outbox/place.h"
#include "outbox/outbox.h"
#include "outbox/receipt.h"
#include "outbox/retry.h"

/*
 * The event of that id.  *scan is opened at the first call and serves the
 * next ones, too; the row stays valid until then.
 */
TupleTableSlot *
sagaz_place_fetch_event(SagazScan **scan, Datum event_id, Snapshot snapshot)
{
	ScanKeyData key;

	sagaz_key_uuid(&key, 1, event_id);
	if (*scan == NULL)
		*scan = sagaz_scan_begin("outbox", "outbox_event_id", snapshot, &key,
								 1, ForwardScanDirection);
	else
		sagaz_scan_again(*scan, &key, 1);
	return sagaz_scan_next(*scan) ? (*scan)->slot : NULL;
}

/*
 * Is the event one of those that the entry owes?  Receipts of its holder that
 * name single events are not looked at.
 */
bool
sagaz_place_is_owed(const SagazOwed *owed, int16 group_no, int16 lane,
					uint64 pos, int64 seq, const SagazCluster *cluster,
					Snapshot snapshot)
{
	SagazWindow window;

	return owed->range && seq > owed->lo && seq <= owed->hi &&
		!sagaz_owed_acked(owed, seq) &&
		sagaz_cursor_window(group_no, lane, owed->window_batch, snapshot,
							&window) &&
		sagaz_window_has(&window, cluster, pos, seq);
}

/* Does a retry row tell where the event stands? */
static bool
find_place_of_retry(const SagazGroup *group, Snapshot snapshot, SagazPlace *place)
{
	SagazScan  *scan = sagaz_retry_row_of(group->no, place->seq, snapshot);
	bool		found = sagaz_scan_next(scan);

	if (found)
	{
		place->state = PLACE_RETRY;
		place->retry_state = DatumGetInt16(sagaz_column(scan->slot, retry_state));
		if (place->retry_state == RETRY_OUT)
			place->holder = DatumGetInt64(sagaz_column(scan->slot, retry_batch_id));
	}
	sagaz_scan_end(scan);
	return found;
}

/* Where an event that left the log's straight path in nothing stands. */
static void
find_place_on_path(const SagazGroup *group, uint64 pos, Snapshot snapshot,
				   SagazPlace *place)
{
	SagazCluster *cluster = sagaz_cluster_read(snapshot);
	SagazCursor cursor;
	ListCell   *cell;

	sagaz_cursor_read(group->no, place->lane, snapshot, &cursor);
	if (!sagaz_window_end_saw(&cursor.window.from, cluster, pos, place->seq) &&
		!(sagaz_window_end_saw(&cursor.window.to, cluster, pos, place->seq) &&
		  place->seq <= cursor.last_seq))
	{
		place->state = PLACE_UNREAD;
		return;
	}
	place->state = PLACE_FINISHED;
	foreach(cell, cursor.owed)
	{
		SagazOwed  *owed = lfirst(cell);
		TimestampTz until;
		int			closed_by;

		if (!sagaz_place_is_owed(owed, group->no, place->lane, pos, place->seq,
								 cluster, snapshot))
			continue;
		closed_by = sagaz_receipt_closing(owed->holder, snapshot, &until);
		place->holder = owed->holder;
		if (closed_by == 0)
			place->state = PLACE_HELD_OUT;
		else if (closed_by != RECEIPT_SENT)
			place->state = PLACE_RETURNED;
		return;
	}
}

/* Does a receipt of the holder name the event as finished? */
static bool
place_is_acked(const SagazPlace *place, Snapshot snapshot)
{
	SagazReceipts receipts;

	sagaz_receipts_read(place->holder, snapshot, &receipts);
	return receipts.nseqs > 0 &&
		bsearch(&place->seq, receipts.seqs, receipts.nseqs, sizeof(int64),
				sagaz_receipt_compare_seqs) != NULL;
}

/*
 * Where does an event of the log stand for a group, as of the snapshot?  The
 * answer lasts only if the lock of the event's lane, or of the batch that
 * holds it, is held and the snapshot was taken after it.
 */
void
sagaz_place_find(const SagazGroup *group, TupleTableSlot *event,
				 Snapshot snapshot, SagazPlace *place)
{
	memset(place, 0, sizeof(SagazPlace));
	place->seq = DatumGetInt64(sagaz_column(event, outbox_seq));
	place->lane = DatumGetInt16(sagaz_column(event, outbox_lane));
	if (find_place_of_retry(group, snapshot, place))
		return;
	find_place_on_path(group, DatumGetUInt64(sagaz_column(event, outbox_pos)),
					   snapshot, place);
	if ((place->state == PLACE_HELD_OUT || place->state == PLACE_RETURNED) &&
		place_is_acked(place, snapshot))
		place->state = PLACE_FINISHED;
}
