/*
 * record_read.c
 *		Records from JSON: from objects by their keys, or from arrays with the
 *		values in the order of record_wire.c.
 */
#include "backends/record/record.h"

#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "lib/times.h"

/* How a record is read. */
#define MAY_BE_ARRAY 1
#define HAS_REST 2				/* what the normal form leaves out */
#define IS_NEW 4				/* nobody has it yet */

/* One of object and values is what is read; values goes on with each field. */
typedef struct FieldReader
{
	SagazRecord *record;
	JsonbContainer *object;
	JsonbIterator *values;
	JsonbValue	value;
} FieldReader;

/* The value of a field, valid until the next; NULL where it is missing. */
static JsonbValue *
find_record_field(FieldReader *reader, const char *field)
{
	if (reader->object)
		return getKeyJsonValueFromContainer(reader->object, field, strlen(field), NULL);
	if (reader->values &&
		JsonbIteratorNext(&reader->values, &reader->value, true) == WJB_ELEM)
		return &reader->value;
	reader->values = NULL;
	return NULL;
}

/* The same, but NULL also where it is null. */
static JsonbValue *
read_record_field(FieldReader *reader, const char *field)
{
	JsonbValue *value = find_record_field(reader, field);

	return value && value->type != jbvNull ? value : NULL;
}

static char *
read_record_text(FieldReader *reader, const char *field)
{
	JsonbValue *value = read_record_field(reader, field);

	if (value == NULL)
		return NULL;
	if (value->type == jbvString)
		return pnstrdup(value->val.string.val, value->val.string.len);
	sagaz_field_complain(reader->record, psprintf("%s is not a string", field));
	return NULL;
}

static TimestampTz
read_record_time(FieldReader *reader, const char *field)
{
	char	   *text = read_record_text(reader, field);
	TimestampTz time = 0;

	if (text && !sagaz_parse_time(text, strlen(text), &time))
	{
		sagaz_field_complain(reader->record, psprintf("%s is not a time", field));
		return 0;
	}
	return text ? sagaz_record_time(time) : 0;
}

static Jsonb *
read_record_json(FieldReader *reader, const char *field)
{
	JsonbValue *value = read_record_field(reader, field);

	return value ? JsonbValueToJsonb(value) : NULL;
}

/* A JSON null stays one where a document must be. */
static Jsonb *
read_record_document(FieldReader *reader, const char *field)
{
	JsonbValue *value = find_record_field(reader, field);

	return value ? JsonbValueToJsonb(value) : NULL;
}

static int
read_record_count(FieldReader *reader, const char *field)
{
	JsonbValue *value = read_record_field(reader, field);
	bool		wrong = false;
	int			count = 0;

	if (value == NULL)
		return 0;
	if (value->type == jbvNumeric)
		count = numeric_int4_opt_error(value->val.numeric, &wrong);
	if (value->type != jbvNumeric || wrong || count < 0)
		sagaz_field_complain(reader->record, psprintf("%s is not a count", field));
	return count;
}

static int64
read_record_version(FieldReader *reader)
{
	JsonbValue *value = read_record_field(reader, "version");
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
	sagaz_field_complain(reader->record, "version is not a version");
	return 1;
}

static void
read_saga_record(FieldReader *reader, SagazSaga *saga)
{
	saga->saga_id = read_record_text(reader, "saga_id");
	saga->saga_name = read_record_text(reader, "saga_name");
	saga->status = read_record_text(reader, "status");
	saga->steps = read_record_document(reader, "steps");
	saga->context = read_record_document(reader, "context");
	saga->metadata = read_record_json(reader, "metadata");
	saga->created_at = read_record_time(reader, "created_at");
	saga->updated_at = read_record_time(reader, "updated_at");
}

static void
read_event_record(FieldReader *reader, SagazEvent *event)
{
	event->event_id = read_record_text(reader, "event_id");
	event->saga_id = read_record_text(reader, "saga_id");
	event->aggregate_type = read_record_text(reader, "aggregate_type");
	event->aggregate_id = read_record_text(reader, "aggregate_id");
	event->event_type = read_record_text(reader, "event_type");
	event->payload = read_record_document(reader, "payload");
	event->headers = read_record_json(reader, "headers");
	event->status = read_record_text(reader, "status");
	event->created_at = read_record_time(reader, "created_at");
	event->claimed_at = read_record_time(reader, "claimed_at");
	event->sent_at = read_record_time(reader, "sent_at");
	event->retry_count = read_record_count(reader, "retry_count");
	event->last_error = read_record_text(reader, "last_error");
	event->worker_id = read_record_text(reader, "worker_id");
	event->routing_key = read_record_text(reader, "routing_key");
	event->partition_key = read_record_text(reader, "partition_key");
}

static void
begin_reading(FieldReader *reader, Jsonb *json)
{
	if (JB_ROOT_IS_OBJECT(json))
		reader->object = &json->root;
	else
	{
		reader->values = JsonbIteratorInit(&json->root);
		(void) JsonbIteratorNext(&reader->values, &reader->value, true);
	}
}

static void
read_record_fields(FieldReader *reader, SagazRecord *record)
{
	if (record->kind == SAGAZ_SAGA)
		read_saga_record(reader, &record->saga);
	else
		read_event_record(reader, &record->event);
}

/* What the normal form leaves out. */
static void
read_rest(FieldReader *reader, SagazRecord *record)
{
	if (record->kind == SAGAZ_SAGA)
		record->saga.version = read_record_version(reader);
	else
	{
		record->event.lease_until = read_record_time(reader, "lease_until");
		record->event.next_attempt_at = read_record_time(reader, "next_attempt_at");
	}
}

/* One that somebody makes is made now, unless he says when. */
static void
date_new_record(SagazRecord *record)
{
	TimestampTz *created_at = record->kind == SAGAZ_SAGA ?
		&record->saga.created_at : &record->event.created_at;

	if (*created_at == 0)
		*created_at = record->kind == SAGAZ_SAGA && record->saga.updated_at ?
			record->saga.updated_at : sagaz_record_time(GetCurrentTimestamp());
}

static void
read_record(SagazKind kind, Jsonb *json, SagazRecord *record, int how)
{
	FieldReader reader = {.record = record};

	memset(record, 0, sizeof(SagazRecord));
	record->kind = kind;
	if (!JB_ROOT_IS_OBJECT(json) &&
		!((how & MAY_BE_ARRAY) && JB_ROOT_IS_ARRAY(json) && !JB_ROOT_IS_SCALAR(json)))
	{
		record->problem = "it is not an object";
		return;
	}
	begin_reading(&reader, json);
	read_record_fields(&reader, record);
	if (how & HAS_REST)
		read_rest(&reader, record);
	if (how & IS_NEW)
		date_new_record(record);
	sagaz_record_check(record);
}

/* Read a record as sagaz_record_to_json() writes it; check it, too. */
void
sagaz_record_from_json(SagazKind kind, Jsonb *json, SagazRecord *record)
{
	read_record(kind, json, record, 0);
}

/* The same, as one that somebody puts. */
void
sagaz_record_from_new(SagazKind kind, Jsonb *json, SagazRecord *record)
{
	read_record(kind, json, record, IS_NEW);
}

/* And in either form. */
void
sagaz_record_from_any_new(SagazKind kind, Jsonb *json, SagazRecord *record)
{
	read_record(kind, json, record, IS_NEW | MAY_BE_ARRAY);
}

/* Read it in either form, as one that is copied: with all that it has. */
void
sagaz_record_from_wire(SagazKind kind, Jsonb *json, SagazRecord *record)
{
	read_record(kind, json, record, MAY_BE_ARRAY | HAS_REST);
}
