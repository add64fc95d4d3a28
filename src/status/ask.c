/*
 * ask.c
 *		Functions that list events with their state in a consumer group.
 *
 * All of them read with the query's snapshot, so what one query shows in
 * several places fits together.
 */
#include "lib/sagaz.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "outbox/batch.h"
#include "outbox/outbox.h"
#include "status/event_scan.h"
#include "lib/rows.h"

PG_FUNCTION_INFO_V1(sagaz_get_event);
PG_FUNCTION_INFO_V1(sagaz_get_events_by_saga);
PG_FUNCTION_INFO_V1(sagaz_get_stuck_events);
PG_FUNCTION_INFO_V1(sagaz_get_dead_letter_events);
PG_FUNCTION_INFO_V1(sagaz_get_pending_count);

/* The arguments that end every such function: consumer_group, storage. */
static SagazStates *
open_states_to_ask(FunctionCallInfo fcinfo, int group_argument)
{
	char	   *group = sagaz_group_argument(fcinfo, group_argument, SAGAZ_DEFAULT_GROUP);

	return sagaz_states_open_shown(group, GetActiveSnapshot());
}

/*
 * Return the scan's next event, if it was claimed so long ago, or whenever if
 * that is negative; false at the end.
 */
static bool
put_next_asked(FunctionCallInfo fcinfo, SagazEventScan *scan,
			   const SagazStates *states, int64 claimed_age)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	const SagazFoundEvent *event = sagaz_event_scan_next(scan);
	Datum		values[event_columns];
	bool		nulls[event_columns];

	if (event == NULL)
		return false;
	if (claimed_age >= 0 &&
		!sagaz_batch_is_older(event->state.claimed_at, claimed_age, GetCurrentTimestamp()))
		return true;
	sagaz_event_row(states, event, values, nulls);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	return true;
}

/* Return up to max_rows of the scan's events, and end it; returns how many not. */
static int64
put_asked_events(FunctionCallInfo fcinfo, SagazEventScan *scan, SagazStates *states,
				 int64 max_rows, int64 claimed_age)
{
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext,
													  "sagaz row",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(row_context);

	while (max_rows > 0 && put_next_asked(fcinfo, scan, states, claimed_age))
	{
		max_rows--;
		MemoryContextReset(row_context);
	}
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(row_context);
	sagaz_event_scan_end(scan);
	sagaz_states_close(states);
	return max_rows;
}

/* Return the event as it is for a snapshot of now, in the rows that were begun. */
void
sagaz_ask_event_now(FunctionCallInfo fcinfo, char *group, Datum event_id)
{
	SagazStates *states;

	PushActiveSnapshot(GetLatestSnapshot());
	states = sagaz_states_open(group, GetActiveSnapshot());
	put_asked_events(fcinfo, sagaz_scan_by_ids(states, ALL_STATUSES, &event_id, 1),
					 states, 1, -1);
	PopActiveSnapshot();
}

/* get_event(event_id, consumer_group, storage) */
Datum
sagaz_get_event(PG_FUNCTION_ARGS)
{
	SagazStates *states;
	Datum		event_id;

	sagaz_rows_begin(fcinfo);
	event_id = sagaz_argument(fcinfo, 0, "event_id");
	states = open_states_to_ask(fcinfo, 1);
	(void) put_asked_events(fcinfo, sagaz_scan_by_ids(states, ALL_STATUSES, &event_id, 1),
					 states, 1, -1);
	return (Datum) 0;
}

/* get_events_by_saga(saga_id, consumer_group, storage) */
Datum
sagaz_get_events_by_saga(PG_FUNCTION_ARGS)
{
	SagazStates *states;
	Datum		saga_id;

	sagaz_rows_begin(fcinfo);
	saga_id = CStringGetTextDatum(sagaz_text_argument(fcinfo, 0, "saga_id"));
	states = open_states_to_ask(fcinfo, 1);
	(void) put_asked_events(fcinfo, sagaz_scan_by_saga(states, ALL_STATUSES, saga_id),
					 states, PG_INT64_MAX, -1);
	return (Datum) 0;
}

/* get_stuck_events(claimed_older_than, consumer_group, storage) */
Datum
sagaz_get_stuck_events(PG_FUNCTION_ARGS)
{
	SagazStates *states;
	int64		age;

	sagaz_rows_begin(fcinfo);
	age = sagaz_interval_argument(fcinfo, 0, "claimed_older_than");
	states = open_states_to_ask(fcinfo, 1);
	(void) put_asked_events(fcinfo,
					 sagaz_scan_by_status(states, status_bit(EVENT_CLAIMED)),
					 states, PG_INT64_MAX, age);
	return (Datum) 0;
}

/* get_dead_letter_events(max_rows, consumer_group, storage): of all groups, or one */
Datum
sagaz_get_dead_letter_events(PG_FUNCTION_ARGS)
{
	List	   *names;
	ListCell   *cell;
	int64		left;

	sagaz_rows_begin(fcinfo);
	left = sagaz_rows_argument(fcinfo, 0, "max_rows");
	names = PG_ARGISNULL(1) ? sagaz_group_names(GetActiveSnapshot()) :
		list_make1(sagaz_group_argument(fcinfo, 1, SAGAZ_DEFAULT_GROUP));
	foreach(cell, names)
	{
		SagazStates *states = sagaz_states_open(lfirst(cell), GetActiveSnapshot());

		left = put_asked_events(fcinfo, sagaz_scan_by_status(states, status_bit(EVENT_DEAD_LETTER)),
								states, left, -1);
	}
	return (Datum) 0;
}

/* get_pending_count(consumer_group, storage) */
Datum
sagaz_get_pending_count(PG_FUNCTION_ARGS)
{
	SagazStates *states = open_states_to_ask(fcinfo, 0);
	SagazEventScan *scan = sagaz_scan_by_status(states,
												status_bit(EVENT_PENDING));
	int64		count = 0;

	while (sagaz_event_scan_next(scan) != NULL)
		count++;
	sagaz_event_scan_end(scan);
	sagaz_states_close(states);
	PG_RETURN_INT64(count);
}
