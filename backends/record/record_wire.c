/*
 * record_wire.c
 *		Records as JSON text for the sagaz at the other end.
 *
 * A record is an array of values as they are stored, for names would take
 * longer to read than what they name; what the normal form leaves out comes
 * last.  record_read.c asks for the values in the same order.
 */
#include "backends/record/record.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/numeric.h"

#include "lib/times.h"

/* Begin a value; false, and it is null, where there is none. */
static bool
begin_wire_value(StringInfo text, bool is_there)
{
	if (text->data[text->len - 1] != '[')
		appendStringInfoChar(text, ',');
	if (!is_there)
		appendStringInfoString(text, "null");
	return is_there;
}

static void
wire_string(StringInfo text, const char *value)
{
	if (begin_wire_value(text, value != NULL))
		escape_json(text, value);
}

static void
wire_json(StringInfo text, Jsonb *json)
{
	if (begin_wire_value(text, json != NULL))
		(void) JsonbToCString(text, &json->root, VARSIZE(json));
}

static void
wire_time(StringInfo text, TimestampTz time)
{
	char		buffer[SAGAZ_TIME_SIZE];

	if (!begin_wire_value(text, time != 0))
		return;
	(void) sagaz_format_time(sagaz_real_time(time), buffer);
	appendStringInfoChar(text, '"');
	appendStringInfoString(text, buffer);
	appendStringInfoChar(text, '"');
}

static void
wire_number(StringInfo text, int64 number)
{
	if (begin_wire_value(text, number != 0))
		appendStringInfo(text, INT64_FORMAT, number);
}

static void
wire_saga(StringInfo text, const SagazSaga *saga)
{
	wire_string(text, saga->saga_id);
	wire_string(text, saga->saga_name);
	wire_string(text, saga->status);
	wire_json(text, saga->steps);
	wire_json(text, saga->context);
	wire_json(text, saga->metadata);
	wire_time(text, saga->created_at);
	wire_time(text, saga->updated_at);
	wire_number(text, saga->version);
}

static void
wire_event(StringInfo text, const SagazEvent *event)
{
	wire_string(text, event->event_id);
	wire_string(text, event->saga_id);
	wire_string(text, event->aggregate_type);
	wire_string(text, event->aggregate_id);
	wire_string(text, event->event_type);
	wire_json(text, event->payload);
	wire_json(text, event->headers);
	wire_string(text, event->status);
	wire_time(text, event->created_at);
	wire_time(text, event->claimed_at);
	wire_time(text, event->sent_at);
	wire_number(text, event->retry_count);
	wire_string(text, event->last_error);
	wire_string(text, event->worker_id);
	wire_string(text, event->routing_key);
	wire_string(text, event->partition_key);
	wire_time(text, event->lease_until);
	wire_time(text, event->next_attempt_at);
}

/* Append a record. */
void
sagaz_record_to_wire(const SagazRecord *record, StringInfo text)
{
	appendStringInfoChar(text, '[');
	if (record->kind == SAGAZ_SAGA)
		wire_saga(text, &record->saga);
	else
		wire_event(text, &record->event);
	appendStringInfoChar(text, ']');
}

/* Append records, as an array. */
void
sagaz_records_to_wire(const SagazRecord *records, int count, StringInfo text)
{
	appendStringInfoChar(text, '[');
	for (int i = 0; i < count; i++)
	{
		if (i > 0)
			appendStringInfoChar(text, ',');
		sagaz_record_to_wire(&records[i], text);
	}
	appendStringInfoChar(text, ']');
}
