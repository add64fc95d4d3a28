/*
 * stream_row.c
 *		Rows of outbox_batch that say where in a stream their events lie.
 *
 * The ms of a group's rows only rise, in the order in which they were
 * claimed.  The places are kept one by one, in a byte or two each: what is
 * entry i must be known however the batch ended, and whatever was said of
 * single events since.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "outbox/outbox.h"
#include "outbox/receipt.h"
#include "outbox/stream_row.h"
#include "lib/varint.h"

/*
 * Column "stream_places" of outbox_batch: version 1, then up to the end of the
 * value, in the order of the entries, each event's place less the one before,
 * the first less 0, as signed numbers of lib/varint.h.
 */
#define PLACES_VERSION 1

#define EPOCH_MS \
	((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (int64) SECS_PER_DAY * 1000)

/* In the present memory context, which must last as long as the claim. */
void
sagaz_stream_places_init(SagazStreamPlaces *places)
{
	initStringInfo(&places->bytes);
	sagaz_stream_places_reset(places);
}

/* For the claim's next row; the memory is used again. */
void
sagaz_stream_places_reset(SagazStreamPlaces *places)
{
	places->count = 0;
	places->last = 0;
	resetStringInfo(&places->bytes);
	sagaz_varint_begin(&places->bytes, PLACES_VERSION);
}

/* In the order of the entries: the ids are counted from the first. */
void
sagaz_stream_places_add(SagazStreamPlaces *places, int64 seq)
{
	sagaz_varint_put_signed(&places->bytes, seq - places->last);
	places->last = seq;
	places->count++;
}

/*
 * The stored form, in the memory of the places: to be written before they are
 * reset.
 */
bytea *
sagaz_stream_places_encode(SagazStreamPlaces *places)
{
	return sagaz_varint_end(&places->bytes);
}

static void
decode_stream_places(Datum value, SagazStreamRow *row)
{
	SagazBytes	bytes;
	int64		seq = 0;

	sagaz_varint_open(&bytes, value, "stream_places", PLACES_VERSION);
	row->seqs = palloc((bytes.end - bytes.at + 1) * sizeof(int64));
	row->count = 0;
	while (bytes.at < bytes.end)
		row->seqs[row->count++] = seq += sagaz_varint_get_signed(&bytes);
}

/* The group's rows from that ms on, the lowest first. */
SagazScan *
sagaz_stream_scan_from(int16 group_no, int64 ms, Snapshot snapshot)
{
	ScanKeyData keys[2];

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, group_no);
	sagaz_key_int8(&keys[1], 2, BTGreaterEqualStrategyNumber, ms);
	return sagaz_scan_begin("outbox_batch", "outbox_batch_stream", snapshot,
							keys, 2, ForwardScanDirection);
}

/* The group's rows below that ms, the highest first. */
SagazScan *
sagaz_stream_scan_back(int16 group_no, int64 ms, Snapshot snapshot)
{
	ScanKeyData keys[2];

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, group_no);
	sagaz_key_int8(&keys[1], 2, BTLessStrategyNumber, ms);
	return sagaz_scan_begin("outbox_batch", "outbox_batch_stream", snapshot,
							keys, 2, BackwardScanDirection);
}

/*
 * The next row that the worker claimed, its places in the present memory
 * context; false at the end.
 */
bool
sagaz_stream_scan_next(SagazScan *scan, const char *worker_id,
					   Snapshot snapshot, SagazStreamRow *row)
{
	TimestampTz until;

	while (sagaz_scan_next(scan))
	{
		char	   *worker = sagaz_column_text(scan->slot, batch_worker_id);

		if (worker == NULL || strcmp(worker, worker_id) != 0)
			continue;
		row->ms = DatumGetInt64(sagaz_column(scan->slot, batch_stream_ms));
		row->batch_id = DatumGetInt64(sagaz_column(scan->slot, batch_batch_id));
		row->claimed_at =
			DatumGetTimestampTz(sagaz_column(scan->slot, batch_claimed_at));
		row->lane = DatumGetInt16(sagaz_column(scan->slot, batch_lane));
		row->closed_by = sagaz_receipt_closing(row->batch_id, snapshot, &until);
		decode_stream_places(sagaz_column(scan->slot, batch_stream_places), row);
		return true;
	}
	return false;
}

/*
 * The ms of the next row: the time, unless the stream or an earlier row is
 * ahead of it.  Good only while nobody else claims for the stream: a delivery
 * has one worker.
 */
int64
sagaz_stream_next_ms(int16 group_no, int64 after)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SagazScan  *scan = sagaz_stream_scan_back(group_no, PG_INT64_MAX, snapshot);
	int64		ms = Max(GetCurrentTimestamp() / 1000 + EPOCH_MS, after + 1);

	if (sagaz_scan_next(scan))
		ms = Max(ms, DatumGetInt64(sagaz_column(scan->slot, batch_stream_ms)) + 1);
	sagaz_scan_end(scan);
	UnregisterSnapshot(snapshot);
	return ms;
}
