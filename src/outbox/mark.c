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
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "outbox/batch.h"
#include "outbox/event.h"
#include "outbox/mark.h"
#include "outbox/outbox.h"
#include "outbox/retry.h"
#include "outbox/state.h"

PG_FUNCTION_INFO_V1(sagaz_mark_sent);
PG_FUNCTION_INFO_V1(sagaz_mark_failed);

typedef struct MarkedEvent
{
	Datum		event_id;
	int64		batch_id;		/* that it is out in */
	int64		seq;
	int16		lane;
	bool		is_retry;
} MarkedEvent;

typedef struct Mark
{
	SagazGroup	group;
	const char *worker_id;
	const char *error;
	bool		failed;
	SagazFailure failure;		/* what that means */
	TimestampTz now;
	int			nevents;
	MarkedEvent *events;
} Mark;

static char *
marked_id_text(Datum event_id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, event_id));
}

/*
 * Find the event's batch, which is to be batch_id unless that is 0; an error
 * unless it is in the worker's hands.  Returns its row in the log.
 */
static TupleTableSlot *
find_marked_event(const Mark *mark, SagazStates *states, int64 batch_id,
				  MarkedEvent *event)
{
	TupleTableSlot *slot = sagaz_states_event(states, event->event_id);
	SagazEventState state;

	if (slot == NULL)
		sagaz_event_no_such(event->event_id);
	sagaz_state_of(states, slot, &state);
	if (state.status == EVENT_SENT)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_TRANSITION),
				 errmsg("event %s is sent already", marked_id_text(event->event_id))));
	if (state.status != EVENT_CLAIMED ||
		(batch_id != 0 && state.batch_id != batch_id))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CONCURRENCY),
				 errmsg("event %s is not in a batch of worker \"%s\"",
						marked_id_text(event->event_id), mark->worker_id),
				 errhint("Only events of a batch that the worker holds can be marked.")));
	event->batch_id = state.batch_id;
	event->seq = DatumGetInt64(sagaz_column(slot, outbox_seq));
	event->lane = DatumGetInt16(sagaz_column(slot, outbox_lane));
	event->is_retry = state.where == WHERE_RETRY;
	return slot;
}

/* Find every event's batch. */
static void
find_marked_events(Mark *mark)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SagazStates *states = sagaz_states_of_group(&mark->group, snapshot);

	for (int i = 0; i < mark->nevents; i++)
		(void) find_marked_event(mark, states, 0, &mark->events[i]);
	sagaz_states_close(states);
	UnregisterSnapshot(snapshot);
}

static int
compare_marked_events(const void *a, const void *b)
{
	const MarkedEvent *x = a;
	const MarkedEvent *y = b;

	if (x->batch_id != y->batch_id)
		return (x->batch_id > y->batch_id) - (x->batch_id < y->batch_id);
	return (x->seq > y->seq) - (x->seq < y->seq);
}

/* Sort by batch and place; an event named twice counts once. */
static void
sort_marked_events(Mark *mark)
{
	int			kept = 0;

	qsort(mark->events, mark->nevents, sizeof(MarkedEvent), compare_marked_events);
	for (int i = 0; i < mark->nevents; i++)
		if (kept == 0 ||
			mark->events[kept - 1].seq != mark->events[i].seq)
			mark->events[kept++] = mark->events[i];
	mark->nevents = kept;
}

static void
write_marked_retry(const Mark *mark, SagazWriter *writer)
{
	if (mark->failed)
	{
		sagaz_retry_failed(writer, mark->now, mark->error, mark->failure);
		sagaz_writer_clear(writer, retry_batch_id);
		return;
	}
	sagaz_retry_sent(writer, mark->now);
}

/*
 * Under the batch's lock: is the event still the batch's?  Then write what
 * became of it, unless the batch's receipt says it all.
 */
static void
mark_event(const Mark *mark, SagazStates *states, const SagazLease *lease,
		   MarkedEvent *event)
{
	TupleTableSlot *slot = find_marked_event(mark, states, lease->batch_id, event);
	SagazWriter *writer;

	if (!event->is_retry && !mark->failed)
		return;
	writer = sagaz_writer_begin("outbox_retry");
	if (event->is_retry)
	{
		TupleTableSlot *retry = sagaz_states_retry_row(states, event->seq);

		sagaz_writer_copy(writer, retry);
		write_marked_retry(mark, writer);
		sagaz_writer_update(writer, retry, lease->snapshot);
	}
	else
	{
		sagaz_retry_row_of_event(writer, mark->group.no, slot, RETRY_WAITING);
		sagaz_writer_set(writer, retry_claimed_at,
						 TimestampTzGetDatum(lease->claimed_at));
		sagaz_writer_set(writer, retry_worker_id,
						 CStringGetTextDatum(mark->worker_id));
		sagaz_retry_failed(writer, mark->now, mark->error, mark->failure);
		sagaz_writer_insert(writer);
	}
	sagaz_writer_end(writer);
}

/* Mark those of the worker's events that are in one batch. */
static void
mark_in_batch(const Mark *mark, MarkedEvent *events, int nevents)
{
	SagazLease	lease;
	SagazStates *states;
	int64	   *seqs = palloc(nevents * sizeof(int64));
	int			held = 0;

	sagaz_batch_lease_open(events[0].batch_id, mark->worker_id, &lease);
	states = sagaz_states_of_group(&mark->group, lease.snapshot);
	for (int i = 0; i < nevents; i++)
	{
		mark_event(mark, states, &lease, &events[i]);
		seqs[i] = events[i].seq;
	}
	sagaz_states_close(states);
	sagaz_receipt_events(lease.batch_id,
						 mark->failed ? RECEIPT_EVENTS_MOVED : RECEIPT_EVENTS_SENT,
						 mark->now, seqs, nevents);
	CommandCounterIncrement();
	for (int i = 0; i < nevents; i++)
	{
		if (mark->failed && mark->group.ordered)
			held += sagaz_hold_back(&lease, events[i].lane, events[i].seq,
									mark->now);
		else if (events[i].is_retry)
			sagaz_hold_let_go_of(&mark->group, events[i].seq);
	}
	sagaz_batch_close_if_done(&lease, nevents + held, mark->now);
	sagaz_batch_lease_done(&lease);
}

static void
read_marked_ids(FunctionCallInfo fcinfo, Mark *mark)
{
	Datum	   *ids = sagaz_ids_argument(fcinfo, 0, "event_ids", &mark->nevents);

	mark->events = palloc0((mark->nevents + 1) * sizeof(MarkedEvent));
	for (int i = 0; i < mark->nevents; i++)
		mark->events[i].event_id = ids[i];
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
			mark->events[i].batch_id == mark->events[first].batch_id)
			continue;
		mark_in_batch(mark, &mark->events[first], i - first);
		first = i;
	}
	return mark->nevents;
}

/*
 * Say of one event of the worker's batches that it failed; in an ordered
 * group, those of its saga behind it leave the batch, too.  Takes the batch's lock; a new snapshot sees what was
 * written.
 */
void
sagaz_mark_event_failed(const SagazGroup *group, Datum event_id,
						const char *worker_id, const char *error, SagazFailure failure)
{
	MarkedEvent event = {.event_id = event_id};
	Mark		mark = {.group = *group,.worker_id = worker_id,.error = error,
	.failed = true,.failure = failure,.nevents = 1,.events = &event};

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
	sagaz_group_get(sagaz_group_argument(fcinfo, 2, SAGAZ_DEFAULT_GROUP),
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
	sagaz_group_get(sagaz_group_argument(fcinfo, 3, SAGAZ_DEFAULT_GROUP),
					&mark.group);
	PG_RETURN_INT32(mark_events(&mark));
}
