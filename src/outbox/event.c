/*
 * event.c
 *		Rows of the log, and events as rows.
 */
#include "lib/sagaz.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "lib/words.h"
#include "outbox/event.h"
#include "outbox/outbox.h"

/*
 * The event of that id, NULL if the snapshot has none in the log.  *scan is
 * opened at the first call and serves the next ones, too; the row stays valid
 * until then.
 */
TupleTableSlot *
sagaz_event_fetch(SagazScan **scan, Datum event_id, Snapshot snapshot)
{
	ScanKeyData key;

	sagaz_key_uuid(&key, 1, event_id);
	return sagaz_scan_probe(scan, "outbox", "outbox_event_id", snapshot, &key, 1);
}

/* The error that the log has no event of that id. */
void
sagaz_event_no_such(Datum event_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_NOT_FOUND),
			 errmsg("event %s is not in the outbox",
					DatumGetCString(DirectFunctionCall1(uuid_out, event_id)))));
}

static void
set_event_row_text(Datum *values, bool *nulls, int column, const char *text)
{
	nulls[column] = text == NULL;
	if (text)
		values[column] = CStringGetTextDatum(text);
}

/* A time as records have it: see sagaz_real_time(). */
static void
set_event_row_time(Datum *values, bool *nulls, int column, TimestampTz time)
{
	nulls[column] = time == 0;
	values[column] = TimestampTzGetDatum(sagaz_real_time(time));
}

/*
 * The columns of a record that the log has: as of an event that nobody has
 * claimed yet, but the status is left to the caller.
 */
void
sagaz_event_row_of_log(TupleTableSlot *event, Datum *values, bool *nulls)
{
	static const int columns[event_record_columns] = {
		[event_event_id] = outbox_event_id,
		[event_saga_id] = outbox_saga_id,
		[event_aggregate_type] = outbox_aggregate_type,
		[event_aggregate_id] = outbox_aggregate_id,
		[event_event_type] = outbox_event_type,
		[event_payload] = outbox_payload,
		[event_headers] = outbox_headers,
		[event_created_at] = outbox_created_at,
		[event_routing_key] = outbox_routing_key,
		[event_partition_key] = outbox_partition_key,
	};

	for (int i = 0; i < event_record_columns; i++)
	{
		nulls[i] = columns[i] == 0 || sagaz_column_is_null(event, columns[i]);
		values[i] = nulls[i] ? (Datum) 0 : sagaz_column(event, columns[i]);
	}
	if (nulls[event_aggregate_id])
		values[event_aggregate_id] = values[event_saga_id];
	nulls[event_aggregate_id] = false;
	values[event_retry_count] = Int32GetDatum(0);
	nulls[event_retry_count] = false;
}

/* The columns of a record that the log has not. */
void
sagaz_event_row_set_state(const SagazEventState *state, Datum *values,
						  bool *nulls)
{
	values[event_status] = sagaz_event_status_value(state->status);
	nulls[event_status] = false;
	set_event_row_time(values, nulls, event_claimed_at, state->claimed_at);
	set_event_row_time(values, nulls, event_sent_at, state->sent_at);
	values[event_retry_count] = Int32GetDatum(state->retry_count);
	set_event_row_text(values, nulls, event_last_error, state->last_error);
	set_event_row_text(values, nulls, event_worker_id, state->worker_id);
}

/* All columns of a record, which has been checked. */
void
sagaz_event_row_of_record(const SagazEvent *event, Datum event_id,
						  Datum *values, bool *nulls)
{
	memset(nulls, false, event_record_columns * sizeof(bool));
	values[event_event_id] = event_id;
	set_event_row_text(values, nulls, event_saga_id, event->saga_id);
	set_event_row_text(values, nulls, event_aggregate_type, event->aggregate_type);
	set_event_row_text(values, nulls, event_aggregate_id,
					   event->aggregate_id ? event->aggregate_id : event->saga_id);
	set_event_row_text(values, nulls, event_event_type, event->event_type);
	values[event_payload] = JsonbPGetDatum(event->payload);
	values[event_headers] = JsonbPGetDatum(event->headers);
	values[event_status] =
		ObjectIdGetDatum(saga_status_word_oid(&event_statuses, event->status));
	set_event_row_time(values, nulls, event_created_at, event->created_at);
	set_event_row_time(values, nulls, event_claimed_at, event->claimed_at);
	set_event_row_time(values, nulls, event_sent_at, event->sent_at);
	values[event_retry_count] = Int32GetDatum(event->retry_count);
	set_event_row_text(values, nulls, event_last_error, event->last_error);
	set_event_row_text(values, nulls, event_worker_id, event->worker_id);
	set_event_row_text(values, nulls, event_routing_key, event->routing_key);
	set_event_row_text(values, nulls, event_partition_key, event->partition_key);
}

static char *
event_text_at(const Datum *values, const bool *nulls, int column)
{
	return nulls[column] ? NULL : TextDatumGetCString(values[column]);
}

static TimestampTz
event_time_at(const Datum *values, const bool *nulls, int column)
{
	return nulls[column] ? 0 :
		sagaz_record_time(DatumGetTimestampTz(values[column]));
}

/* A row as a record, which owns all of it. */
void
sagaz_event_of_row(const Datum *values, const bool *nulls, SagazEvent *event)
{
	event->event_id =
		DatumGetCString(DirectFunctionCall1(uuid_out, values[event_event_id]));
	event->saga_id = event_text_at(values, nulls, event_saga_id);
	event->aggregate_type = event_text_at(values, nulls, event_aggregate_type);
	event->aggregate_id = event_text_at(values, nulls, event_aggregate_id);
	event->event_type = event_text_at(values, nulls, event_event_type);
	event->payload = DatumGetJsonbPCopy(values[event_payload]);
	event->headers = DatumGetJsonbPCopy(values[event_headers]);
	if (!nulls[event_status])
		event->status = unconstify(char *, saga_status_word(DatumGetObjectId(values[event_status])));
	event->created_at = event_time_at(values, nulls, event_created_at);
	event->claimed_at = event_time_at(values, nulls, event_claimed_at);
	event->sent_at = event_time_at(values, nulls, event_sent_at);
	event->retry_count = nulls[event_retry_count] ? 0 :
		DatumGetInt32(values[event_retry_count]);
	event->last_error = event_text_at(values, nulls, event_last_error);
	event->worker_id = event_text_at(values, nulls, event_worker_id);
	event->routing_key = event_text_at(values, nulls, event_routing_key);
	event->partition_key = event_text_at(values, nulls, event_partition_key);
}

/* A row of the log as a record, as if nobody had claimed it. */
void
sagaz_event_of_log(TupleTableSlot *row, SagazEvent *event)
{
	Datum		values[event_record_columns];
	bool		nulls[event_record_columns];

	sagaz_event_row_of_log(row, values, nulls);
	sagaz_event_of_row(values, nulls, event);
	event->status = "pending";
}
