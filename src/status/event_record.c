/*
 * event_record.c
 *		Rows of events as records of storages.
 */
#include "lib/sagaz.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "status/event_record.h"
#include "status/event_scan.h"
#include "outbox/outbox.h"
#include "saga/saga.h"
#include "lib/tuples.h"

static char *
record_text_at(const Datum *values, const bool *nulls, int column)
{
	return nulls[column] ? NULL : TextDatumGetCString(values[column]);
}

static TimestampTz
record_time_at(const Datum *values, const bool *nulls, int column)
{
	return nulls[column] ? 0 :
		sagaz_record_time(DatumGetTimestampTz(values[column]));
}

/* From the columns of type outbox_event; the record owns all of it. */
void
sagaz_event_of_columns(const Datum *values, const bool *nulls, SagazEvent *event)
{
	event->event_id =
		DatumGetCString(DirectFunctionCall1(uuid_out, values[event_event_id]));
	event->saga_id = record_text_at(values, nulls, event_saga_id);
	event->aggregate_type = record_text_at(values, nulls, event_aggregate_type);
	event->aggregate_id = record_text_at(values, nulls, event_aggregate_id);
	event->event_type = record_text_at(values, nulls, event_event_type);
	event->payload = DatumGetJsonbPCopy(values[event_payload]);
	event->headers = DatumGetJsonbPCopy(values[event_headers]);
	if (!nulls[event_status])
		event->status = unconstify(char *, saga_status_word(DatumGetObjectId(values[event_status])));
	event->created_at = record_time_at(values, nulls, event_created_at);
	event->claimed_at = record_time_at(values, nulls, event_claimed_at);
	event->sent_at = record_time_at(values, nulls, event_sent_at);
	event->retry_count = nulls[event_retry_count] ? 0 :
		DatumGetInt32(values[event_retry_count]);
	event->last_error = record_text_at(values, nulls, event_last_error);
	event->worker_id = record_text_at(values, nulls, event_worker_id);
	event->routing_key = record_text_at(values, nulls, event_routing_key);
	event->partition_key = record_text_at(values, nulls, event_partition_key);
}

/* From a row of the log, as if nobody had claimed it. */
void
sagaz_event_of_log(TupleTableSlot *row, SagazEvent *event)
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
		{event_partition_key, outbox_partition_key}
	};
	Datum		values[event_columns];
	bool		nulls[event_columns];

	memset(nulls, true, sizeof(nulls));
	for (int i = 0; i < (int) lengthof(columns); i++)
	{
		values[columns[i][0]] = sagaz_column(row, columns[i][1]);
		nulls[columns[i][0]] = sagaz_column_is_null(row, columns[i][1]);
	}
	sagaz_event_of_columns(values, nulls, event);
	event->status = "pending";
}
