/*
 * explain.c
 *		explain_event(): where an event stands for each consumer group, and in
 *		plain words why it is not delivered yet.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "backends/record/record.h"
#include "status/event_scan.h"
#include "status/event_walk.h"
#include "outbox/event.h"
#include "outbox/outbox.h"
#include "outbox/retry.h"
#include "lib/rows.h"
#include "lib/times.h"
#include "admin/lane_holder.h"
#include "worker/delivery.h"
#include "worker/shares.h"
#include "worker/trouble.h"

/* Events before one are counted up to so many. */
#define MAX_COUNTED 10000

PG_FUNCTION_INFO_V1(sagaz_explain_event);

/* The columns of explain_event(). */
enum explain_column
{
	explain_consumer_group,
	explain_status,
	explain_reason,
	explain_next_attempt_at,
	explain_batch_id,
	explain_worker_id,
	explain_claimed_at,
	explain_sent_at,
	explain_retry_count,
	explain_last_error,
	explain_columns
};

typedef struct Explanation
{
	SagazStates *states;
	TupleTableSlot *event;		/* of the log */
	SagazEventState state;
	TimestampTz now;
	StringInfoData reason;
} Explanation;

static const char *
explain_time(TimestampTz at)
{
	return sagaz_time_text(sagaz_real_time(at));
}

static int64
explained_place_of(TupleTableSlot *event)
{
	return DatumGetInt64(sagaz_column(event, outbox_seq));
}

/*
 * In an ordered group: the first row of the saga that keeps back what comes
 * behind it, if it is before the event.
 */
static bool
explain_blocker(Explanation *e)
{
	SagazScan  *scan;
	bool		found;

	if (!e->states->has_group || !e->states->group.ordered)
		return false;
	scan = sagaz_retry_scan_saga(e->states->group.no,
								 sagaz_column(e->event, outbox_saga_id), 0,
								 e->states->snapshot);
	found = sagaz_scan_next(scan) &&
		DatumGetInt64(sagaz_column(scan->slot, retry_seq)) < explained_place_of(e->event);
	if (found)
		appendStringInfo(&e->reason, "held back behind event %s of its saga",
						 DatumGetCString(DirectFunctionCall1(uuid_out,
															 sagaz_column(scan->slot, retry_event_id))));
	sagaz_scan_end(scan);
	return found;
}

/* How many events of the lane the group gets before this one. */
static int
explain_count_before(Explanation *e, int16 lane)
{
	SagazUnreadWalk *walk = sagaz_unread_begin(e->states, lane, lane);
	TupleTableSlot *event;
	int			count = 0;

	while (count < MAX_COUNTED && (event = sagaz_unread_next(walk)) != NULL)
		if (explained_place_of(event) < explained_place_of(e->event))
			count++;
	sagaz_unread_end(walk);
	return count;
}

/* In an ordered group a batch that is out keeps its lane to itself. */
static void
explain_lane_holder(Explanation *e, int16 lane)
{
	ListCell   *cell;

	if (!e->states->group.ordered)
		return;
	foreach(cell, sagaz_states_cursor(e->states, lane)->owed)
	{
		const SagazOwed *owed = lfirst(cell);
		TimestampTz until;

		if (sagaz_receipt_closing(owed->holder, e->states->snapshot, &until) != 0)
			continue;
		appendStringInfo(&e->reason, "; the lane waits for batch " INT64_FORMAT,
						 owed->holder);
		return;
	}
}

static void
explain_ahead(Explanation *e)
{
	int16		lane = DatumGetInt16(sagaz_column(e->event, outbox_lane));
	int			before;

	if (e->state.next_attempt_at > e->now)
	{
		appendStringInfo(&e->reason, "scheduled for %s",
						 explain_time(e->state.next_attempt_at));
		return;
	}
	if (explain_blocker(e))
		return;
	before = explain_count_before(e, lane);
	appendStringInfo(&e->reason,
					 "not handed out yet: %s%d %s before it in lane %d",
					 before == MAX_COUNTED ? "at least " : "", before,
					 before == 1 ? "event" : "events", lane);
	explain_lane_holder(e, lane);
}

static void
explain_out(Explanation *e)
{
	TimestampTz lease_end = sagaz_state_lease_end(e->states, &e->state);

	appendStringInfoString(&e->reason, "handed out");
	if (e->state.worker_id)
		appendStringInfo(&e->reason, " to worker \"%s\"", e->state.worker_id);
	if (e->state.batch_id != 0)
		appendStringInfo(&e->reason, " in batch " INT64_FORMAT, e->state.batch_id);
	if (e->state.claimed_at != 0)
		appendStringInfo(&e->reason, " at %s", explain_time(e->state.claimed_at));
	if (lease_end <= e->now)
		appendStringInfo(&e->reason,
						 "; the lease ran out at %s, the next claim takes it over",
						 explain_time(lease_end));
	else
		appendStringInfo(&e->reason, "; the lease runs out at %s",
						 explain_time(lease_end));
}

/* Batches with it whose workers were lost, and that it goes out in smaller ones. */
static void
explain_losses(Explanation *e)
{
	if (e->state.lost > 0)
		appendStringInfo(&e->reason, "; lost with it so far: %d %s", e->state.lost,
						 e->state.lost == 1 ? "worker" : "workers");
	if (e->state.batch_limit == 1)
		appendStringInfoString(&e->reason, "; it goes out alone");
	else if (e->state.batch_limit > 1)
		appendStringInfo(&e->reason, "; a worker was lost with it, so it goes out with at most %d others",
						 e->state.batch_limit - 1);
}

static void
explain_returned(Explanation *e)
{
	if (e->state.closed_by == RECEIPT_TAKEN_OVER)
		appendStringInfo(&e->reason, "the worker of batch " INT64_FORMAT " was lost",
						 e->state.batch_id);
	else
		appendStringInfo(&e->reason, "released with batch " INT64_FORMAT "%s%s",
						 e->state.batch_id, e->state.last_error ? ": " : "",
						 e->state.last_error ? e->state.last_error : "");
	if (e->state.next_attempt_at > e->now)
		appendStringInfo(&e->reason, "; not handed out again before %s",
						 explain_time(e->state.next_attempt_at));
	else
		appendStringInfoString(&e->reason,
							   "; the next claim hands it out again");
	explain_losses(e);
}

static void
explain_done(Explanation *e)
{
	appendStringInfo(&e->reason, "sent at %s", explain_time(e->state.sent_at));
	if (e->state.worker_id)
		appendStringInfo(&e->reason, " by worker \"%s\"", e->state.worker_id);
	if (e->state.batch_id != 0)
		appendStringInfo(&e->reason, " in batch " INT64_FORMAT, e->state.batch_id);
}

static void
explain_waiting(Explanation *e)
{
	bool		failed = e->state.status == EVENT_FAILED;

	if (failed)
		appendStringInfo(&e->reason, "waiting for retry %d of %d",
						 e->state.retry_count, sagaz_max_retries);
	else
		appendStringInfoString(&e->reason, "to be tried again");
	if (e->state.next_attempt_at > e->now)
		appendStringInfo(&e->reason, " at %s", explain_time(e->state.next_attempt_at));
	else
		appendStringInfoString(&e->reason, ", which is due");
	if (e->state.last_error)
		appendStringInfo(&e->reason, "%s%s", failed ? ": " : "; last error: ",
						 e->state.last_error);
	explain_losses(e);
}

static void
explain_retry(Explanation *e)
{
	switch (e->state.retry_state)
	{
		case RETRY_WAITING:
			explain_waiting(e);
			break;
		case RETRY_HELD:
			if (!explain_blocker(e))
				appendStringInfoString(&e->reason,
									   "held back behind an earlier event of its saga");
			break;
		case RETRY_SCHEDULED:
			if (e->state.next_attempt_at > e->now)
				appendStringInfo(&e->reason, "scheduled for %s",
								 explain_time(e->state.next_attempt_at));
			else
				appendStringInfo(&e->reason, "scheduled for %s, which is due",
								 explain_time(e->state.next_attempt_at));
			break;
		case RETRY_OUT:
			explain_out(e);
			break;
		case RETRY_DEAD:
			appendStringInfo(&e->reason, "dead letter since %s: %s",
							 e->state.failed_at ? explain_time(e->state.failed_at) : "it was taken over",
							 e->state.last_error ? e->state.last_error : "no error was given");
			break;
		default:
			explain_done(e);
			break;
	}
}

static void
explain_not_its(Explanation *e)
{
	if (DatumGetUInt64(sagaz_column(e->event, outbox_pos)) < SAGAZ_FIRST_POS)
		appendStringInfoString(&e->reason,
							   "taken over from elsewhere for another consumer group");
	else
		appendStringInfoString(&e->reason, "from before the group's start");
}

/* An open transaction that keeps claims out of the event's lane. */
static void
explain_lane_holders(Explanation *e)
{
	ListCell   *cell;

	if (!e->states->has_group || e->state.status == EVENT_CLAIMED)
		return;
	foreach(cell, sagaz_lane_holders())
	{
		const SagazLaneHolder *holder = lfirst(cell);

		if (holder->group_no == e->states->group.no && holder->is_client &&
			holder->lane == DatumGetInt16(sagaz_column(e->event, outbox_lane)))
			appendStringInfo(&e->reason, "; lane %d is held by %s",
							 holder->lane, holder->text);
	}
}

/* What the deliveries of the group do. */
static void
explain_deliveries(Explanation *e)
{
	SagazScan  *scan = sagaz_scan_begin("delivery", "delivery_pkey", e->states->snapshot,
										NULL, 0, ForwardScanDirection);

	while (!RecoveryInProgress() && sagaz_scan_next(scan))
	{
		SagazDelivery delivery;
		SagazWorkerSlot slot;
		char	   *text;

		sagaz_delivery_read(scan->slot, &delivery);
		if (strcmp(delivery.consumer_group, e->states->group.name) != 0)
			continue;
		slot = sagaz_shares_read(delivery.name);
		text = sagaz_delivery_trouble(&delivery, &slot, true);
		if (text == NULL)
			text = sagaz_workers == NULL ? "has no worker" :
				sagaz_delivery_at_work(&delivery, &slot);
		if (text)
			appendStringInfo(&e->reason, "; delivery \"%s\" %s", delivery.name, text);
		if (slot.done.last_error[0] && slot.state != WORKER_BACKING_OFF)
			appendStringInfo(&e->reason, "; last error of delivery \"%s\": %s",
							 delivery.name, slot.done.last_error);
	}
	sagaz_scan_end(scan);
}

/* What keeps a whole group from getting anything. */
static void
explain_obstacles(Explanation *e)
{
	const SagazCluster *cluster = e->states->cluster;

	if (e->state.status == EVENT_SENT || e->state.status == EVENT_DEAD_LETTER ||
		e->state.status == EVENT_NONE)
		return;
	if (!e->states->has_group)
		appendStringInfoString(&e->reason, "; no worker has claimed anything yet");
	if (e->states->group.paused)
		appendStringInfoString(&e->reason, "; the group is paused");
	if (cluster->known && !(cluster->same && cluster->active))
		appendStringInfo(&e->reason,
						 "; the outbox is not active in this database, see %s.activate()",
						 SAGAZ_SCHEMA);
	else
	{
		explain_lane_holders(e);
		explain_deliveries(e);
	}
}

static void
explain(Explanation *e)
{
	switch (e->state.where)
	{
		case WHERE_UNREAD:
			explain_ahead(e);
			break;
		case WHERE_OUT:
			explain_out(e);
			break;
		case WHERE_RETURNED:
			explain_returned(e);
			break;
		case WHERE_DONE:
			explain_done(e);
			break;
		case WHERE_RETRY:
			explain_retry(e);
			break;
		case WHERE_NOT_ITS:
			explain_not_its(e);
			break;
	}
	explain_obstacles(e);
}

static void
put_explain_time(Datum *values, bool *nulls, int column, TimestampTz at)
{
	values[column] = TimestampTzGetDatum(sagaz_real_time(at));
	nulls[column] = at == 0;
}

static void
put_explain_text(Datum *values, bool *nulls, int column, const char *value)
{
	nulls[column] = value == NULL;
	if (value)
		values[column] = CStringGetTextDatum(value);
}

static void
put_explain_row(ReturnSetInfo *result, const SagazStates *states,
				const SagazEventState *state, const char *reason)
{
	Datum		values[explain_columns] = {0};
	bool		nulls[explain_columns] = {false};

	values[explain_consumer_group] = CStringGetTextDatum(states->group.name);
	nulls[explain_status] = state->status == EVENT_NONE;
	if (state->status != EVENT_NONE)
		values[explain_status] = sagaz_event_status_value(state->status);
	values[explain_reason] = CStringGetTextDatum(reason);
	put_explain_time(values, nulls, explain_next_attempt_at,
					 state->status == EVENT_PENDING || state->status == EVENT_FAILED ?
					 state->next_attempt_at : 0);
	values[explain_batch_id] = Int64GetDatum(state->batch_id);
	nulls[explain_batch_id] = state->batch_id == 0;
	put_explain_text(values, nulls, explain_worker_id, state->worker_id);
	put_explain_time(values, nulls, explain_claimed_at, state->claimed_at);
	put_explain_time(values, nulls, explain_sent_at, state->sent_at);
	values[explain_retry_count] = Int32GetDatum(state->retry_count);
	nulls[explain_retry_count] = state->status == EVENT_NONE;
	put_explain_text(values, nulls, explain_last_error, state->last_error);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
explain_for_group(ReturnSetInfo *result, const char *group,
				  TupleTableSlot *event, Snapshot snapshot)
{
	Explanation e = {0};

	e.states = sagaz_states_open(group, snapshot);
	e.event = event;
	e.now = GetCurrentTimestamp();
	initStringInfo(&e.reason);
	sagaz_state_of(e.states, event, &e.state);
	explain(&e);
	put_explain_row(result, e.states, &e.state, e.reason.data);
	sagaz_states_close(e.states);
}

/* One row for each group; where nobody made one, for the one that a claim makes. */
static void
explain_for_groups(ReturnSetInfo *result, TupleTableSlot *event,
				   Snapshot snapshot)
{
	SagazScan  *groups = sagaz_scan_begin("consumer_group",
										  "consumer_group_pkey", snapshot,
										  NULL, 0, ForwardScanDirection);
	bool		any = false;

	while (sagaz_scan_next(groups))
	{
		char	   *name = TextDatumGetCString(sagaz_column(groups->slot, 2));

		any = true;
		explain_for_group(result, name, event, snapshot);
	}
	sagaz_scan_end(groups);
	if (!any)
		explain_for_group(result, SAGAZ_DEFAULT_GROUP, event, snapshot);
}

/* False if the event is not in the archive. */
static bool
explain_archived(ReturnSetInfo *result, Datum event_id, Snapshot snapshot)
{
	SagazStates *states = sagaz_states_open_shown(SAGAZ_DEFAULT_GROUP, snapshot);
	SagazEventScan *scan = sagaz_scan_by_ids(states, ALL_STATUSES, &event_id, 1);
	const SagazFoundEvent *event = sagaz_event_scan_next(scan);
	bool		found = event != NULL && event->archived;

	if (found)
	{
		SagazEventState state = event->state;
		SagazEvent	record;
		StringInfoData reason;

		sagaz_event_of_row(event->slot->tts_values, event->slot->tts_isnull, &record);
		state.claimed_at = record.claimed_at;
		state.sent_at = record.sent_at;
		state.retry_count = record.retry_count;
		state.worker_id = record.worker_id;
		state.last_error = record.last_error;
		initStringInfo(&reason);
		appendStringInfo(&reason, "in the archive since %s",
						 explain_time(DatumGetTimestampTz(sagaz_column(event->slot,
																	   archive_archived_at))));
		put_explain_row(result, states, &state, reason.data);
	}
	sagaz_event_scan_end(scan);
	sagaz_states_close(states);
	return found;
}

/* explain_event(event_id) */
Datum
sagaz_explain_event(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Snapshot	snapshot = GetActiveSnapshot();
	SagazScan  *log = NULL;
	TupleTableSlot *event;
	Datum		event_id;

	sagaz_rows_begin(fcinfo);
	event_id = sagaz_argument(fcinfo, 0, "event_id");
	event = sagaz_event_fetch(&log, event_id, snapshot);
	if (event)
		explain_for_groups(result, event, snapshot);
	else if (!explain_archived(result, event_id, snapshot))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_NOT_FOUND),
				 errmsg("event %s is not in the outbox",
						DatumGetCString(DirectFunctionCall1(uuid_out, event_id))),
				 errhint("The event of a transaction that has not committed cannot be seen.")));
	sagaz_scan_end(log);
	return (Datum) 0;
}
