/*
 * event_row.c
 *		The record of an event: the log's row and the derived state together.
 */
#include "lib/sagaz.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "backends/record/record.h"
#include "status/event_scan.h"
#include "outbox/outbox.h"

static void
copy_row_column(Datum *values, bool *nulls, int to, TupleTableSlot *slot, int from)
{
	values[to] = sagaz_column(slot, from);
	nulls[to] = sagaz_column_is_null(slot, from);
}

static void
set_row_text(Datum *values, bool *nulls, int to, const char *value)
{
	nulls[to] = value == NULL;
	if (value)
		values[to] = CStringGetTextDatum(value);
}

static void
set_row_time(Datum *values, bool *nulls, int to, TimestampTz value)
{
	nulls[to] = value == 0;
	values[to] = TimestampTzGetDatum(sagaz_real_time(value));
}

static void
fill_row_from_log(TupleTableSlot *slot, Datum *values, bool *nulls)
{
	static const int columns[][2] = {
		{event_event_id, outbox_event_id},
		{event_saga_id, outbox_saga_id},
		{event_aggregate_type, outbox_aggregate_type},
		{event_aggregate_id, outbox_aggregate_id},
		{event_event_type, outbox_event_type},
		{event_payload, outbox_payload},
		{event_headers, outbox_headers},
		{event_created_at, outbox_created_at},
		{event_routing_key, outbox_routing_key},
		{event_partition_key, outbox_partition_key},
	};

	for (int i = 0; i < (int) lengthof(columns); i++)
		copy_row_column(values, nulls, columns[i][0], slot, columns[i][1]);
	if (nulls[event_aggregate_id])
		copy_row_column(values, nulls, event_aggregate_id, slot, outbox_saga_id);
}

static void
fill_row_from_state(const SagazStates *states, const SagazEventState *state,
					Datum *values, bool *nulls)
{
	values[event_status] = sagaz_event_status_value(state->status);
	set_row_time(values, nulls, event_claimed_at, state->claimed_at);
	set_row_time(values, nulls, event_sent_at, state->sent_at);
	values[event_retry_count] = Int32GetDatum(state->retry_count);
	set_row_text(values, nulls, event_last_error, state->last_error);
	set_row_text(values, nulls, event_worker_id, state->worker_id);
	values[event_batch_id] = Int64GetDatum(state->batch_id);
	nulls[event_batch_id] = state->batch_id == 0 ||
		(state->status != EVENT_CLAIMED && state->status != EVENT_SENT);
}

/* The columns of outbox_archive begin with those of the record. */
static void
fill_row_from_archive(TupleTableSlot *slot, Datum *values, bool *nulls)
{
	for (int i = 0; i < event_record_columns; i++)
		copy_row_column(values, nulls, i, slot, i + 1);
	nulls[event_batch_id] = true;
}

/*
 * Fill in event_columns values; what is not copied from the event's slot is
 * palloc'd.
 */
void
sagaz_event_row(const SagazStates *states, const SagazFoundEvent *event,
				Datum *values, bool *nulls)
{
	memset(nulls, 0, event_columns * sizeof(bool));
	if (event->archived)
		fill_row_from_archive(event->slot, values, nulls);
	else
	{
		fill_row_from_log(event->slot, values, nulls);
		fill_row_from_state(states, &event->state, values, nulls);
	}
	set_row_text(values, nulls, event_consumer_group, states->group.name);
}
