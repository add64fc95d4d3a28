/*
 * record_wire.c
 *		Records as JSON text for the sagaz at the other end.
 *
 * The keys are those of the normal form, the values as they are stored, and
 * what the normal form leaves out comes on top: version, lease_until,
 * next_attempt_at.  The text is written as it goes, for copies do little else.
 */
#include "record.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/numeric.h"

#include "times.h"

static void
add_key(StringInfo text, const char *key)
{
	if (text->data[text->len - 1] != '{')
		appendStringInfoChar(text, ',');
	appendStringInfoChar(text, '"');
	appendStringInfoString(text, key);
	appendStringInfoString(text, "\":");
}

/* Keys that have no value are left out. */
static void
add_string(StringInfo text, const char *key, const char *value)
{
	if (value == NULL)
		return;
	add_key(text, key);
	escape_json(text, value);
}

static void
add_json(StringInfo text, const char *key, Jsonb *json)
{
	if (json == NULL)
		return;
	add_key(text, key);
	(void) JsonbToCString(text, &json->root, VARSIZE(json));
}

static void
add_time(StringInfo text, const char *key, TimestampTz time)
{
	char		buffer[SAGAZ_TIME_SIZE];

	if (time == 0)
		return;
	(void) sagaz_format_time(sagaz_real_time(time), buffer);
	add_key(text, key);
	appendStringInfo(text, "\"%s\"", buffer);
}

static void
add_number(StringInfo text, const char *key, int64 number)
{
	if (number == 0)
		return;
	add_key(text, key);
	appendStringInfo(text, INT64_FORMAT, number);
}

static void
add_saga(StringInfo text, const SagazSaga *saga)
{
	add_string(text, "saga_id", saga->saga_id);
	add_string(text, "saga_name", saga->saga_name);
	add_string(text, "status", saga->status);
	add_json(text, "steps", saga->steps);
	add_json(text, "context", saga->context);
	add_json(text, "metadata", saga->metadata);
	add_time(text, "created_at", saga->created_at);
	add_time(text, "updated_at", saga->updated_at);
	add_number(text, "version", saga->version);
}

static void
add_event(StringInfo text, const SagazEvent *event)
{
	add_string(text, "event_id", event->event_id);
	add_string(text, "saga_id", event->saga_id);
	add_string(text, "aggregate_type", event->aggregate_type);
	add_string(text, "aggregate_id", event->aggregate_id);
	add_string(text, "event_type", event->event_type);
	add_json(text, "payload", event->payload);
	add_json(text, "headers", event->headers);
	add_string(text, "status", event->status);
	add_time(text, "created_at", event->created_at);
	add_time(text, "claimed_at", event->claimed_at);
	add_time(text, "sent_at", event->sent_at);
	add_number(text, "retry_count", event->retry_count);
	add_string(text, "last_error", event->last_error);
	add_string(text, "worker_id", event->worker_id);
	add_string(text, "routing_key", event->routing_key);
	add_string(text, "partition_key", event->partition_key);
	add_time(text, "lease_until", event->lease_until);
	add_time(text, "next_attempt_at", event->next_attempt_at);
}

/* Append a record. */
void
sagaz_record_to_wire(const SagazRecord *record, StringInfo text)
{
	appendStringInfoChar(text, '{');
	if (record->kind == SAGAZ_SAGA)
		add_saga(text, &record->saga);
	else
		add_event(text, &record->event);
	appendStringInfoChar(text, '}');
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

/* ---------------------------------------------------------------------- */

static JsonbValue *
get_value(Jsonb *json, const char *key)
{
	JsonbValue *value = getKeyJsonValueFromContainer(&json->root, key,
													 strlen(key), NULL);

	return value && value->type != jbvNull ? value : NULL;
}

static TimestampTz
get_time(Jsonb *json, const char *key, SagazRecord *record)
{
	JsonbValue *value = get_value(json, key);
	TimestampTz time = 0;

	if (value == NULL)
		return 0;
	if (value->type == jbvString &&
		sagaz_parse_time(value->val.string.val, value->val.string.len, &time))
		return sagaz_record_time(time);
	sagaz_complain(record, psprintf("%s is not a time", key));
	return 0;
}

static int64
get_version(Jsonb *json, SagazRecord *record)
{
	JsonbValue *value = get_value(json, "version");
	char	   *text;
	char	   *end;
	int64		version;

	if (value == NULL)
		return 1;
	if (value->type == jbvNumeric)
	{
		text = DatumGetCString(DirectFunctionCall1(numeric_out,
												   NumericGetDatum(value->val.numeric)));
		errno = 0;
		version = strtoll(text, &end, 10);
		if (errno == 0 && *end == '\0' && version > 0)
			return version;
	}
	sagaz_complain(record, "version is not a version");
	return 1;
}

/* Read a record, as sagaz_record_from_json() does, with what is on top. */
void
sagaz_record_from_wire(SagazKind kind, Jsonb *json, SagazRecord *record)
{
	sagaz_record_from_json(kind, json, record);
	if (!JB_ROOT_IS_OBJECT(json))
		return;
	if (kind == SAGAZ_SAGA)
		record->saga.version = get_version(json, record);
	else
	{
		record->event.lease_until = get_time(json, "lease_until", record);
		record->event.next_attempt_at = get_time(json, "next_attempt_at", record);
	}
}
