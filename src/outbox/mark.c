/*
 * mark.c
 *		mark_sent() and mark_failed(): what became of single events of a batch.
 *
 * The events named may be in several batches of the worker.  Each batch is
 * locked, in the order of their ids, and looked at afresh; only then is
 * anything written, and an error undoes it all.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "outbox/batch.h"
#include "outbox/place.h"
#include "outbox/mark.h"
#include "outbox/outbox.h"
#include "outbox/retry.h"
#include "outbox/window_scan.h"

PG_FUNCTION_INFO_V1(sagaz_mark_sent);
PG_FUNCTION_INFO_V1(sagaz_mark_failed);

typedef struct MarkedEvent
{
	Datum		event_id;
	SagazPlace	place;
} MarkedEvent;

typedef struct Mark
{
	SagazGroup	group;
	const char *worker_id;
	const char *error;
	bool		failed;
	bool		for_good;		/* and is not to be tried again */
	TimestampTz now;
	int			nevents;
	MarkedEvent *events;
} Mark;

static char *
marked_id_text(Datum event_id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, event_id));
}

void
sagaz_mark_no_such_event(Datum event_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_NOT_FOUND),
			 errmsg("event %s is not in the outbox", marked_id_text(event_id))));
}

static void
mark_is_not_in_hand(const Mark *mark, const MarkedEvent *event)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CONCURRENCY),
			 errmsg("event %s is not in a batch of worker \"%s\"",
					marked_id_text(event->event_id), mark->worker_id),
			 errhint("Only events of a batch that the worker holds can be marked.")));
}

/* An event that is not in the worker's hands can't be marked. */
static void
check_mark_in_hand(const Mark *mark, const MarkedEvent *event)
{
	const SagazPlace *place = &event->place;

	if (place->state == PLACE_HELD_OUT ||
		(place->state == PLACE_RETRY && place->retry_state == RETRY_OUT))
		return;
	if (place->state == PLACE_FINISHED ||
		(place->state == PLACE_RETRY && place->retry_state == RETRY_SENT))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_TRANSITION),
				 errmsg("event %s is sent already", marked_id_text(event->event_id))));
	mark_is_not_in_hand(mark, event);
}

/* Find every event's batch. */
static void
find_marked_events(Mark *mark)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SagazScan  *log = NULL;

	for (int i = 0; i < mark->nevents; i++)
	{
		MarkedEvent *event = &mark->events[i];
		TupleTableSlot *slot = sagaz_place_fetch_event(&log, event->event_id, snapshot);

		if (slot == NULL)
			sagaz_mark_no_such_event(event->event_id);
		sagaz_place_find(&mark->group, slot, snapshot, &event->place);
		check_mark_in_hand(mark, event);
	}
	if (log)
		sagaz_scan_end(log);
	UnregisterSnapshot(snapshot);
}

static int
compare_marked_events(const void *a, const void *b)
{
	const MarkedEvent *x = a;
	const MarkedEvent *y = b;

	if (x->place.holder != y->place.holder)
		return (x->place.holder > y->place.holder) - (x->place.holder < y->place.holder);
	return (x->place.seq > y->place.seq) - (x->place.seq < y->place.seq);
}

/* Sort by batch and place; an event named twice counts once. */
static void
sort_marked_events(Mark *mark)
{
	int			kept = 0;

	qsort(mark->events, mark->nevents, sizeof(MarkedEvent), compare_marked_events);
	for (int i = 0; i < mark->nevents; i++)
		if (kept == 0 ||
			mark->events[kept - 1].place.seq != mark->events[i].place.seq)
			mark->events[kept++] = mark->events[i];
	mark->nevents = kept;
}

/* Under the batch's lock: is the event still the batch's? */
static void
check_mark_still_out(const Mark *mark, const SagazLease *lease, MarkedEvent *event)
{
	SagazScan  *log = NULL;
	TupleTableSlot *slot = sagaz_place_fetch_event(&log, event->event_id,
												   lease->snapshot);

	if (slot == NULL)
		sagaz_mark_no_such_event(event->event_id);
	sagaz_place_find(&mark->group, slot, lease->snapshot, &event->place);
	if (event->place.holder != lease->batch_id)
		mark_is_not_in_hand(mark, event);
	check_mark_in_hand(mark, event);
	sagaz_scan_end(log);
}

static void
write_marked_retry(const Mark *mark, SagazWriter *writer)
{
	if (mark->failed)
	{
		sagaz_retry_failed(writer, mark->now, mark->error, mark->for_good);
		sagaz_retry_clear(writer, retry_batch_id);
		return;
	}
	sagaz_writer_set(writer, retry_state, Int16GetDatum(RETRY_SENT));
	sagaz_writer_set(writer, retry_sent_at, TimestampTzGetDatum(mark->now));
}

/* Write what became of a retry that was out. */
static void
mark_retry(const Mark *mark, const SagazLease *lease, const MarkedEvent *event)
{
	SagazScan  *scan = sagaz_retry_row_of(mark->group.no, event->place.seq,
										  lease->snapshot);
	SagazWriter *writer = sagaz_writer_begin("outbox_retry");

	if (!sagaz_scan_next(scan))
		elog(ERROR, "retry row went away");
	sagaz_retry_row_copy(writer, scan->slot);
	write_marked_retry(mark, writer);
	sagaz_writer_update(writer, scan->slot, lease->snapshot);
	sagaz_writer_end(writer);
	sagaz_scan_end(scan);
}

/* Make the retry row of an event that failed for the first time. */
static void
add_marked_retry(const Mark *mark, const SagazLease *lease, const MarkedEvent *event)
{
	SagazScan  *log = NULL;
	SagazWriter *writer = sagaz_writer_begin("outbox_retry");
	TupleTableSlot *slot = sagaz_place_fetch_event(&log, event->event_id,
												   lease->snapshot);

	sagaz_retry_row_of_event(writer, mark->group.no, slot, RETRY_WAITING);
	sagaz_writer_set(writer, retry_claimed_at,
					 TimestampTzGetDatum(lease->claimed_at));
	sagaz_writer_set(writer, retry_worker_id,
					 CStringGetTextDatum(mark->worker_id));
	sagaz_retry_failed(writer, mark->now, mark->error, mark->for_good);
	sagaz_writer_insert(writer);
	sagaz_writer_end(writer);
	sagaz_scan_end(log);
}

/* Mark those of the worker's events that are in one batch. */
static void
mark_in_batch(const Mark *mark, MarkedEvent *events, int nevents)
{
	SagazLease	lease;
	int64	   *seqs = palloc(nevents * sizeof(int64));
	int			held = 0;

	sagaz_batch_lease_open(events[0].place.holder, mark->worker_id, &lease);
	for (int i = 0; i < nevents; i++)
	{
		check_mark_still_out(mark, &lease, &events[i]);
		seqs[i] = events[i].place.seq;
		if (events[i].place.state == PLACE_RETRY)
			mark_retry(mark, &lease, &events[i]);
		else if (mark->failed)
			add_marked_retry(mark, &lease, &events[i]);
	}
	sagaz_receipt_events(lease.batch_id,
						 mark->failed ? RECEIPT_EVENTS_MOVED : RECEIPT_EVENTS_SENT,
						 mark->now, seqs, nevents);
	CommandCounterIncrement();
	for (int i = 0; i < nevents; i++)
	{
		if (mark->failed && mark->group.ordered)
			held += sagaz_hold_back(&lease, events[i].place.lane,
									events[i].place.seq, mark->now);
		else if (events[i].place.state == PLACE_RETRY)
			sagaz_hold_let_go_of(&mark->group, events[i].place.seq);
	}
	sagaz_batch_close_if_done(&lease, nevents + held, mark->now);
	sagaz_batch_lease_done(&lease);
}

static void
read_marked_ids(FunctionCallInfo fcinfo, Mark *mark)
{
	Datum	   *ids;
	bool	   *nulls;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("event_ids must not be null")));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), UUIDOID, UUID_LEN, false,
					  TYPALIGN_CHAR, &ids, &nulls, &mark->nevents);
	mark->events = palloc0((mark->nevents + 1) * sizeof(MarkedEvent));
	for (int i = 0; i < mark->nevents; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_SAGAZ_INPUT),
					 errmsg("event_ids must not contain null")));
		mark->events[i].event_id = ids[i];
	}
}

static int
mark_events(Mark *mark)
{
	int			first = 0;

	mark->now = GetCurrentTimestamp();
	find_marked_events(mark);
	sort_marked_events(mark);
	for (int i = 1; i <= mark->nevents; i++)
	{
		if (i < mark->nevents &&
			mark->events[i].place.holder == mark->events[first].place.holder)
			continue;
		mark_in_batch(mark, &mark->events[first], i - first);
		first = i;
	}
	return mark->nevents;
}

/*
 * Say of one event of the worker's batches that it failed, for good: that it
 * is a dead letter at once; in an ordered group, those of its saga behind it
 * leave the batch, too.  Takes the batch's lock; a new snapshot sees what was
 * written.
 */
void
sagaz_mark_event_failed(const SagazGroup *group, Datum event_id,
						const char *worker_id, const char *error, bool for_good)
{
	MarkedEvent event = {.event_id = event_id};
	Mark		mark = {.group = *group,.worker_id = worker_id,.error = error,
	.failed = true,.for_good = for_good,.nevents = 1,.events = &event};

	(void) mark_events(&mark);
	CommandCounterIncrement();
}

/* Likewise, that it is sent. */
void
sagaz_mark_event_sent(const SagazGroup *group, Datum event_id, const char *worker_id)
{
	MarkedEvent event = {.event_id = event_id};
	Mark		mark = {.group = *group,.worker_id = worker_id,.nevents = 1,.events = &event};

	(void) mark_events(&mark);
	CommandCounterIncrement();
}

/* mark_sent(event_ids, worker_id, consumer_group, storage): how many */
Datum
sagaz_mark_sent(PG_FUNCTION_ARGS)
{
	Mark		mark = {0};

	read_marked_ids(fcinfo, &mark);
	mark.worker_id = sagaz_text_argument(fcinfo, 1, "worker_id");
	sagaz_group_get(sagaz_text_argument(fcinfo, 2, "consumer_group"),
					&mark.group);
	PG_RETURN_INT32(mark_events(&mark));
}

/* mark_failed(event_ids, worker_id, error, consumer_group, storage): how many */
Datum
sagaz_mark_failed(PG_FUNCTION_ARGS)
{
	Mark		mark = {0};

	read_marked_ids(fcinfo, &mark);
	mark.worker_id = sagaz_text_argument(fcinfo, 1, "worker_id");
	mark.error = sagaz_text_argument_or_null(fcinfo, 2);
	mark.failed = true;
	sagaz_group_get(sagaz_text_argument(fcinfo, 3, "consumer_group"),
					&mark.group);
	PG_RETURN_INT32(mark_events(&mark));
}
