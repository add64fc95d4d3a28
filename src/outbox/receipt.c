/*
 * receipt.c
 *		What became of a batch: rows of outbox_receipt.
 *
 * A unique index lets only one closing receipt in.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "outbox/outbox.h"
#include "outbox/place_number.h"
#include "outbox/receipt.h"
#include "lib/tuples.h"

#define CLOSING_INDEX "outbox_receipt_closing"

static const char *const indexes[] = {CLOSING_INDEX, "outbox_receipt_other"};

static SagazScan *
scan_receipts(const char *index, int64 batch_id, Snapshot snapshot)
{
	ScanKeyData key;

	sagaz_key_int8(&key, 1, BTEqualStrategyNumber, batch_id);
	return sagaz_scan_begin("outbox_receipt", index, snapshot, &key, 1,
							ForwardScanDirection);
}

static TimestampTz
read_receipt_until(TupleTableSlot *slot)
{
	if (sagaz_column_is_null(slot, receipt_until))
		return 0;
	return DatumGetTimestampTz(sagaz_column(slot, receipt_until));
}

/* Kind of the closing receipt and its "not before", 0 while there is none. */
int
sagaz_receipt_closing(int64 batch_id, Snapshot snapshot, TimestampTz *until)
{
	SagazScan  *scan = scan_receipts(CLOSING_INDEX, batch_id, snapshot);
	int			kind = 0;

	if (sagaz_scan_next(scan))
	{
		kind = DatumGetInt16(sagaz_column(scan->slot, receipt_kind));
		*until = read_receipt_until(scan->slot);
	}
	sagaz_scan_end(scan);
	return kind;
}

static void
add_named_places(SagazReceipts *receipts, TupleTableSlot *slot, bool sent)
{
	Datum	   *values;
	int			count;

	deconstruct_array(DatumGetArrayTypeP(sagaz_column(slot, receipt_seqs)),
					  INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &values,
					  NULL, &count);
	receipts->places = receipts->places == NULL ?
		palloc((count + 1) * sizeof(SagazNamedPlace)) :
		repalloc(receipts->places,
				 (receipts->nplaces + count + 1) * sizeof(SagazNamedPlace));
	for (int i = 0; i < count; i++)
	{
		SagazNamedPlace *place = &receipts->places[receipts->nplaces++];

		place->seq = DatumGetInt64(values[i]);
		place->at = DatumGetTimestampTz(sagaz_column(slot, receipt_at));
		place->sent = sent;
	}
	pfree(values);
}

static int
compare_named_places(const void *a, const void *b)
{
	return sagaz_place_compare(&((const SagazNamedPlace *) a)->seq,
							   &((const SagazNamedPlace *) b)->seq);
}

/* What a receipt says of a single place, or NULL. */
const SagazNamedPlace *
sagaz_receipts_find(const SagazReceipts *receipts, int64 seq)
{
	SagazNamedPlace key = {.seq = seq};

	if (receipts->nplaces == 0)
		return NULL;
	return bsearch(&key, receipts->places, receipts->nplaces,
				   sizeof(SagazNamedPlace), compare_named_places);
}

static void
add_receipt(SagazReceipts *receipts, TupleTableSlot *slot)
{
	int			kind = DatumGetInt16(sagaz_column(slot, receipt_kind));

	switch (kind)
	{
		case RECEIPT_EXTENDED:
			if (receipts->closed_by == 0)
				receipts->until = Max(receipts->until, read_receipt_until(slot));
			break;
		case RECEIPT_EVENTS_SENT:
		case RECEIPT_EVENTS_MOVED:
			receipts->events += DatumGetInt32(sagaz_column(slot, receipt_events));
			add_named_places(receipts, slot, kind == RECEIPT_EVENTS_SENT);
			break;
		default:
			receipts->closed_by = kind;
			receipts->closed_at = DatumGetTimestampTz(sagaz_column(slot, receipt_at));
			receipts->until = read_receipt_until(slot);
			if (kind == RECEIPT_TAKEN_OVER)
				receipts->lost = DatumGetInt32(sagaz_column(slot, receipt_events));
			if (kind == RECEIPT_RELEASED)
				receipts->error = sagaz_column_text(slot, receipt_note);
			break;
	}
}

/*
 * All receipts of a batch as of the snapshot, in the present memory context.
 */
void
sagaz_receipts_read(int64 batch_id, Snapshot snapshot, SagazReceipts *receipts)
{
	memset(receipts, 0, sizeof(SagazReceipts));
	for (int i = 0; i < (int) lengthof(indexes); i++)
	{
		SagazScan  *scan = scan_receipts(indexes[i], batch_id, snapshot);

		while (sagaz_scan_next(scan))
			add_receipt(receipts, scan->slot);
		sagaz_scan_end(scan);
	}
	if (receipts->nplaces > 1)
		qsort(receipts->places, receipts->nplaces, sizeof(SagazNamedPlace),
			  compare_named_places);
}

static SagazWriter *
begin_receipt(int64 batch_id, int kind, TimestampTz at, TimestampTz until,
			  int events)
{
	SagazWriter *writer = sagaz_writer_begin("outbox_receipt");

	sagaz_writer_row(writer);
	sagaz_writer_set(writer, receipt_batch_id, Int64GetDatum(batch_id));
	sagaz_writer_set(writer, receipt_kind, Int16GetDatum(kind));
	sagaz_writer_set(writer, receipt_at, TimestampTzGetDatum(at));
	sagaz_writer_set(writer, receipt_events, Int32GetDatum(events));
	if (until != 0)
		sagaz_writer_set(writer, receipt_until, TimestampTzGetDatum(until));
	return writer;
}

static void
end_receipt(SagazWriter *writer)
{
	sagaz_writer_insert(writer);
	sagaz_writer_end(writer);
	CommandCounterIncrement();
}

/*
 * End the lease.  The note is the error of a release, or who takes it over.
 * The caller holds the batch's lock and has seen that it is open.
 */
void
sagaz_receipt_close(int64 batch_id, int kind, TimestampTz at,
					TimestampTz until, int events, const char *note)
{
	SagazWriter *writer = begin_receipt(batch_id, kind, at, until, events);

	if (note)
		sagaz_writer_set(writer, receipt_note, CStringGetTextDatum(note));
	end_receipt(writer);
}

/*
 * The lease lasts until then, or longer.  The caller holds the batch's lock
 * and has seen that it is open.
 */
void
sagaz_receipt_extend(int64 batch_id, TimestampTz until)
{
	end_receipt(begin_receipt(batch_id, RECEIPT_EXTENDED,
							  GetCurrentTimestamp(), until, 0));
}

/*
 * Say of some events of an open batch, whose lock is held, that they are
 * finished or moved.  Each of them only once: they are counted.
 */
void
sagaz_receipt_events(int64 batch_id, int kind, TimestampTz at, int64 *seqs,
					 int nseqs)
{
	SagazWriter *writer = begin_receipt(batch_id, kind, at, 0, nseqs);
	Datum	   *values = palloc(nseqs * sizeof(Datum));

	for (int i = 0; i < nseqs; i++)
		values[i] = Int64GetDatum(seqs[i]);
	sagaz_writer_set(writer, receipt_seqs,
					 PointerGetDatum(construct_array(values, nseqs, INT8OID, 8,
													 FLOAT8PASSBYVAL,
													 TYPALIGN_DOUBLE)));
	end_receipt(writer);
}

/*
 * Retention, whose lock is held: remove the batch's receipts.  A fresh
 * snapshot for each batch, so that one that is named twice is removed once.
 */
void
sagaz_receipts_remove(int64 batch_id)
{
	Snapshot	snapshot;

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (int i = 0; i < (int) lengthof(indexes); i++)
	{
		SagazScan  *scan = scan_receipts(indexes[i], batch_id, snapshot);

		while (sagaz_scan_next(scan))
			simple_table_tuple_delete(scan->rel, &scan->slot->tts_tid,
									  snapshot);
		sagaz_scan_end(scan);
	}
	UnregisterSnapshot(snapshot);
}
