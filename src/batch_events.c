/*
 * batch_events.c
 *		The events that a batch handed out in one lane, as records: those that
 *		it still owes, or, of a batch that is sent, all that it sent.
 *
 * They come in the order in which the claim returned them, but for those that
 * were moved to outbox_retry since, or finished one by one while the batch
 * was open.  What retention has taken is not there any more.
 */
#include "sagaz.h"

#include "access/stratnum.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "backend.h"
#include "batch_events.h"
#include "cluster.h"
#include "cursor.h"
#include "event_record.h"
#include "holder.h"
#include "outbox.h"
#include "receipt.h"
#include "retry.h"
#include "window_scan.h"

#define CHUNK 256

typedef struct BatchEvents
{
	const SagazGroup *group;
	int16		lane;
	int64		batch_id;
	Snapshot	snapshot;
	SagazReceipts receipts;
	List	   *events;			/* SagazRecord */
} BatchEvents;

static void
add_event(BatchEvents *batch, TupleTableSlot *row)
{
	SagazRecord *record = palloc0(sizeof(SagazRecord));

	record->kind = SAGAZ_EVENT;
	sagaz_event_of_log(row, &record->event);
	batch->events = lappend(batch->events, record);
}

/* Retries that the batch handed out, and still has or has sent. */
static void
add_retries(BatchEvents *batch)
{
	int			wanted = batch->receipts.closed_by == 0 ? RETRY_OUT : RETRY_SENT;
	SagazScan  *log = NULL;
	SagazScan  *scan;
	ScanKeyData key;

	sagaz_key_int2(&key, 1, BTEqualStrategyNumber, batch->group->no);
	scan = sagaz_scan_begin("outbox_retry", "outbox_retry_pkey", batch->snapshot,
							&key, 1, ForwardScanDirection);
	while (sagaz_scan_next(scan))
	{
		TupleTableSlot *row;

		CHECK_FOR_INTERRUPTS();
		if (DatumGetInt16(sagaz_column(scan->slot, retry_state)) != wanted ||
			DatumGetInt16(sagaz_column(scan->slot, retry_lane)) != batch->lane ||
			sagaz_column_is_null(scan->slot, retry_batch_id) ||
			DatumGetInt64(sagaz_column(scan->slot, retry_batch_id)) != batch->batch_id)
			continue;
		row = sagaz_event_fetch(&log, sagaz_column(scan->slot, retry_event_id),
								batch->snapshot);
		if (row)
			add_event(batch, row);
	}
	sagaz_scan_end(scan);
	if (log)
		sagaz_scan_end(log);
}

/* Did a receipt of the open batch finish the event, or move it? */
static bool
is_settled(const BatchEvents *batch, int64 seq)
{
	return batch->receipts.closed_by == 0 && batch->receipts.nseqs > 0 &&
		bsearch(&seq, batch->receipts.seqs, batch->receipts.nseqs,
				sizeof(int64), sagaz_compare_seqs) != NULL;
}

static void
add_range(BatchEvents *batch, const SagazOwed *owed)
{
	SagazWindow window;
	SagazWindowScan *scan;
	SagazRetryPlaces places;
	TupleTableSlot *row;

	if (!sagaz_batch_window(batch->group->no, batch->lane, owed->window_batch,
							batch->snapshot, &window))
		return;
	scan = sagaz_window_scan_begin(&window, sagaz_cluster_active(batch->snapshot),
								   batch->lane, owed->lo, owed->hi, CHUNK,
								   batch->snapshot);
	sagaz_retry_places_begin(&places, batch->group->no, owed->lo, batch->snapshot);
	while ((row = sagaz_window_scan_next(scan)) != NULL)
	{
		int64		seq = DatumGetInt64(sagaz_column(row, outbox_seq));

		CHECK_FOR_INTERRUPTS();
		if (sagaz_retry_places_have(&places, seq) ||
			sagaz_owed_acked(owed, seq) || is_settled(batch, seq) ||
			(batch->group->start_time != 0 &&
			 DatumGetTimestampTz(sagaz_column(row, outbox_created_at)) <
			 batch->group->start_time))
			continue;
		add_event(batch, row);
	}
	sagaz_retry_places_end(&places);
	sagaz_window_scan_end(scan);
}

/* The ranges that the batch handed out, in their order. */
static List *
ranges_of(const BatchEvents *batch)
{
	ScanKeyData keys[3];
	SagazScan  *scan;
	List	   *ranges = NIL;

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, batch->group->no);
	sagaz_key_int2(&keys[1], 2, BTEqualStrategyNumber, batch->lane);
	sagaz_key_int8(&keys[2], 3, BTEqualStrategyNumber, batch->batch_id);
	scan = sagaz_scan_begin("outbox_batch", "outbox_batch_key", batch->snapshot,
							keys, 3, ForwardScanDirection);
	if (sagaz_scan_next(scan))
	{
		SagazOwedBase base;
		ListCell   *cell;

		base.batch_id = batch->batch_id;
		base.claimed_at = DatumGetTimestampTz(sagaz_column(scan->slot, batch_claimed_at));
		base.last_seq = DatumGetInt64(sagaz_column(scan->slot, batch_last_seq));
		foreach(cell, sagaz_owed_decode(sagaz_column(scan->slot, batch_owed), &base))
		{
			SagazOwed  *owed = lfirst(cell);

			if (owed->range && owed->holder == batch->batch_id)
				ranges = lappend(ranges, owed);
		}
	}
	sagaz_scan_end(scan);
	return ranges;
}

/* A list of SagazRecord. */
List *
sagaz_batch_events(const SagazGroup *group, int16 lane, int64 batch_id,
				   Snapshot snapshot)
{
	BatchEvents batch = {.group = group,.lane = lane,.batch_id = batch_id,
	.snapshot = snapshot};
	ListCell   *cell;

	sagaz_receipts_read(batch_id, snapshot, &batch.receipts);
	add_retries(&batch);
	foreach(cell, ranges_of(&batch))
		add_range(&batch, lfirst(cell));
	return batch.events;
}
