/*
 * insert.c
 *		insert_event() and insert_events(): into the log without SPI.
 *
 * The same row comes about as by an INSERT into sagaz.emit: next_seq() makes
 * sure that the transaction has its xid before the place is drawn.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "storage/calls.h"
#include "backends/record/bounds.h"
#include "outbox/outbox.h"
#include "outbox/place_number.h"
#include "storage/secrets.h"
#include "storage/storage.h"
#include "lib/times.h"
#include "lib/tuples.h"
#include "lib/uuid.h"

PG_FUNCTION_INFO_V1(sagaz_is_event);

/* An event to insert; NULL and 0 stand for what was left out. */
typedef struct InsertedEvent
{
	text	   *saga_id;
	text	   *event_type;
	Jsonb	   *payload;
	text	   *aggregate_type;
	text	   *aggregate_id;
	Jsonb	   *headers;
	text	   *routing_key;
	text	   *partition_key;
	pg_uuid_t  *event_id;
	TimestampTz available_at;
	TimestampTz created_at;		/* only where SQL chose it */
} InsertedEvent;

/* Where events go: the log, or records for another storage. */
typedef struct Sink
{
	SagazWriter *writer;		/* NULL if there is a store */
	SagazStore *store;
	SagazRecord *records;
	int			nrecords;
} Sink;

static void
required(bool present, const char *field)
{
	if (!present)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("%s must be given", field)));
}

static void
not_empty(const text *value, const char *field)
{
	if (value && VARSIZE_ANY_EXHDR(value) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("%s must not be empty", field)));
}

static void
within_bounds(char *complaint)
{
	if (complaint)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT), errmsg_internal("%s", complaint)));
}

static void
not_long(const text *value, const char *field)
{
	if (value)
		within_bounds(sagaz_bounds_of_text(field, VARSIZE_ANY_EXHDR(value)));
}

static void
not_large(const Jsonb *value, const char *field)
{
	if (value)
		within_bounds(sagaz_bounds_of_json(field, value));
}

/* What neither NOT NULL nor the type of a column says. */
static void
check_values_to_insert(const InsertedEvent *event)
{
	not_empty(event->event_type, "event_type");
	not_empty(event->aggregate_type, "aggregate_type");
	if (event->headers && !JB_ROOT_IS_OBJECT(event->headers))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("headers must be a JSON object")));
	not_long(event->saga_id, "saga_id");
	not_long(event->event_type, "event_type");
	not_long(event->aggregate_type, "aggregate_type");
	not_long(event->aggregate_id, "aggregate_id");
	not_long(event->routing_key, "routing_key");
	not_long(event->partition_key, "partition_key");
	not_large(event->payload, "payload");
	not_large(event->headers, "headers");
	within_bounds(sagaz_bounds_of_time("available_at", event->available_at));
	within_bounds(sagaz_bounds_of_time("created_at", event->created_at));
}

static void
check_event_to_insert(const InsertedEvent *event)
{
	required(event->saga_id != NULL, "saga_id");
	required(event->event_type != NULL, "event_type");
	required(event->payload != NULL, "payload");
	not_empty(event->saga_id, "saga_id");
	check_values_to_insert(event);
}

static Datum
empty_object(void)
{
	static Jsonb *empty = NULL;

	if (empty == NULL)
	{
		empty = MemoryContextAlloc(TopMemoryContext, VARHDRSZ + sizeof(uint32));
		SET_VARSIZE(empty, VARHDRSZ + sizeof(uint32));
		empty->root.header = JB_FOBJECT;
	}
	return PointerGetDatum(empty);
}

static void
insert_optional(SagazWriter *writer, int attnum, const void *value)
{
	if (value)
		sagaz_writer_set(writer, attnum, PointerGetDatum(value));
}

/* Make the writer's next row of a checked event and return its id. */
static pg_uuid_t *
make_row_to_insert(SagazWriter *writer, InsertedEvent *event)
{
	int64		seq;

	if (event->event_id == NULL)
	{
		event->event_id = palloc(sizeof(pg_uuid_t));
		sagaz_uuid_make(event->event_id);
	}
	sagaz_writer_row(writer);
	seq = sagaz_draw_place_number();
	sagaz_writer_set(writer, outbox_pos,
					 UInt64GetDatum(U64FromFullTransactionId(GetTopFullTransactionId())));
	sagaz_writer_set(writer, outbox_seq, Int64GetDatum(seq));
	sagaz_writer_set(writer, outbox_created_at,
					 TimestampTzGetDatum(GetCurrentTimestamp()));
	sagaz_writer_set(writer, outbox_event_id, UUIDPGetDatum(event->event_id));
	sagaz_writer_set(writer, outbox_lane,
					 Int16GetDatum(sagaz_lane_of(VARDATA_ANY(event->saga_id),
												 VARSIZE_ANY_EXHDR(event->saga_id))));
	insert_optional(writer, outbox_saga_id, event->saga_id);
	sagaz_writer_set(writer, outbox_aggregate_type,
					 event->aggregate_type ?
					 PointerGetDatum(event->aggregate_type) :
					 CStringGetTextDatum("saga"));
	insert_optional(writer, outbox_aggregate_id, event->aggregate_id);
	insert_optional(writer, outbox_event_type, event->event_type);
	insert_optional(writer, outbox_payload, event->payload);
	sagaz_writer_set(writer, outbox_headers,
					 event->headers ? JsonbPGetDatum(event->headers) :
					 empty_object());
	insert_optional(writer, outbox_routing_key, event->routing_key);
	insert_optional(writer, outbox_partition_key, event->partition_key);
	if (event->available_at != 0)
		sagaz_writer_set(writer, outbox_available_at,
						 TimestampTzGetDatum(event->available_at));
	return event->event_id;
}

static char *
cstring_of(const text *value)
{
	return value ? text_to_cstring(value) : NULL;
}

static Jsonb *
copy_json(const Jsonb *json)
{
	Jsonb	   *copy = palloc(VARSIZE(json));

	memcpy(copy, json, VARSIZE(json));
	return copy;
}

/*
 * A storage that keeps no positions goes by created_at, so a session's events
 * get a later time each, however fast they come.  A clock that was set back is
 * followed.
 */
static TimestampTz
next_insert_time(void)
{
	static TimestampTz last = 0;
	TimestampTz now = GetCurrentTimestamp();

	last = last - now > USECS_PER_SEC ? now : Max(now, last + 1);
	return last;
}

/* Make the sink's next record of a checked event and return its id. */
static pg_uuid_t *
make_record_to_insert(Sink *sink, InsertedEvent *event)
{
	SagazRecord *record = &sink->records[sink->nrecords++];

	if (event->event_id == NULL)
	{
		event->event_id = palloc(sizeof(pg_uuid_t));
		sagaz_uuid_make(event->event_id);
	}
	memset(record, 0, sizeof(SagazRecord));
	record->kind = SAGAZ_EVENT;
	record->event.event_id =
		DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(event->event_id)));
	record->event.saga_id = cstring_of(event->saga_id);
	record->event.aggregate_type = event->aggregate_type ?
		cstring_of(event->aggregate_type) : "saga";
	record->event.aggregate_id = cstring_of(event->aggregate_id);
	record->event.event_type = cstring_of(event->event_type);
	record->event.payload = copy_json(event->payload);
	record->event.headers = event->headers ? copy_json(event->headers) :
		DatumGetJsonbP(empty_object());
	record->event.status = "pending";
	record->event.created_at = next_insert_time();
	record->event.routing_key = cstring_of(event->routing_key);
	record->event.partition_key = cstring_of(event->partition_key);
	record->event.next_attempt_at = event->available_at;
	return event->event_id;
}

static Sink
open_insert_sink(FunctionCallInfo fcinfo, int max_events)
{
	Sink		sink = {0};

	sink.store = sagaz_storage_argument(fcinfo, SAGAZ_EVENT);
	if (sink.store)
		sink.records = palloc(max_events * sizeof(SagazRecord));
	else
		sink.writer = sagaz_writer_begin("outbox");
	return sink;
}

static void
close_insert_sink(Sink *sink)
{
	if (sink->store)
		(void) sagaz_put(sink->store, sink->records, sink->nrecords,
						 SAGAZ_PUT_NEW);
	else
		sagaz_writer_end(sink->writer);
}

static text *
text_at(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : PG_GETARG_TEXT_PP(argno);
}

/*
 * is_event(event_type, aggregate_type, headers, available_at, created_at, saga_id,
 * aggregate_id, routing_key, partition_key, payload)
 */
Datum
sagaz_is_event(PG_FUNCTION_ARGS)
{
	InsertedEvent	event = {0};

	event.event_type = text_at(fcinfo, 0);
	event.aggregate_type = text_at(fcinfo, 1);
	event.headers = PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2);
	event.available_at = PG_ARGISNULL(3) ? 0 : PG_GETARG_TIMESTAMPTZ(3);
	event.created_at = PG_ARGISNULL(4) ? 0 : PG_GETARG_TIMESTAMPTZ(4);
	event.saga_id = text_at(fcinfo, 5);
	event.aggregate_id = text_at(fcinfo, 6);
	event.routing_key = text_at(fcinfo, 7);
	event.partition_key = text_at(fcinfo, 8);
	event.payload = PG_ARGISNULL(9) ? NULL : PG_GETARG_JSONB_P(9);
	check_values_to_insert(&event);
	PG_RETURN_BOOL(true);
}

static Datum
insert_event(FunctionCallInfo fcinfo)
{
	InsertedEvent	event = {0};
	Sink		sink;
	Datum		value;

	event.saga_id = text_at(fcinfo, 0);
	event.event_type = text_at(fcinfo, 1);
	event.payload = PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2);
	event.aggregate_type = text_at(fcinfo, 3);
	event.aggregate_id = text_at(fcinfo, 4);
	event.headers = PG_ARGISNULL(5) ? NULL : PG_GETARG_JSONB_P(5);
	event.routing_key = text_at(fcinfo, 6);
	event.partition_key = text_at(fcinfo, 7);
	event.event_id = PG_ARGISNULL(8) ? NULL : PG_GETARG_UUID_P(8);
	event.available_at = PG_ARGISNULL(9) ? 0 : PG_GETARG_TIMESTAMPTZ(9);
	check_event_to_insert(&event);

	sink = open_insert_sink(fcinfo, 1);
	if (sink.store && sagaz_remote_call(fcinfo, sink.store, &value))
		return value;
	if (sink.store)
		(void) make_record_to_insert(&sink, &event);
	else
	{
		(void) make_row_to_insert(sink.writer, &event);
		sagaz_writer_insert(sink.writer);
	}
	close_insert_sink(&sink);
	PG_RETURN_UUID_P(event.event_id);
}

/*
 * insert_event(saga_id, event_type, payload, aggregate_type, aggregate_id,
 *				headers, routing_key, partition_key, event_id, available_at,
 *				storage)
 */
SAGAZ_SQL_FUNCTION(sagaz_insert_event, sagaz_secrets_hide_storage, insert_event);

/* A value of insert_events(): a text, or NULL for null. */
static text *
json_text(JsonbValue *value, const char *field)
{
	if (value->type == jbvNull)
		return NULL;
	if (value->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("%s must be a JSON string", field)));
	return cstring_to_text_with_len(value->val.string.val,
									value->val.string.len);
}

static pg_uuid_t *
json_uuid(JsonbValue *value)
{
	text	   *string = json_text(value, "event_id");
	pg_uuid_t  *volatile uuid = NULL;
	MemoryContext context = CurrentMemoryContext;

	if (string == NULL)
		return NULL;
	PG_TRY();
	{
		uuid = DatumGetUUIDP(DirectFunctionCall1(uuid_in,
												 CStringGetDatum(text_to_cstring(string))));
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("event_id \"%s\" is not a UUID", text_to_cstring(string))));
	}
	PG_END_TRY();
	return uuid;
}

static TimestampTz
json_time(JsonbValue *value)
{
	text	   *string = json_text(value, "available_at");
	TimestampTz time = 0;

	if (string && !sagaz_parse_time(VARDATA_ANY(string),
									VARSIZE_ANY_EXHDR(string), &time))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("available_at \"%s\" is not a time",
						text_to_cstring(string)),
				 errhint("Write it like 2026-01-31T12:00:00Z; without an offset it is UTC.")));
	return time;
}

/* Put one key of an object of insert_events() where it belongs. */
static void
read_insert_key(InsertedEvent *event, const char *key, JsonbValue *value)
{
	static const struct
	{
		const char *key;
		size_t		offset;
	}			texts[] =
	{
		{"saga_id", offsetof(InsertedEvent, saga_id)},
		{"event_type", offsetof(InsertedEvent, event_type)},
		{"aggregate_type", offsetof(InsertedEvent, aggregate_type)},
		{"aggregate_id", offsetof(InsertedEvent, aggregate_id)},
		{"routing_key", offsetof(InsertedEvent, routing_key)},
		{"partition_key", offsetof(InsertedEvent, partition_key)},
	};

	for (int i = 0; i < (int) lengthof(texts); i++)
		if (strcmp(key, texts[i].key) == 0)
		{
			*(text **) ((char *) event + texts[i].offset) = json_text(value, key);
			return;
		}
	if (strcmp(key, "payload") == 0)
		event->payload = JsonbValueToJsonb(value);
	else if (strcmp(key, "headers") == 0)
		event->headers = value->type == jbvNull ? NULL : JsonbValueToJsonb(value);
	else if (strcmp(key, "event_id") == 0)
		event->event_id = json_uuid(value);
	else if (strcmp(key, "available_at") == 0)
		event->available_at = json_time(value);
	else
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("unknown key \"%s\" in events", key),
				 errhint("Keys are saga_id, event_type, payload, aggregate_type, aggregate_id, headers, routing_key, partition_key, event_id and available_at.")));
}

/* Read the object that the iterator has just entered, up to its end. */
static void
read_insert_object(JsonbIterator **iterator, InsertedEvent *event)
{
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	value;

	memset(event, 0, sizeof(InsertedEvent));
	while ((token = JsonbIteratorNext(iterator, &key, false)) == WJB_KEY)
	{
		(void) JsonbIteratorNext(iterator, &value, true);
		read_insert_key(event, pnstrdup(key.val.string.val, key.val.string.len),
						&value);
	}
}

/* The element being read; 0 while rows are written. */
static int	event_number_context;

static void
say_which_insert(void *arg)
{
	if (*(int *) arg > 0)
		errcontext("element %d of events", *(int *) arg);
}

/* Write what is queued; a repeated event_id is named by the error itself. */
static void
write_inserted_rows(SagazWriter *writer)
{
	event_number_context = 0;
	sagaz_writer_flush(writer);
}

/* Insert the objects of an array; ids has room for all. */
static int
insert_array(Jsonb *events, Sink *sink, Datum *ids)
{
	JsonbIterator *iterator = JsonbIteratorInit(&events->root);
	JsonbValue	value;
	JsonbIteratorToken token;
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext,
													  "sagaz insert",
													  ALLOCSET_DEFAULT_SIZES);
	int			count = 0;

	(void) JsonbIteratorNext(&iterator, &value, false);
	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_END_ARRAY)
	{
		InsertedEvent	event;
		MemoryContext outer;
		pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

		if (token != WJB_BEGIN_OBJECT)
			ereport(ERROR,
					(errcode(ERRCODE_SAGAZ_INPUT),
					 errmsg("events must be an array of JSON objects")));
		event_number_context = count + 1;
		ids[count++] = UUIDPGetDatum(id);
		if (sink->store)
		{
			read_insert_object(&iterator, &event);
			check_event_to_insert(&event);
			*id = *make_record_to_insert(sink, &event);
			continue;
		}
		outer = MemoryContextSwitchTo(row_context);
		read_insert_object(&iterator, &event);
		check_event_to_insert(&event);
		*id = *make_row_to_insert(sink->writer, &event);
		sagaz_writer_queue(sink->writer);
		MemoryContextSwitchTo(outer);
		MemoryContextReset(row_context);
		if (sink->writer->queued == SAGAZ_WRITER_QUEUE)
			write_inserted_rows(sink->writer);
	}
	if (sink->writer)
		write_inserted_rows(sink->writer);
	MemoryContextDelete(row_context);
	return count;
}

static Datum
insert_events(FunctionCallInfo fcinfo)
{
	Jsonb	   *events = DatumGetJsonbP(sagaz_argument(fcinfo, 0, "events"));
	Datum	   *ids;
	int			count;
	Sink		sink;
	Datum		value;
	ErrorContextCallback context;

	if (!JB_ROOT_IS_ARRAY(events) || JB_ROOT_IS_SCALAR(events))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("events must be an array of JSON objects")));
	ids = palloc((JB_ROOT_COUNT(events) + 1) * sizeof(Datum));
	sink = open_insert_sink(fcinfo, JB_ROOT_COUNT(events) + 1);
	if (sink.store && sagaz_remote_call(fcinfo, sink.store, &value))
		return value;
	event_number_context = 1;
	context.callback = say_which_insert;
	context.arg = &event_number_context;
	context.previous = error_context_stack;
	error_context_stack = &context;
	count = insert_array(events, &sink, ids);
	error_context_stack = context.previous;
	close_insert_sink(&sink);
	PG_RETURN_ARRAYTYPE_P(construct_array(ids, count, UUIDOID, UUID_LEN, false,
										  TYPALIGN_CHAR));
}

/* insert_events(events, storage): the ids, in the order of the array */
SAGAZ_SQL_FUNCTION(sagaz_insert_events, sagaz_secrets_hide_storage, insert_events);
