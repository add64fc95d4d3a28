/*
 * stream.c
 *		Delivering an ordered group to a stream, each event exactly once.
 *
 * A claim stores with each of its rows a ms, higher than those of all earlier
 * rows and than the stream's end; the row's events have the entries ms-0,
 * ms-1, …  The row is durable before anything is sent.  A batch is added by
 * one script that does nothing unless the stream's end is the one that we
 * saw, and entries are added in the order of their ids.  So:
 *
 * - What of a batch is in the stream is told by its ids, whoever died when,
 *   and it is a first part of the batch.
 * - A script of an earlier worker that is still on its way changes the end
 *   and ours is refused, or ours comes first and that one is refused.
 *
 * Nothing is claimed before everything claimed earlier is decided.  Thus only
 * the newest batch can be undecided, besides batches not long before it that
 * others have closed: what those have in the stream is not added again.
 *
 * A finished batch beyond the stream's end was lost there, and is added again
 * with the ids it had.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "outbox/batch.h"
#include "outbox/cluster.h"
#include "status/event_record.h"
#include "worker/forward.h"
#include "outbox/group.h"
#include "outbox/outbox.h"
#include "worker/process.h"
#include "storage/storage.h"
#include "worker/binding.h"
#include "worker/stream.h"
#include "outbox/stream_row.h"

/* So many rows are searched for earlier tries. */
#define EARLIER_ROWS 100

/* Events that have to be in the stream, with their ids, which rise. */
typedef struct Work
{
	int64		batch_id;		/* an open batch; 0: a row that was lost */
	int64		ms;				/* of that row */
	int64		from_ms;		/* earlier tries may have entries from here on */
	int			count;
	SagazRecord *records;		/* without event_id: not to be added */
	SagazStreamId *ids;
} Work;

static bool
stream_is_after(SagazStreamId a, SagazStreamId b)
{
	return a.ms > b.ms || (a.ms == b.ms && a.seq > b.seq);
}

static SagazStreamId
last_stream_id(const SagazStreamRow *row)
{
	SagazStreamId id = {row->ms, row->count - 1};

	return id;
}

/* Is it a delivery that this file is about? */
bool
sagaz_stream_is_exact(const SagazDelivery *delivery)
{
	SagazGroup	group;

	return delivery->to_stream &&
		sagaz_group_find(delivery->consumer_group, &group) && group.ordered;
}

/* What a claim has to know. */
void
sagaz_stream_prepare(const SagazStream *stream, SagazClaim *claim)
{
	claim->for_stream = true;
	claim->stream_after = stream->end.ms;
}

/* ---------------------------------------------------------------------- */
/* What there is to do */

/*
 * Read the row's events off the log, but those of which somebody said singly
 * what became of them; retention may have removed some.
 */
static void
add_stream_row(Work *work, const SagazStreamRow *row, const SagazReceipts *receipts,
			   Snapshot snapshot)
{
	SagazScan  *scan = NULL;
	int			size = work->count + row->count;

	work->records = work->records == NULL ?
		palloc(size * sizeof(SagazRecord)) :
		repalloc(work->records, size * sizeof(SagazRecord));
	work->ids = work->ids == NULL ? palloc(size * sizeof(SagazStreamId)) :
		repalloc(work->ids, size * sizeof(SagazStreamId));
	for (int i = 0; i < row->count; i++)
	{
		ScanKeyData keys[2];
		SagazRecord *record = &work->records[work->count];

		memset(record, 0, sizeof(SagazRecord));
		work->ids[work->count].ms = row->ms;
		work->ids[work->count++].seq = i;
		if (receipts->nseqs > 0 &&
			bsearch(&row->seqs[i], receipts->seqs, receipts->nseqs,
					sizeof(int64), sagaz_receipt_compare_seqs))
			continue;
		sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, row->lane);
		sagaz_key_int8(&keys[1], 2, BTEqualStrategyNumber, row->seqs[i]);
		if (scan)
			sagaz_scan_again(scan, keys, 2);
		else
			scan = sagaz_scan_begin("outbox", "outbox_lane_seq", snapshot,
									keys, 2, ForwardScanDirection);
		if (sagaz_scan_next(scan))
		{
			record->kind = SAGAZ_EVENT;
			sagaz_event_of_log(scan->slot, &record->event);
		}
	}
	if (scan)
		sagaz_scan_end(scan);
}

/*
 * The lowest ms from which on earlier tries may lie in the stream, of events
 * whose batches others have closed; else ms itself.  Such events are the first
 * to be claimed again, so a look at some of the rows below ms is enough.
 */
static int64
find_earlier_stream_tries(const SagazStream *stream, int16 group_no, int64 ms,
						  Snapshot snapshot)
{
	SagazScan  *scan = sagaz_stream_scan_back(group_no, ms, snapshot);
	SagazStreamRow row;
	int64		lowest = ms;

	for (int i = 0; i < EARLIER_ROWS &&
		 sagaz_stream_scan_next(scan, stream->worker_id, snapshot, &row); i++)
	{
		if (row.closed_by != RECEIPT_SENT)
			lowest = row.ms;
		pfree(row.seqs);
	}
	sagaz_scan_end(scan);
	return lowest;
}

/*
 * The first finished row that lies beyond the stream's end; true if any.  What
 * was sent before the delivery was made, or the database was copied, went
 * elsewhere.
 */
static bool
find_lost_of_stream(SagazStream *stream, const SagazDelivery *delivery, int16 group_no,
					Work *work, Snapshot snapshot)
{
	int64		from = Max((int64) stream->end.ms, stream->passed_ms + 1);
	SagazScan  *scan = sagaz_stream_scan_from(group_no, from, snapshot);
	SagazStreamRow row;
	SagazReceipts receipts;
	SagazCluster *cluster = sagaz_cluster_active(snapshot);
	bool		found = false;

	while (!found &&
		   sagaz_stream_scan_next(scan, stream->worker_id, snapshot, &row))
		found = row.closed_by == RECEIPT_SENT &&
			stream_is_after(last_stream_id(&row), stream->end) &&
			row.claimed_at >= delivery->created_at &&
			sagaz_cluster_epoch(cluster, row.seqs[0]) == cluster->epoch;
	sagaz_scan_end(scan);
	if (!found)
		return false;
	work->ms = row.ms;
	sagaz_receipts_read(row.batch_id, snapshot, &receipts);
	add_stream_row(work, &row, &receipts, snapshot);
	work->from_ms = find_earlier_stream_tries(stream, group_no, row.ms, snapshot);
	return true;
}

/* Others must not take an open batch over while its outcome is unknown. */
static void
keep_streamed_lease(const SagazStream *stream, int16 group_no, Snapshot snapshot)
{
	SagazScan  *scan = sagaz_stream_scan_back(group_no, PG_INT64_MAX, snapshot);
	int64		lasts = (int64) sagaz_claim_timeout * 1000;
	TimestampTz now = GetCurrentTimestamp();
	SagazStreamRow row;
	SagazLease	lease;

	if (sagaz_stream_scan_next(scan, stream->worker_id, snapshot, &row) &&
		row.closed_by == 0)
	{
		sagaz_batch_lease_open(row.batch_id, stream->worker_id, &lease);
		if (sagaz_batch_lease_end(lease.claimed_at, lease.receipts.until) < now + lasts / 2)
			sagaz_receipt_extend(row.batch_id, now + lasts);
		sagaz_batch_lease_done(&lease);
	}
	sagaz_scan_end(scan);
}

/* Before the stream is asked, which may take its time or fail. */
static void
prepare_stream_look(const SagazStream *stream, const SagazDelivery *delivery)
{
	Snapshot	snapshot;
	SagazGroup	group;

	if (!sagaz_group_find(delivery->consumer_group, &group))
		return;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	keep_streamed_lease(stream, group.no, snapshot);
	UnregisterSnapshot(snapshot);
}

/* The rows of the newest batch if it is open; true if so. */
static bool
find_open_of_stream(const SagazStream *stream, int16 group_no, Work *work, Snapshot snapshot)
{
	SagazScan  *scan = sagaz_stream_scan_back(group_no, PG_INT64_MAX, snapshot);
	SagazStreamRow row;
	List	   *rows = NIL;
	SagazLease	lease;
	ListCell   *cell;

	while (sagaz_stream_scan_next(scan, stream->worker_id, snapshot, &row) &&
		   (rows == NIL ||
			row.batch_id == ((SagazStreamRow *) linitial(rows))->batch_id))
	{
		if (row.closed_by != 0)
			break;
		rows = lcons(memcpy(palloc(sizeof(row)), &row, sizeof(row)), rows);
	}
	sagaz_scan_end(scan);
	if (rows == NIL)
		return false;
	work->batch_id = ((SagazStreamRow *) linitial(rows))->batch_id;
	sagaz_batch_lease_open(work->batch_id, stream->worker_id, &lease);
	foreach(cell, rows)
		add_stream_row(work, lfirst(cell), &lease.receipts, snapshot);
	work->from_ms =
		find_earlier_stream_tries(stream, group_no,
								  ((SagazStreamRow *) linitial(rows))->ms, snapshot);
	sagaz_batch_lease_done(&lease);
	return true;
}

/* What there is to do next, the earliest first; false if there is nothing. */
static bool
find_stream_work(SagazStream *stream, const SagazDelivery *delivery, Work *work)
{
	Snapshot	snapshot;
	SagazGroup	group;
	bool		found;

	if (!sagaz_group_find(delivery->consumer_group, &group))
		return false;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	found = find_lost_of_stream(stream, delivery, group.no, work, snapshot) ||
		find_open_of_stream(stream, group.no, work, snapshot);
	stream->sure = !found &&
		find_earlier_stream_tries(stream, group.no, PG_INT64_MAX, snapshot) == PG_INT64_MAX;
	UnregisterSnapshot(snapshot);
	return found;
}

/* ---------------------------------------------------------------------- */
/* What is in the stream */

static int
compare_stream_entries(const void *a, const void *b)
{
	return strcmp(((const SagazStreamEntry *) a)->event_id,
				  ((const SagazStreamEntry *) b)->event_id);
}

static const SagazStreamEntry *
find_stream_entry(const SagazStreamEntry *entries, int count, const char *event_id)
{
	SagazStreamEntry key = {{0, 0}, unconstify(char *, event_id)};

	return count == 0 ? NULL : bsearch(&key, entries, count,
									   sizeof(SagazStreamEntry), compare_stream_entries);
}

/*
 * How many of the first ids were used: those up to the last event that is
 * where it should be, though consumers may have removed others; and up to the
 * stream's end, if that has such an id and not another's entry.
 */
static int
count_used_of_stream(const SagazStream *stream, const Work *work,
					 const SagazStreamEntry *entries, int count, bool end_is_others)
{
	for (int i = work->count; i > 0; i--)
	{
		SagazStreamId id = work->ids[i - 1];
		const SagazRecord *record = &work->records[i - 1];
		const SagazStreamEntry *entry;

		if (stream_is_after(id, stream->end))
			continue;
		if (!stream_is_after(stream->end, id) && !end_is_others)
			return i;
		entry = record->event.event_id == NULL ? NULL :
			find_stream_entry(entries, count, record->event.event_id);
		if (entry && entry->id.ms == id.ms && entry->id.seq == id.seq)
			return i;
	}
	return 0;
}

/* Is the last entry none of the events that should be there? */
static bool
stream_entry_is_others(const Work *work, const SagazStreamEntry *entry)
{
	for (int i = 0; i < work->count; i++)
		if (work->ids[i].ms == entry->id.ms && work->ids[i].seq == entry->id.seq)
			return work->records[i].event.event_id == NULL ||
				strcmp(work->records[i].event.event_id, entry->event_id) != 0;
	return false;
}

/* Leave in the work only what is to be added. */
static void
drop_what_stream_has(const SagazStream *stream, SagazStore *store, Work *work)
{
	SagazStreamId from = {work->from_ms, 0};
	SagazStreamEntry *entries = NULL;
	bool		end_is_others = false;
	int			count = 0;
	int			used;
	int			kept = 0;

	if (stream->end.ms >= from.ms)
	{
		List	   *read = store->backend->stream_read(store, from, stream->end);
		ListCell   *cell;

		entries = palloc((list_length(read) + 1) * sizeof(SagazStreamEntry));
		foreach(cell, read)
			entries[count++] = *(SagazStreamEntry *) lfirst(cell);
		if (count > 0)
			end_is_others = stream_entry_is_others(work, &entries[count - 1]);
		if (count > 1)
			qsort(entries, count, sizeof(SagazStreamEntry), compare_stream_entries);
	}
	used = count_used_of_stream(stream, work, entries, count, end_is_others);
	for (int i = used; i < work->count; i++)
		if (work->records[i].event.event_id &&
			!find_stream_entry(entries, count, work->records[i].event.event_id))
		{
			work->records[kept] = work->records[i];
			work->ids[kept++] = work->ids[i];
		}
	work->count = kept;
}

/* ---------------------------------------------------------------------- */
/* Adding */

/* To be looked at anew if the stream's end is not where it was. */
static void
append_to_stream(SagazStream *stream, SagazStore *store, SagazRecord *records,
				 const SagazStreamId *ids, int count)
{
	if (!store->backend->stream_append(store, stream->end, records, ids, count))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CONCURRENCY),
				 errmsg("somebody else adds to the stream of storage \"%s\"", store->name),
				 errhint("A delivery of an ordered group must be the only writer of its stream.")));
	stream->end = ids[count - 1];
}

/*
 * Have in the stream what should be; false if the ids are no longer above the
 * stream's end, which only others that write to it can cause.
 */
static bool
do_stream_work(SagazStream *stream, SagazStore *store, Work *work)
{
	drop_what_stream_has(stream, store, work);
	if (work->count == 0)
		return true;
	if (!stream_is_after(work->ids[0], stream->end))
		return false;
	if (work->batch_id == 0)
		ereport(LOG,
				(errmsg("storage \"%s\" has lost entries of its stream, %d are added again",
						store->name, work->count),
				 errdetail("The first is " UINT64_FORMAT "-" UINT64_FORMAT ".",
						   work->ids[0].ms, work->ids[0].seq)));
	append_to_stream(stream, store, work->records, work->ids, work->count);
	return true;
}

static int
finish_streamed(const SagazStream *stream, int64 batch_id)
{
	int			events;

	sagaz_process_begin();
	events = sagaz_batch_finish(batch_id, stream->worker_id);
	CommitTransactionCommand();
	return events;
}

/* None of the rest was added, or can be: it is claimed anew, with higher ids. */
static void
release_streamed(const SagazStream *stream, int64 batch_id)
{
	sagaz_process_begin();
	(void) sagaz_batch_release(batch_id, stream->worker_id,
							   "others write to the stream", 0);
	CommitTransactionCommand();
}

static void
check_stream_end(const SagazStore *store, SagazStreamId end)
{
	if (end.ms >= PG_INT64_MAX / 2)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CAPACITY),
				 errmsg("the stream of storage \"%s\" has no room for more ids", store->name),
				 errdetail("Its end is " UINT64_FORMAT "-" UINT64_FORMAT ".",
						   end.ms, end.seq),
				 errhint("Deliver to another stream, or delete this one.")));
}

/*
 * Look at the stream and do one thing that is missing there; stream->looked
 * says that nothing was.  To be called in a transaction, which it ends; to be
 * called again until nothing is missing.  Returns how many events were
 * finished.
 */
int
sagaz_stream_look(SagazStream *stream, const SagazDelivery *delivery)
{
	MemoryContext context = CurrentMemoryContext;
	SagazStorage storage;
	SagazStore *store;
	SagazStreamId end;
	Work		work = {0};
	bool		found;
	int			finished = 0;

	stream->looked = stream->sure = false;
	prepare_stream_look(stream, delivery);
	sagaz_binding_storage(delivery, &storage);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	sagaz_forward_begin(delivery->timeout_ms);
	store = sagaz_storage_open(&storage, delivery->target, SAGAZ_EVENT);
	end = store->backend->stream_end(store);
	sagaz_forward_end();
	check_stream_end(store, end);
	if (stream_is_after(stream->end, end))
		stream->passed_ms = 0;
	stream->end = end;

	sagaz_process_begin();
	MemoryContextSwitchTo(context);
	found = find_stream_work(stream, delivery, &work);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	if (!found)
	{
		stream->looked = true;
		stream->looked_at = GetCurrentTimestamp();
		return 0;
	}
	sagaz_forward_begin(delivery->timeout_ms);
	found = do_stream_work(stream, store, &work);
	sagaz_forward_end();
	if (work.batch_id == 0)
		stream->passed_ms = work.ms;
	else if (found)
		finished = finish_streamed(stream, work.batch_id);
	else
		release_streamed(stream, work.batch_id);
	MemoryContextSwitchTo(context);
	return finished;
}

/* The ids of what was claimed, as its rows have them. */
static SagazStreamId *
stream_ids_of_claim(const SagazClaim *claim)
{
	SagazStreamId *ids = palloc(claim->picked * sizeof(SagazStreamId));
	int			count = 0;

	for (int i = 0; i < claim->nstream_rows; i++)
		for (int j = 0; j < claim->stream_rows[i].count; j++)
		{
			ids[count].ms = claim->stream_rows[i].ms;
			ids[count++].seq = j;
		}
	Assert(count == claim->picked);
	return ids;
}

/*
 * Commit the claim, make it durable, add its events to the stream, finish.
 * False if it is not done: then a look decides what is missing.
 */
bool
sagaz_stream_deliver(SagazStream *stream, SagazBatch *batch)
{
	MemoryContext context = CurrentMemoryContext;
	SagazStorage storage;
	SagazRecord *records = sagaz_forward_read(batch);
	SagazStreamId *ids = stream_ids_of_claim(&batch->claim);
	bool		first_try = stream->sure;

	stream->looked = stream->sure = false;
	sagaz_binding_storage(batch->delivery, &storage);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	XLogFlush(XactLastCommitEnd);
	if (!first_try)
		return false;
	sagaz_forward_begin(batch->delivery->timeout_ms);
	append_to_stream(stream, sagaz_storage_open(&storage, batch->delivery->target, SAGAZ_EVENT),
					 records, ids, batch->claim.picked);
	sagaz_forward_end();
	(void) finish_streamed(stream, batch->claim.batch_id);
	MemoryContextSwitchTo(context);
	stream->looked = stream->sure = true;
	return true;
}
