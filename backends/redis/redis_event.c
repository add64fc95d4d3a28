/*
 * redis_event.c
 *		Events in Redis, as the Python library keeps them.
 *
 * An event is a hash <prefix>:meta:<event_id> of 16 texts, and has an entry
 * in the stream <prefix>:events while it is to be delivered.  What changes
 * events are scripts, so that hash, stream and the side keys of sagaz change
 * together; redis_common.lua tells of these.
 *
 * An edit reads events with a stamp, which the script that writes them
 * compares: if somebody was faster, all is done again.
 */
#include "backends/redis/redis.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "backends/record/record.h"
#include "backends/redis/redis_scripts.h"
#include "lib/times.h"

/* Entries that the stream may have where no option says: as the library. */
#define OUTBOX_LENGTH 100000

static const char *const count_event[] = {"EXISTS", NULL};
static const char *const fetch_event[] = {"HGETALL", NULL};

/* ---------------------------------------------------------------------- */
/* Reading */

static RedisScan *
redis_event_scan(RedisStore *store, const SagazFilter *filter)
{
	RedisScan  *scan = redis_scan_begin(store, psprintf("%s:meta:", store->outbox_prefix),
										fetch_event);

	if (filter->key)
		redis_scan_add_text(scan, filter->key);
	else if (filter->nkeys > 0)
		for (int i = 0; i < filter->nkeys; i++)
			redis_scan_add_text(scan, filter->keys[i]);
	else if (filter->batch_id != 0)
		redis_scan_members(scan, psprintf("%s:sagaz:batch:" INT64_FORMAT,
										  store->outbox_prefix, filter->batch_id));
	else
		redis_scan_all(scan, filter->order == SAGAZ_FOR_COPY ? "created_at" : NULL);
	if (filter->order == SAGAZ_BY_KEY)
		redis_scan_sort(scan);
	return scan;
}

typedef struct Hash
{
	const RedisReply *reply;	/* names and values */
	int			next;			/* the field behind the one last looked for */
} Hash;

/*
 * The value of a field, NULL where it is missing.  Whoever asks in the order
 * in which they were written finds each at once.
 */
static const RedisReply *
get_event_field(Hash *hash, const char *field)
{
	RedisReply **elements = hash->reply->elements;
	int			fields = hash->reply->count / 2;
	size_t		length = strlen(field);

	for (int i = 0; i < fields; i++)
	{
		int			at = 2 * ((hash->next + i) % fields);

		if (elements[at]->type == REDIS_STRING &&
			elements[at + 1]->type == REDIS_STRING &&
			elements[at]->length == length &&
			memcmp(elements[at]->str, field, length) == 0)
		{
			hash->next = at / 2 + 1;
			return elements[at + 1];
		}
	}
	return NULL;
}

/* Text; the library has empty text for none. */
static char *
get_event_text(Hash *hash, const char *field, SagazRecord *record)
{
	const RedisReply *value = get_event_field(hash, field);

	if (value == NULL || value->length == 0)
		return NULL;
	return sagaz_field_text(value->str, value->length, field, record);
}

/* Text that counts, be it empty. */
static char *
get_whole_event_text(Hash *hash, const char *field, SagazRecord *record)
{
	const RedisReply *value = get_event_field(hash, field);

	return value == NULL ? NULL :
		sagaz_field_text(value->str, value->length, field, record);
}

/* A document; the library cannot read one that is there and empty. */
static Jsonb *
get_event_json(Hash *hash, const char *field, SagazRecord *record)
{
	char	   *text = get_whole_event_text(hash, field, record);

	return text ? sagaz_field_json(text, field, record) : sagaz_record_empty_object();
}

static TimestampTz
get_event_time(Hash *hash, const char *field, SagazRecord *record)
{
	return sagaz_field_time(get_event_text(hash, field, record), field, record);
}

static int
get_event_count(Hash *hash, const char *field, SagazRecord *record)
{
	const RedisReply *value = get_event_field(hash, field);
	char	   *end;
	long		count;

	if (value == NULL)
		return 0;
	errno = 0;
	count = strtol(value->str, &end, 10);
	if (end == value->str || *end != '\0' || errno != 0 || count < 0 || count > PG_INT32_MAX)
		sagaz_field_complain(record, psprintf("%s is not a count", field));
	return (int) count;
}

static int64
get_event_number(Hash *hash, const char *field)
{
	const RedisReply *value = get_event_field(hash, field);

	return value ? strtoll(value->str, NULL, 10) : 0;
}

/* As stamp_of() of redis_write.lua has it. */
static char *
event_stamp_of(Hash *hash)
{
	static const char *const fields[] = {
		"status", "claimed_at", "sent_at", "retry_count", "worker_id",
		"sagaz:batch", "sagaz:lease", "sagaz:next"
	};
	StringInfoData stamp;

	initStringInfo(&stamp);
	for (int i = 0; i < (int) lengthof(fields); i++)
	{
		const RedisReply *value = get_event_field(hash, fields[i]);

		if (i > 0)
			appendStringInfoChar(&stamp, '\1');
		if (value)
			appendBinaryStringInfo(&stamp, value->str, value->length);
	}
	return stamp.data;
}

static void
read_event_fields(Hash *hash, SagazRecord *record)
{
	SagazEvent *event = &record->event;

	event->saga_id = get_whole_event_text(hash, "saga_id", record);
	event->aggregate_type = get_event_text(hash, "aggregate_type", record);
	event->aggregate_id = get_event_text(hash, "aggregate_id", record);
	event->event_type = get_whole_event_text(hash, "event_type", record);
	event->payload = get_event_json(hash, "payload", record);
	event->headers = get_event_json(hash, "headers", record);
	event->status = get_whole_event_text(hash, "status", record);
	if (event->status == NULL)
		event->status = "pending";
	event->retry_count = get_event_count(hash, "retry_count", record);
	event->created_at = get_event_time(hash, "created_at", record);
	event->claimed_at = get_event_time(hash, "claimed_at", record);
	event->sent_at = get_event_time(hash, "sent_at", record);
	event->last_error = get_event_text(hash, "last_error", record);
	event->worker_id = get_event_text(hash, "worker_id", record);
	event->routing_key = get_event_text(hash, "routing_key", record);
	event->partition_key = get_event_text(hash, "partition_key", record);
	event->batch_id = get_event_number(hash, "sagaz:batch");
	event->lease_until = get_event_number(hash, "sagaz:lease");
	event->next_attempt_at = get_event_number(hash, "sagaz:next");
}

/*
 * The library shows an event under the id in its hash; a hash without any it
 * shows with empty ids.
 */
bool
redis_event_read(const RedisId *id, const RedisReply *reply, RedisFound *found)
{
	SagazRecord *record = &found->record;
	Hash		hash = {reply, 0};

	/* no such key */
	if (reply->count == 0)
		return false;
	record->kind = SAGAZ_EVENT;
	record->event.event_id = sagaz_field_text(id->bytes, id->length, "event_id", record);
	read_event_fields(&hash, record);
	if (found->stamped)
		found->stamp = event_stamp_of(&hash);
	return true;
}

/* ---------------------------------------------------------------------- */
/* Writing */

static void
add_event_value(RedisCommand *command, const char *value)
{
	redis_add_text(command, value ? value : "");
}

static void
add_event_json(RedisCommand *command, Jsonb *json)
{
	add_event_value(command, JsonbToCString(NULL, &json->root, VARSIZE(json)));
}

static void
add_event_time(RedisCommand *command, TimestampTz time)
{
	char		text[SAGAZ_TIME_SIZE];

	if (time != 0)
		(void) sagaz_format_time(sagaz_real_time(time), text);
	redis_add(command, time != 0 ? pstrdup(text) : "");
}

static void
add_event_number(RedisCommand *command, int64 value)
{
	if (value == 0)
		redis_add(command, "");
	else
		redis_add_int(command, value);
}

/* In the order of "names" in redis_write.lua. */
static void
add_event_fields(RedisCommand *command, const SagazEvent *event)
{
	add_event_value(command, event->saga_id);
	add_event_value(command, event->aggregate_type);
	add_event_value(command, event->aggregate_id ? event->aggregate_id : event->saga_id);
	add_event_value(command, event->event_type);
	add_event_json(command, event->payload);
	add_event_json(command, event->headers);
	add_event_value(command, event->status);
	redis_add_int(command, event->retry_count);
	add_event_time(command, event->created_at);
	add_event_time(command, event->claimed_at);
	add_event_time(command, event->sent_at);
	add_event_value(command, event->last_error);
	add_event_value(command, event->worker_id);
	add_event_value(command, event->routing_key);
	add_event_value(command, event->partition_key);
}

/* When a claim may hand the event out: ''  never. */
static char *
event_due_time(const SagazEvent *event)
{
	if (strcmp(event->status, "claimed") == 0)
		return psprintf(INT64_FORMAT,
						Max(sagaz_real_time(event->claimed_at) +
							sagaz_claim_timeout * INT64CONST(1000),
							event->lease_until));
	if (strcmp(event->status, "pending") == 0 || strcmp(event->status, "failed") == 0)
		return psprintf(INT64_FORMAT, event->next_attempt_at);
	return "";
}

#define EVENT_FIELDS 15

/* Add an event to what the script is to write; none is one to be removed. */
static void
add_event_write(RedisCommand *command, const char *mode, const char *event_id,
				const char *stamp, const SagazEvent *event)
{
	redis_add(command, mode);
	redis_add_text(command, event_id);
	redis_add(command, stamp);
	redis_add(command, event ? event_due_time(event) : "");
	add_event_number(command, event ? event->batch_id : 0);
	add_event_number(command, event ? event->lease_until : 0);
	add_event_number(command, event ? event->next_attempt_at : 0);
	if (event)
		add_event_fields(command, event);
	else
		for (int i = 0; i < EVENT_FIELDS; i++)
			redis_add(command, "");
}

/* So many events may wait; 0: any number. */
int64
redis_max_entries(const RedisStore *store)
{
	return store->max_stream_length < 0 ? OUTBOX_LENGTH : store->max_stream_length;
}

/* The arguments of the script, before the events. */
static RedisCommand *
begin_event_writes(RedisStore *store)
{
	RedisCommand *command = redis_command(store->outbox_prefix);

	redis_add(command, store->group);
	redis_add_int(command, redis_max_entries(store));
	redis_add_int(command, store->event_ttl);
	redis_add_int(command, GetCurrentTimestamp());
	redis_add_int(command, sagaz_claim_timeout);
	return command;
}

/*
 * What the script says.  False if an event was changed since it was read; what
 * else hinders is raised.
 */
static bool
count_written_events(RedisStore *store, const RedisReply *reply, int64 *written)
{
	const char *why;

	if (reply->type == REDIS_INTEGER)
	{
		*written += reply->integer;
		return true;
	}
	redis_expect(store, reply, REDIS_ARRAY);
	if (reply->count < 1 || reply->elements[0]->type != REDIS_STRING)
		redis_refuse_reply(store);
	why = reply->elements[0]->str;
	if (strcmp(why, "changed") == 0)
		return false;
	if (reply->count < 2 || reply->elements[1]->type != REDIS_STRING)
		redis_refuse_reply(store);
	if (strcmp(why, "full") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CAPACITY),
				 errmsg("storage \"%s\" is full", store->base.name),
				 errdetail("%s events wait to be delivered there; option max_stream_length allows " INT64_FORMAT ".",
						   reply->elements[1]->str, redis_max_entries(store)),
				 errhint("Let a worker deliver them, or increase max_stream_length.")));
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("record \"%s\" exists already in storage \"%s\"",
					reply->elements[1]->str, store->base.name)));
	return false;				/* keep compiler quiet */
}

static bool
write_redis_events(RedisStore *store, const RedisCommand *writes, int64 *written)
{
	return count_written_events(store, redis_run_script(store, &redis_write_script, writes),
								written);
}

#define PART_EVENTS 100

/*
 * Put those that are missing, in parts: the server writes one while we make
 * the next.  Where one fails, others may have been written.
 */
static int64
put_missing_events(RedisStore *store, const SagazRecord *records, int count)
{
	RedisCommand **parts = palloc((count / PART_EVENTS + 1) * sizeof(RedisCommand *));
	RedisReply **replies;
	int			nparts = 0;
	int64		written = 0;

	for (int i = 0; i < count; i++)
	{
		if (i % PART_EVENTS == 0)
			parts[nparts++] = begin_event_writes(store);
		add_event_write(parts[nparts - 1], "M", records[i].event.event_id, "",
						&records[i].event);
		if ((i + 1) % PART_EVENTS == 0 || i + 1 == count)
		{
			redis_queue_script(store, &redis_write_script, parts[nparts - 1]);
			redis_send_ahead(store);
		}
	}
	replies = redis_exchange(store, &nparts);
	for (int i = 0; i < nparts; i++)
	{
		if (redis_is_error(replies[i], "NOSCRIPT"))
			(void) write_redis_events(store, parts[i], &written);
		else
			(void) count_written_events(store, replies[i], &written);
	}
	return written;
}

static int64
redis_event_put(RedisStore *store, SagazRecord *records, int count,
				SagazPutMode mode)
{
	RedisCommand *writes;
	int64		written = 0;

	if (mode == SAGAZ_PUT_MISSING)
		return put_missing_events(store, records, count);
	writes = begin_event_writes(store);
	for (int i = 0; i < count; i++)
		add_event_write(writes, mode == SAGAZ_PUT_NEW ? "N" : "A", records[i].event.event_id, "",
						&records[i].event);
	(void) write_redis_events(store, writes, &written);
	return written;
}

/* Add what the callback makes of an event; was that anything? */
static bool
edit_redis_event(RedisCommand *writes, SagazRecord *record, const char *stamp,
				 SagazEdit edit, void *arg)
{
	char	   *event_id;

	if (record->problem)
		return false;
	event_id = pstrdup(record->event.event_id);
	switch (edit(record, stamp != NULL, arg))
	{
		case SAGAZ_CHANGE:
			add_event_write(writes, stamp ? "C" : "N", event_id, stamp ? stamp : "",
							&record->event);
			return true;
		case SAGAZ_REMOVE:
			add_event_write(writes, "R", event_id, stamp, NULL);
			return true;
		case SAGAZ_KEEP:
			break;
	}
	return false;
}

static int64
redis_event_edit(RedisStore *store, const SagazFilter *filter, bool create,
				 SagazEdit edit, void *arg)
{
	TimestampTz since = GetCurrentTimestamp();
	int64		written = 0;

	for (;;)
	{
		RedisCommand *writes = begin_event_writes(store);
		List	   *found = redis_find(store, &redis_events, filter);
		bool		any = false;
		ListCell   *cell;

		foreach(cell, found)
		{
			RedisFound *one = lfirst(cell);

			any |= edit_redis_event(writes, &one->record, one->stamp, edit, arg);
		}
		if (create && found == NIL)
		{
			SagazRecord *fresh = palloc0(sizeof(SagazRecord));

			fresh->kind = SAGAZ_EVENT;
			fresh->event.event_id = pstrdup(filter->key);
			any |= edit_redis_event(writes, fresh, NULL, edit, arg);
		}
		if (!any || write_redis_events(store, writes, &written))
			return written;
		redis_check_patience(store, since);
	}
}

const RedisKind redis_events = {
	.kind = SAGAZ_EVENT,
	.count = count_event,
	.scan = redis_event_scan,
	.read = redis_event_read,
	.put = redis_event_put,
	.edit = redis_event_edit
};
