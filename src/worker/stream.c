/*
 * stream.c
 *		The target that is a stream, of an ordered group: each event is there
 *		exactly once.
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
 *
 * An event that the stream refuses keeps its id, which stays unused.  That it
 * is a dead letter, or waits for a retry with another id, is durable before
 * anything behind it is added: else what is in the stream would not tell that
 * it is not.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "pgstat.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "outbox/batch.h"
#include "outbox/cluster.h"
#include "outbox/group.h"
#include "outbox/outbox.h"
#include "outbox/stream_row.h"
#include "outbox/event.h"
#include "worker/attempt.h"
#include "worker/forward.h"
#include "worker/process.h"

/* So many rows are searched for earlier tries. */
#define EARLIER_ROWS 100

/* What the worker knows of its stream. */
typedef struct Stream
{
	const char *worker_id;
	bool		looked;			/* all that was claimed earlier is decided, as of
								 * the last look */
	bool		sure;			/* and what is claimed now has no earlier try */
	bool		failed;			/* to add: is the end still where it was? */
	SagazStreamId end;			/* the stream's, unless others write to it */
	int64		passed_ms;		/* rows up to here were looked at for loss */
	TimestampTz looked_at;
} Stream;

/*
 * Events that have to be in the stream, with their ids, which rise: those of
 * an open batch, or of a row that was lost, which has no batch_id.
 */
typedef struct Work
{
	int64		ms;				/* of the row that was lost */
	int64		from_ms;		/* earlier tries may have entries from here on */
	SagazBatch *batch;
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

static bool
stream_serves(const SagazDelivery *delivery)
{
	SagazGroup	group;

	return delivery->to_stream &&
		sagaz_group_find(delivery->consumer_group, &group) && group.ordered;
}

static Stream *
stream_of_run(SagazRun *run)
{
	Stream	   *stream = run->state;

	if (stream == NULL)
	{
		stream = run->state = MemoryContextAllocZero(TopMemoryContext, sizeof(Stream));
		stream->worker_id = run->worker_id;
	}
	return stream;
}

static void
stream_prepare(SagazBatch *batch)
{
	batch->claim.for_stream = true;
	batch->claim.stream_after = stream_of_run(batch->run)->end.ms;
}

/* ---------------------------------------------------------------------- */
/* What there is to do */

/* An event of the log, at its place in the stream. */
static void
read_streamed_event(TupleTableSlot *row, SagazHanded *event)
{
	event->record = palloc0(sizeof(SagazRecord));
	event->record->kind = SAGAZ_EVENT;
	sagaz_event_of_log(row, &event->record->event);
	event->event_id = datumCopy(sagaz_column(row, outbox_event_id), false, UUID_LEN);
	event->saga_id = event->record->event.saga_id;
	event->skipped = false;
}

/* Make room for the events of one more row; they are to be skipped so far. */
static void
grow_stream_work(SagazBatch *batch, const SagazStreamRow *row)
{
	int			count = batch->count + row->count;

	batch->events = batch->events == NULL ? palloc(count * sizeof(SagazHanded)) :
		repalloc(batch->events, count * sizeof(SagazHanded));
	memset(&batch->events[batch->count], 0, row->count * sizeof(SagazHanded));
	for (int i = 0; i < row->count; i++)
	{
		SagazHanded *event = &batch->events[batch->count + i];

		event->place.ms = row->ms;
		event->place.seq = i;
		event->skipped = true;
	}
	batch->count = count;
}

/*
 * Read the row's events off the log, but those of which somebody said singly
 * what became of them; retention may have removed some.
 */
static void
add_stream_row(Work *work, const SagazStreamRow *row, const SagazReceipts *receipts,
			   Snapshot snapshot)
{
	SagazScan  *scan = NULL;
	SagazHanded *events;

	grow_stream_work(work->batch, row);
	events = &work->batch->events[work->batch->count - row->count];
	for (int i = 0; i < row->count; i++)
	{
		ScanKeyData keys[2];

		if (sagaz_receipts_find(receipts, row->seqs[i]))
			continue;
		sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, row->lane);
		sagaz_key_int8(&keys[1], 2, BTEqualStrategyNumber, row->seqs[i]);
		if (sagaz_scan_probe(&scan, "outbox", "outbox_lane_seq", snapshot,
							 keys, 2))
			read_streamed_event(scan->slot, &events[i]);
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
find_earlier_stream_tries(const Stream *stream, int16 group_no, int64 ms,
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
find_lost_of_stream(Stream *stream, const SagazDelivery *delivery, int16 group_no,
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
keep_streamed_lease(const Stream *stream, int16 group_no, Snapshot snapshot)
{
	SagazScan  *scan = sagaz_stream_scan_back(group_no, PG_INT64_MAX, snapshot);
	SagazStreamRow row;

	if (sagaz_stream_scan_next(scan, stream->worker_id, snapshot, &row) &&
		row.closed_by == 0)
		(void) sagaz_batch_keep_lease(row.batch_id, stream->worker_id);
	sagaz_scan_end(scan);
}

/* Before the stream is asked, which may take its time or fail. */
static void
prepare_stream_look(const Stream *stream, const SagazDelivery *delivery)
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
find_open_of_stream(const Stream *stream, int16 group_no, Work *work, Snapshot snapshot)
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
	work->batch->claim.batch_id = ((SagazStreamRow *) linitial(rows))->batch_id;
	sagaz_batch_lease_open(work->batch->claim.batch_id, stream->worker_id, &lease);
	work->batch->claim.group = lease.group;
	work->batch->lease_until =
		sagaz_batch_lease_end(lease.claimed_at, lease.receipts.until,
							  GetCurrentTimestamp());
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
find_stream_work(Stream *stream, const SagazDelivery *delivery, Work *work)
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

static const char *
streamed_id(const SagazHanded *event)
{
	return event->record ? event->record->event.event_id : NULL;
}

/*
 * How many of the first ids were used: those up to the last event that is
 * where it should be, though consumers may have removed others; and up to the
 * stream's end, if that has such an id and not another's entry.
 */
static int
count_used_of_stream(const Stream *stream, const SagazBatch *batch,
					 const SagazStreamEntry *entries, int count, bool end_is_others)
{
	for (int i = batch->count; i > 0; i--)
	{
		const SagazHanded *event = &batch->events[i - 1];
		const SagazStreamEntry *entry;

		if (stream_is_after(event->place, stream->end))
			continue;
		if (!stream_is_after(stream->end, event->place) && !end_is_others)
			return i;
		entry = streamed_id(event) == NULL ? NULL :
			find_stream_entry(entries, count, streamed_id(event));
		if (entry && entry->id.ms == event->place.ms && entry->id.seq == event->place.seq)
			return i;
	}
	return 0;
}

/* Is the last entry none of the events that should be there? */
static bool
stream_entry_is_others(const SagazBatch *batch, const SagazStreamEntry *entry)
{
	for (int i = 0; i < batch->count; i++)
	{
		const SagazHanded *event = &batch->events[i];

		if (event->place.ms == entry->id.ms && event->place.seq == entry->id.seq)
			return streamed_id(event) == NULL ||
				strcmp(streamed_id(event), entry->event_id) != 0;
	}
	return false;
}

/* Skip what the stream has. */
static void
skip_what_stream_has(const Stream *stream, SagazStore *store, Work *work)
{
	SagazBatch *batch = work->batch;
	SagazStreamId from = {work->from_ms, 0};
	SagazStreamEntry *entries = NULL;
	bool		end_is_others = false;
	int			count = 0;
	int			used;

	if (stream->end.ms >= from.ms)
	{
		List	   *read = store->backend->stream_read(store, from, stream->end);
		ListCell   *cell;

		entries = palloc((list_length(read) + 1) * sizeof(SagazStreamEntry));
		foreach(cell, read)
			entries[count++] = *(SagazStreamEntry *) lfirst(cell);
		if (count > 0)
			end_is_others = stream_entry_is_others(batch, &entries[count - 1]);
		if (count > 1)
			qsort(entries, count, sizeof(SagazStreamEntry), compare_stream_entries);
	}
	used = count_used_of_stream(stream, batch, entries, count, end_is_others);
	for (int i = 0; i < batch->count; i++)
	{
		SagazHanded *event = &batch->events[i];

		if (event->record &&
			(i < used || find_stream_entry(entries, count, streamed_id(event))))
			event->skipped = event->delivered = true;
	}
}

/* ---------------------------------------------------------------------- */
/* Adding */

/* To be looked at anew if the stream's end is not where it was. */
static void
stream_end_moved(const SagazStore *store)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CONCURRENCY),
			 errmsg("somebody else adds to the stream of storage \"%s\"", store->name),
			 errhint("A delivery of an ordered group must be the only writer of its stream.")));
}

/*
 * Adding failed: it may have added something all the same, and then what is
 * missing has to be looked for.
 */
static void
check_nothing_was_added(Stream *stream, SagazStore *store)
{
	SagazStreamId end;

	if (!stream->failed)
		return;
	end = store->backend->stream_end(store);
	if (end.ms != stream->end.ms || end.seq != stream->end.seq)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CONCURRENCY),
				 errmsg("a part of a batch was added to the stream of storage \"%s\"", store->name)));
	stream->failed = false;
}

static void
stream_deliver(SagazBatch *batch, int first, int end, bool last)
{
	Stream	   *stream = stream_of_run(batch->run);
	SagazStore *store = sagaz_forward_open(batch);
	SagazRecord *records = palloc((end - first) * sizeof(SagazRecord));
	SagazStreamId *ids = palloc((end - first) * sizeof(SagazStreamId));
	int			count = 0;

	for (int i = first; i < end; i++)
		if (!batch->events[i].skipped)
		{
			records[count] = *batch->events[i].record;
			ids[count++] = batch->events[i].place;
		}
	check_nothing_was_added(stream, store);
	stream->failed = true;
	if (!store->backend->stream_append(store, stream->end, records, ids, count))
		stream_end_moved(store);
	stream->failed = false;
	stream->end = ids[count - 1];
}

/* Is it sure that the event is not in the stream? */
static void
stream_judged(SagazBatch *batch, int event)
{
	sagaz_attempt_time(batch->delivery->timeout_ms);
	check_nothing_was_added(stream_of_run(batch->run), sagaz_forward_open(batch));
	sagaz_attempt_time_over();
}

/* ---------------------------------------------------------------------- */
/* Looking */

/* The first that is to be added; NULL if nothing is. */
static const SagazHanded *
first_to_stream(const SagazBatch *batch)
{
	for (int i = 0; i < batch->count; i++)
		if (!batch->events[i].skipped)
			return &batch->events[i];
	return NULL;
}

static void
restore_to_stream(Work *work, const SagazHanded *first)
{
	ereport(LOG,
			(errmsg("storage \"%s\" has lost entries of its stream, they are added again",
					work->batch->delivery->target),
			 errdetail("The first is " UINT64_FORMAT "-" UINT64_FORMAT ".",
					   first->place.ms, first->place.seq)));
	sagaz_attempt_time(work->batch->delivery->timeout_ms);
	stream_deliver(work->batch, 0, work->batch->count, true);
	sagaz_attempt_time_over();
}

/* None of the rest was added, or can be: it is claimed anew, with higher ids. */
static void
release_streamed(const Stream *stream, int64 batch_id)
{
	sagaz_process_begin();
	(void) sagaz_batch_release(batch_id, stream->worker_id,
							   "others write to the stream", 0);
	CommitTransactionCommand();
}

/*
 * Have in the stream what should be.  An open batch is finished then, or given
 * back where its ids are no longer above the stream's end, which only others
 * that write to it can cause.
 */
static void
do_stream_work(Stream *stream, SagazStore *store, Work *work)
{
	SagazBatch *batch = work->batch;
	const SagazHanded *first;
	bool		too_late;

	sagaz_attempt_time(batch->delivery->timeout_ms);
	skip_what_stream_has(stream, store, work);
	sagaz_attempt_time_over();
	first = first_to_stream(batch);
	too_late = first && !stream_is_after(first->place, stream->end);
	if (batch->claim.batch_id == 0)
	{
		if (first && !too_late)
			restore_to_stream(work, first);
		stream->passed_ms = work->ms;
		return;
	}
	if (too_late)
	{
		release_streamed(stream, batch->claim.batch_id);
		return;
	}
	if (first)
		sagaz_attempt_events(batch);
	sagaz_attempt_finish(batch);
}

/* How many events of the work are delivered now. */
static int
count_streamed(const SagazBatch *batch)
{
	int			count = 0;

	for (int i = 0; i < batch->count; i++)
		count += batch->events[i].delivered ? 1 : 0;
	return batch->claim.batch_id == 0 ? 0 : count;
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

/* Where the stream ends; outside of a transaction. */
static SagazStore *
ask_stream_end(Stream *stream, SagazBatch *batch)
{
	SagazStore *store;
	SagazStreamId end;

	sagaz_attempt_time(batch->delivery->timeout_ms);
	store = sagaz_forward_open(batch);
	end = store->backend->stream_end(store);
	sagaz_attempt_time_over();
	check_stream_end(store, end);
	if (stream_is_after(stream->end, end))
		stream->passed_ms = 0;
	stream->end = end;
	stream->failed = false;
	return store;
}

/*
 * Look at the stream and do one thing that is missing there; stream->looked
 * says that nothing was.  Ends the transaction.
 */
static void
look_at_stream(SagazRun *run, const SagazDelivery *delivery)
{
	Stream	   *stream = stream_of_run(run);
	MemoryContext context = CurrentMemoryContext;
	SagazBatch *batch = palloc0(sizeof(SagazBatch));
	Work		work = {.batch = batch};
	SagazStore *store;
	bool		found;

	stream->looked = stream->sure = false;
	batch->run = run;
	batch->delivery = delivery;
	batch->claim.worker_id = run->worker_id;
	prepare_stream_look(stream, delivery);
	sagaz_forward_bind(batch);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	store = ask_stream_end(stream, batch);

	sagaz_process_begin();
	MemoryContextSwitchTo(context);
	found = find_stream_work(stream, delivery, &work);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	if (found)
	{
		do_stream_work(stream, store, &work);
		run->caught_up = count_streamed(batch);
		return;
	}
	stream->looked = true;
	stream->looked_at = GetCurrentTimestamp();
}

/* Has the stream what was claimed before?  Find out, if it is time to. */
static bool
stream_catch_up(SagazRun *run, const SagazDelivery *delivery)
{
	const Stream *stream = stream_of_run(run);

	if (stream->looked && GetCurrentTimestamp() <
		stream->looked_at + sagaz_poll_interval * INT64CONST(1000))
		return false;
	sagaz_process_state(run->slot, WORKER_DELIVERING);
	pgstat_report_activity(STATE_RUNNING,
						   psprintf("sagaz: comparing with the stream of %s",
									delivery->target));
	look_at_stream(run, delivery);
	return true;
}

/* The ids of what was claimed, as its rows have them. */
static void
place_claimed_in_stream(SagazBatch *batch)
{
	const SagazClaim *claim = &batch->claim;
	int			count = 0;

	for (int i = 0; i < claim->nstream_rows; i++)
		for (int j = 0; j < claim->stream_rows[i].count; j++)
		{
			batch->events[count].place.ms = claim->stream_rows[i].ms;
			batch->events[count++].place.seq = j;
		}
	Assert(count == batch->count);
}

/*
 * Make the claim durable; where it may have an earlier try, a look decides
 * what is missing.
 */
static bool
stream_begin(SagazBatch *batch)
{
	Stream	   *stream = stream_of_run(batch->run);
	bool		first_try = stream->sure;

	stream->looked = stream->sure = false;
	XLogFlush(XactLastCommitEnd);
	place_claimed_in_stream(batch);
	return first_try;
}

static void
stream_end(SagazRun *run, bool done)
{
	Stream	   *stream = stream_of_run(run);

	if (done)
		stream->looked = stream->sure = true;
}

const SagazTarget sagaz_stream_target = {
	.name = "stream",
	.keeps = true,
	.serves = stream_serves,
	.catch_up = stream_catch_up,
	.prepare = stream_prepare,
	.read = sagaz_forward_read,
	.bind = sagaz_forward_bind,
	.begin = stream_begin,
	.deliver = stream_deliver,
	.judged = stream_judged,
	.end = stream_end
};
