/*
 * stream.c
 *		Deliveries of an ordered group to the stream of a broker: each event
 *		gets one entry, also when somebody is killed in between.
 *
 * The claim gives each row of its batch, one a lane, a number of its own that
 * is higher than all before, stream_ms; entry i of the row gets the id ms-i.
 * The claim is durable before anything is sent, so after a crash the stream
 * itself tells, under ids that are known, which events it has.
 *
 * What is sent is a script that adds all entries or, if the stream's end is
 * not the one we know, none.  A script of ours that was lost on its way, and
 * arrives after we have looked, is refused by that, and so is ours if it
 * arrives before.  Whatever ends without an answer leaves the batch open, and
 * before anything later is claimed the worker settles: it looks up the end
 * and the ids of each open batch, adds the entries that are missing, and
 * finishes the batch.
 *
 * Where the end lies before ids of batches that are finished, the server has
 * lost data; then what is missing of these is added again, in order, as far
 * as the log still has it.
 */
#include "sagaz.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "batch.h"
#include "batch_events.h"
#include "group.h"
#include "mark.h"
#include "outbox.h"
#include "outstanding.h"
#include "process.h"
#include "receipt.h"
#include "stream.h"
#include "tuples.h"

/* A row of a batch that may have to be sent, or sent again. */
typedef struct StreamRow
{
	int64		ms;
	int64		batch_id;
	int16		lane;
	bool		open;			/* the batch is ours still */
} StreamRow;

typedef struct Settling
{
	SagazStream *stream;
	SagazStore *store;
	const char *worker_id;
	SagazGroup	group;
} Settling;

/* Is it one of those that this file is about? */
bool
sagaz_stream_is_exact(const SagazDelivery *delivery)
{
	SagazGroup	group;

	return delivery->to_stream &&
		sagaz_group_find(delivery->consumer_group, &group) && group.ordered;
}

/* Transactions of ours end in the memory context in which they began. */
static void
begin(void)
{
	MemoryContext context = CurrentMemoryContext;

	sagaz_process_begin();
	MemoryContextSwitchTo(context);
}

static void
commit(void)
{
	MemoryContext context = CurrentMemoryContext;

	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/* ---------------------------------------------------------------------- */
/* Which rows */

static bool
is_of_worker(const Settling *settling, TupleTableSlot *row)
{
	char	   *worker_id = sagaz_column_text(row, batch_worker_id);

	return worker_id && strcmp(worker_id, settling->worker_id) == 0;
}

static int
compare_rows(const ListCell *a, const ListCell *b)
{
	int64		x = ((const StreamRow *) lfirst(a))->ms;
	int64		y = ((const StreamRow *) lfirst(b))->ms;

	return (x > y) - (x < y);
}

static List *
add_row(List *rows, TupleTableSlot *slot, bool open)
{
	StreamRow  *row = palloc(sizeof(StreamRow));

	row->ms = DatumGetInt64(sagaz_column(slot, batch_stream_ms));
	row->batch_id = DatumGetInt64(sagaz_column(slot, batch_batch_id));
	row->lane = DatumGetInt16(sagaz_column(slot, batch_lane));
	row->open = open;
	return lappend(rows, row);
}

/* The rows of a batch that have a place in the stream. */
static List *
add_open_batch(const Settling *settling, List *rows, int64 batch_id,
			   Snapshot snapshot)
{
	ScanKeyData keys[3];

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, settling->group.no);
	sagaz_key_int8(&keys[2], 3, BTEqualStrategyNumber, batch_id);
	for (int16 lane = 0; lane < SAGAZ_LANES; lane++)
	{
		SagazScan  *scan;

		sagaz_key_int2(&keys[1], 2, BTEqualStrategyNumber, lane);
		scan = sagaz_scan_begin("outbox_batch", "outbox_batch_key", snapshot,
								keys, 3, ForwardScanDirection);
		if (sagaz_scan_next(scan) && is_of_worker(settling, scan->slot) &&
			!sagaz_column_is_null(scan->slot, batch_stream_ms))
			rows = add_row(rows, scan->slot, true);
		sagaz_scan_end(scan);
	}
	return rows;
}

/* Finished rows whose entries lie at or behind the stream's end. */
static List *
add_lost_rows(const Settling *settling, List *rows, Snapshot snapshot)
{
	ScanKeyData keys[2];
	SagazScan  *scan;
	TimestampTz until;

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, settling->group.no);
	sagaz_key_int8(&keys[1], 2, BTGreaterEqualStrategyNumber,
				   (int64) settling->stream->end.ms);
	scan = sagaz_scan_begin("outbox_batch", "outbox_batch_stream", snapshot,
							keys, 2, ForwardScanDirection);
	while (sagaz_scan_next(scan))
	{
		CHECK_FOR_INTERRUPTS();
		if (is_of_worker(settling, scan->slot) &&
			sagaz_receipt_closing(DatumGetInt64(sagaz_column(scan->slot, batch_batch_id)),
								  snapshot, &until) == RECEIPT_SENT)
			rows = add_row(rows, scan->slot, false);
	}
	sagaz_scan_end(scan);
	return rows;
}

/* The highest number that a row of the group has. */
static int64
find_last_ms(const Settling *settling, Snapshot snapshot)
{
	ScanKeyData key;
	SagazScan  *scan;
	int64		last = 0;

	sagaz_key_int2(&key, 1, BTEqualStrategyNumber, settling->group.no);
	scan = sagaz_scan_begin("outbox_batch", "outbox_batch_stream", snapshot,
							&key, 1, BackwardScanDirection);
	if (sagaz_scan_next(scan))
		last = DatumGetInt64(sagaz_column(scan->slot, batch_stream_ms));
	sagaz_scan_end(scan);
	return last;
}

/* Keep the batch for another while, if little of its lease is left. */
static void
keep_lease(const Settling *settling, const SagazOutstanding *batch)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		lease = sagaz_claim_timeout * INT64CONST(1000);
	SagazLease	held;

	if (batch->lease_end - now > lease / 2)
		return;
	sagaz_lease_open(batch->batch_id, settling->worker_id, &held);
	sagaz_receipt_extend(batch->batch_id, now + lease);
	sagaz_lease_done(&held);
}

/* All rows that have to be looked at, in the order of their places. */
static List *
find_rows(Settling *settling)
{
	List	   *rows = NIL;
	List	   *batches = sagaz_outstanding_batches(&settling->group, NULL);
	Snapshot	snapshot;
	ListCell   *cell;

	foreach(cell, batches)
	{
		SagazOutstanding *batch = lfirst(cell);

		if (!sagaz_batch_is_of(batch->batch_id, settling->worker_id) ||
			!sagaz_outstanding_lock(batch))
			continue;
		keep_lease(settling, batch);
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		rows = add_open_batch(settling, rows, batch->batch_id, snapshot);
		UnregisterSnapshot(snapshot);
	}
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	rows = add_lost_rows(settling, rows, snapshot);
	settling->stream->last_ms = find_last_ms(settling, snapshot);
	UnregisterSnapshot(snapshot);
	list_sort(rows, compare_rows);
	return rows;
}

/* ---------------------------------------------------------------------- */
/* What is missing */

static bool
is_in_stream(List *entries, const char *event_id)
{
	ListCell   *cell;

	foreach(cell, entries)
		if (strcmp(((SagazStreamEntry *) lfirst(cell))->event_id, event_id) == 0)
			return true;
	return false;
}

/* What the stream has under the ids of a row. */
static List *
read_entries(const Settling *settling, const StreamRow *row)
{
	SagazStreamId from = {row->ms, 0};
	SagazStreamId to = {row->ms, PG_UINT64_MAX};

	if (settling->stream->end.ms < (uint64) row->ms)
		return NIL;
	return settling->store->backend->stream_read(settling->store, from, to);
}

static List *
read_events(const Settling *settling, const StreamRow *row)
{
	Snapshot	snapshot;
	List	   *events;

	begin();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	events = sagaz_batch_events(&settling->group, row->lane, row->batch_id, snapshot);
	UnregisterSnapshot(snapshot);
	commit();
	return events;
}

static bool
batch_has_place(List *rows, int64 batch_id, uint64 ms)
{
	ListCell   *cell;

	foreach(cell, rows)
	{
		const StreamRow *row = lfirst(cell);

		if (row->batch_id == batch_id && (uint64) row->ms == ms)
			return true;
	}
	return false;
}

static bool
is_among(List *events, const char *event_id)
{
	ListCell   *cell;

	foreach(cell, events)
		if (strcmp(((SagazRecord *) lfirst(cell))->event.event_id, event_id) == 0)
			return true;
	return false;
}

/*
 * How many of the row's events, from the first on, the stream's end says were
 * added, be the entries there still or not: a consumer may have deleted them.
 */
static int
count_added(const Settling *settling, List *rows, const StreamRow *row,
			List *events, List *entries)
{
	const SagazStreamId *end = &settling->stream->end;
	const SagazStreamEntry *last = entries ? llast(entries) : NULL;

	if (end->ms < (uint64) row->ms)
		return 0;
	if (end->ms > (uint64) row->ms)
		return batch_has_place(rows, row->batch_id, end->ms) ? PG_INT32_MAX : 0;
	if (last && last->id.seq == end->seq && !is_among(events, last->event_id))
		return 0;				/* another's id that happens to be as ours */
	return (int) Min(end->seq + 1, PG_INT32_MAX);
}

/* Those of the row's events that the stream has not, and those that it has. */
static void
compare_with_stream(const Settling *settling, List *rows, const StreamRow *row,
					List **missing, List **there)
{
	List	   *entries = read_entries(settling, row);
	List	   *events = read_events(settling, row);
	int			added = count_added(settling, rows, row, events, entries);

	*missing = *there = NIL;
	for (int i = 0; i < list_length(events); i++)
	{
		SagazRecord *record = list_nth(events, i);

		if (i < added || is_in_stream(entries, record->event.event_id))
			*there = lappend(*there, record);
		else
			*missing = lappend(*missing, record);
	}
}

static void
stream_moved(const SagazStore *store)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CONCURRENCY),
			 errmsg("somebody else adds to the stream of storage \"%s\"", store->name),
			 errhint("A delivery of an ordered group must be the only writer of its stream.")));
}

/* Add entries at ids that begin with this one. */
static void
append(SagazStream *stream, SagazStore *store, SagazRecord *records, int count,
	   const SagazStreamId *ids)
{
	if (!store->backend->stream_append(store, stream->end, records, ids, count))
		stream_moved(store);
	stream->end = ids[count - 1];
}

/* Add what a row's place in the stream lacks, behind what is there. */
static void
append_missing(Settling *settling, const StreamRow *row, List *missing)
{
	SagazStream *stream = settling->stream;
	int			count = list_length(missing);
	SagazRecord *records = palloc(count * sizeof(SagazRecord));
	SagazStreamId *ids = palloc(count * sizeof(SagazStreamId));
	uint64		first = stream->end.ms == (uint64) row->ms ? stream->end.seq + 1 : 0;

	for (int i = 0; i < count; i++)
	{
		records[i] = *(SagazRecord *) list_nth(missing, i);
		ids[i].ms = row->ms;
		ids[i].seq = first + i;
	}
	append(stream, settling->store, records, count, ids);
}

/* Is the batch the worker's still? */
static bool
is_open(int64 batch_id)
{
	SagazOutstanding batch = {.batch_id = batch_id};

	return sagaz_outstanding_lock(&batch);
}

static void
mark_sent(const Settling *settling, List *events)
{
	Datum	   *ids = palloc((list_length(events) + 1) * sizeof(Datum));

	for (int i = 0; i < list_length(events); i++)
		ids[i] = DirectFunctionCall1(uuid_in,
									 CStringGetDatum(((SagazRecord *) list_nth(events, i))->event.event_id));
	sagaz_mark_events_sent(&settling->group, settling->worker_id, ids,
						   list_length(events));
}

/*
 * A place of the batch lies before the stream's end, where nothing can be
 * added any more: mark what is there, and give the rest back, to be claimed
 * for a new place.
 */
static void
give_up_places(const Settling *settling, List *rows, int64 batch_id)
{
	List	   *sent = NIL;
	ListCell   *cell;

	foreach(cell, rows)
	{
		StreamRow  *row = lfirst(cell);
		List	   *missing;
		List	   *there;

		if (row->batch_id != batch_id)
			continue;
		compare_with_stream(settling, rows, row, &missing, &there);
		sent = list_concat(sent, there);
	}
	begin();
	if (sent != NIL)
		mark_sent(settling, sent);
	if (is_open(batch_id))
		(void) sagaz_batch_release(batch_id, settling->worker_id,
								   "its place in the stream is taken", 0);
	commit();
}

/* ---------------------------------------------------------------------- */
/* Settling */

static bool
is_last_of_batch(List *rows, int i)
{
	int64		batch_id = ((StreamRow *) list_nth(rows, i))->batch_id;

	while (++i < list_length(rows))
		if (((StreamRow *) list_nth(rows, i))->batch_id == batch_id)
			return false;
	return true;
}

static void
forget_batch(List *rows, int64 batch_id)
{
	ListCell   *cell;

	foreach(cell, rows)
		if (((StreamRow *) lfirst(cell))->batch_id == batch_id)
			((StreamRow *) lfirst(cell))->batch_id = 0;
}

/* See to it that all events of the row are in the stream. */
static void
settle_row(Settling *settling, List *rows, int i)
{
	StreamRow  *row = list_nth(rows, i);
	List	   *missing;
	List	   *there;

	compare_with_stream(settling, rows, row, &missing, &there);
	if (missing != NIL && (uint64) row->ms >= settling->stream->end.ms)
		append_missing(settling, row, missing);
	else if (missing != NIL && row->open)
	{
		give_up_places(settling, rows, row->batch_id);
		forget_batch(rows, row->batch_id);
		return;
	}
	if (row->open && is_last_of_batch(rows, i))
	{
		begin();
		if (is_open(row->batch_id))
			(void) sagaz_batch_finish(row->batch_id, settling->worker_id);
		commit();
	}
}

/*
 * Look up the stream's end and bring all batches of the worker that are open
 * to theirs.  It is called in a transaction and ends that one; whatever is
 * asked of the server is asked outside of transactions.
 */
void
sagaz_stream_settle(SagazStream *stream, const SagazDelivery *delivery,
					const char *worker_id)
{
	Settling	settling = {.stream = stream,.worker_id = worker_id};
	MemoryContext context = CurrentMemoryContext;
	MemoryContext part = AllocSetContextCreate(context, "sagaz stream",
											   ALLOCSET_DEFAULT_SIZES);
	SagazStorage storage;
	List	   *rows;

	stream->settled = false;
	sagaz_group_get(delivery->consumer_group, &settling.group);
	sagaz_storage_find(delivery->target, &storage);
	commit();
	settling.store = sagaz_storage_open(&storage, delivery->target, SAGAZ_EVENT);
	stream->end = settling.store->backend->stream_end(settling.store);
	begin();
	rows = find_rows(&settling);
	commit();
	for (int i = 0; i < list_length(rows); i++)
	{
		if (((StreamRow *) list_nth(rows, i))->batch_id == 0)
			continue;
		MemoryContextSwitchTo(part);
		settle_row(&settling, rows, i);
		MemoryContextSwitchTo(context);
		MemoryContextReset(part);
	}
	MemoryContextDelete(part);
	stream->settled = true;
}

/* ---------------------------------------------------------------------- */
/* Sending */

/* The number for the first row of the next claim. */
int64
sagaz_stream_next_ms(const SagazStream *stream)
{
	int64		now = (GetCurrentTimestamp() +
					   (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY) / 1000;

	return Max(now, Max(stream->last_ms, (int64) stream->end.ms) + 1);
}

/* Send a batch that was claimed just now; its claim is durable. */
void
sagaz_stream_append(SagazStream *stream, SagazStore *store,
					const SagazClaim *claim, SagazRecord *records)
{
	SagazStreamId *ids = palloc(claim->picked * sizeof(SagazStreamId));
	int			count = 0;

	for (int row = 0; row < claim->nrows; row++)
		for (int i = 0; i < claim->served[row].events; i++)
		{
			ids[count].ms = claim->served[row].stream_ms;
			ids[count++].seq = i;
		}
	Assert(count == claim->picked);
	append(stream, store, records, count, ids);
}
