/*
 * cursor.c
 *		How far a consumer group has read a lane: rows of outbox_batch.
 *
 * The newest row of a lane is the cursor.  Rows are written under the lane's
 * lock and batch ids are drawn under it too, so "newest" is "highest id".
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "commands/sequence.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "outbox/cursor.h"
#include "outbox/outbox.h"
#include "outbox/place_number.h"
#include "outbox/receipt.h"

/*
 * A scan for the row that a batch has in a lane, if any; with batch_id 0 for
 * all rows of the lane, the newest first.
 */
SagazScan *
sagaz_cursor_scan_batch(int16 group_no, int16 lane, int64 batch_id,
						Snapshot snapshot)
{
	ScanKeyData keys[3];

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, group_no);
	sagaz_key_int2(&keys[1], 2, BTEqualStrategyNumber, lane);
	sagaz_key_int8(&keys[2], 3, BTEqualStrategyNumber, batch_id);
	return sagaz_scan_begin("outbox_batch", "outbox_batch_key", snapshot, keys,
							batch_id == 0 ? 2 : 3,
							batch_id == 0 ? BackwardScanDirection :
							ForwardScanDirection);
}

/* What a row of outbox_batch owes, in the present memory context. */
List *
sagaz_cursor_row_owed(TupleTableSlot *row)
{
	SagazOwedBase base = {
		.batch_id = DatumGetInt64(sagaz_column(row, batch_batch_id)),
		.last_seq = DatumGetInt64(sagaz_column(row, batch_last_seq)),
		.claimed_at = DatumGetTimestampTz(sagaz_column(row, batch_claimed_at))
	};

	return sagaz_owed_decode(sagaz_column(row, batch_owed), &base);
}

static void
read_cursor_row(TupleTableSlot *slot, SagazCursor *cursor)
{
	cursor->found = true;
	cursor->batch_id = DatumGetInt64(sagaz_column(slot, batch_batch_id));
	cursor->claimed_at = DatumGetTimestampTz(sagaz_column(slot, batch_claimed_at));
	cursor->last_seq = DatumGetInt64(sagaz_column(slot, batch_last_seq));
	sagaz_window_decode(sagaz_column(slot, batch_ends), &cursor->window);
	cursor->owed = sagaz_cursor_row_owed(slot);
}

/*
 * The newest row of the lane as of the snapshot; without one, the moment
 * before everything.  Who means to write the next one holds the lane's lock
 * and has taken the snapshot after it.  Lies in the present memory context.
 */
void
sagaz_cursor_read(int16 group_no, int16 lane, Snapshot snapshot,
				  SagazCursor *cursor)
{
	SagazScan  *scan = sagaz_cursor_scan_batch(group_no, lane, 0, snapshot);

	memset(cursor, 0, sizeof(SagazCursor));
	if (sagaz_scan_next(scan))
		read_cursor_row(scan->slot, cursor);
	else
	{
		sagaz_window_end_zero(&cursor->window.from);
		sagaz_window_end_zero(&cursor->window.to);
	}
	sagaz_scan_end(scan);
}

/*
 * The window that a batch read in a lane, in the present memory context;
 * false if it has no row there.
 */
bool
sagaz_cursor_window(int16 group_no, int16 lane, int64 batch_id,
					Snapshot snapshot, SagazWindow *window)
{
	SagazScan  *scan = sagaz_cursor_scan_batch(group_no, lane, batch_id, snapshot);
	bool		found = sagaz_scan_next(scan);

	if (found)
		sagaz_window_decode(sagaz_column(scan->slot, batch_ends), window);
	sagaz_scan_end(scan);
	return found;
}

/*
 * Is the event at this place one of those that the entry stands for, finished
 * or not?  Reads the row that has the entry's window.
 */
bool
sagaz_cursor_range_has(const SagazOwed *owed, int16 group_no, int16 lane,
					   uint64 pos, int64 seq, const SagazCluster *cluster,
					   Snapshot snapshot)
{
	SagazWindow window;

	return owed->range && seq > owed->lo && seq <= owed->hi &&
		sagaz_cursor_window(group_no, lane, owed->window_batch, snapshot,
							&window) &&
		sagaz_window_has(&window, cluster, pos, seq);
}

/* Add the places of the range that receipts name to the entry's list. */
static void
add_acked_to_owed(SagazOwed *owed, const SagazReceipts *receipts)
{
	int64	   *all = palloc((owed->nacked + receipts->nplaces + 1) * sizeof(int64));
	int			count = 0;

	for (int i = 0; i < owed->nacked; i++)
		all[count++] = owed->acked[i];
	for (int i = 0; i < receipts->nplaces; i++)
	{
		int64		seq = receipts->places[i].seq;

		if (seq > owed->lo && seq <= owed->hi && !sagaz_owed_acked(owed, seq))
			all[count++] = seq;
	}
	qsort(all, count, sizeof(int64), sagaz_place_compare);
	owed->acked = all;
	owed->nacked = count;
}

/*
 * Make ready to walk what is left of an entry's range: its window, and in the
 * entry's list of finished places also those that receipts of its holder name,
 * as the snapshot has them.  False if the window's row is gone.
 */
bool
sagaz_cursor_open_range(SagazOwed *owed, int16 group_no, int16 lane,
						Snapshot snapshot, SagazWindow *window)
{
	SagazReceipts receipts;

	if (!sagaz_cursor_window(group_no, lane, owed->window_batch, snapshot, window))
		return false;
	sagaz_receipts_read(owed->holder, snapshot, &receipts);
	add_acked_to_owed(owed, &receipts);
	return true;
}

/*
 * Write the row that becomes the lane's cursor; the lane is locked, and the
 * row's batch id was drawn under that lock.  Invisible until the caller's
 * CommandCounterIncrement().
 */
void
sagaz_cursor_write(SagazWriter *writer, int16 group_no, int16 lane,
				   const SagazCursor *row, int64 root, int events,
				   const char *worker_id)
{
	SagazOwedBase base = {row->batch_id, row->last_seq, row->claimed_at};

	sagaz_writer_row(writer);
	sagaz_writer_set(writer, batch_batch_id, Int64GetDatum(row->batch_id));
	sagaz_writer_set(writer, batch_claimed_at,
					 TimestampTzGetDatum(row->claimed_at));
	sagaz_writer_set(writer, batch_last_seq, Int64GetDatum(row->last_seq));
	if (root != 0)
		sagaz_writer_set(writer, batch_root, Int64GetDatum(root));
	sagaz_writer_set(writer, batch_events, Int32GetDatum(events));
	sagaz_writer_set(writer, batch_group_no, Int16GetDatum(group_no));
	sagaz_writer_set(writer, batch_lane, Int16GetDatum(lane));
	if (worker_id)
		sagaz_writer_set(writer, batch_worker_id,
						 CStringGetTextDatum(worker_id));
	sagaz_writer_set(writer, batch_ends,
					 PointerGetDatum(sagaz_window_encode(&row->window)));
	sagaz_writer_set(writer, batch_owed,
					 PointerGetDatum(sagaz_owed_encode(row->owed, &base)));
	if (row->stream_ms != 0)
	{
		sagaz_writer_set(writer, batch_stream_ms,
						 Int64GetDatum(row->stream_ms));
		sagaz_writer_set(writer, batch_stream_places,
						 PointerGetDatum(row->stream_places));
	}
	sagaz_writer_insert(writer);
}

/*
 * Draw an id that is above all of the group.  Those of a lane rise only if it
 * is drawn while the lane is locked.  It is never drawn again, not after a
 * crash that takes the claim's unflushed commit with it: the record by which
 * the sequence draws numbers ahead is flushed.
 */
int64
sagaz_cursor_next_batch_id(int16 group_no)
{
	XLogRecPtr	before = XactLastRecEnd;
	int64		number = nextval_internal(sagaz_relation_id(SAGAZ_BATCH_SEQUENCE), false);

	if (XactLastRecEnd != before && synchronous_commit == SYNCHRONOUS_COMMIT_OFF)
		XLogFlush(XactLastRecEnd);
	return (number << SAGAZ_GROUP_BITS) | group_no;
}

/*
 * Write an empty window that ends now into each lane.  They are locked.  The
 * rows are visible to the next snapshot.
 */
void
sagaz_cursor_skip_to_now(int16 group_no)
{
	SagazCursor row;
	SagazWriter *writer = sagaz_writer_begin("outbox_batch");
	Snapshot	snapshot;

	memset(&row, 0, sizeof(row));
	sagaz_window_end_zero(&row.window.from);
	snapshot = sagaz_window_end_read(&row.window.to);
	sagaz_window_end_set_epoch(&row.window.to, sagaz_cluster_active(snapshot));
	row.last_seq = PG_INT64_MAX;
	row.batch_id = sagaz_cursor_next_batch_id(group_no);
	row.claimed_at = GetCurrentTimestamp();
	for (int16 lane = 0; lane < SAGAZ_LANES; lane++)
		sagaz_cursor_write(writer, group_no, lane, &row, 0, 0, NULL);
	sagaz_writer_end(writer);
	UnregisterSnapshot(snapshot);
	CommandCounterIncrement();
}
