/*
 * redis_stream.c
 *		The stream of a broker: entries as the Python library's worker
 *		publishes them.
 */
#include "backends/redis/redis.h"

#include "utils/builtins.h"

#include "backends/record/record.h"
#include "backends/redis/redis_scripts.h"
#include "lib/times.h"

/* As the library's broker, where no option says. */
#define BROKER_LENGTH 10000
/* How the payload of an entry begins. */
#define PAYLOAD_START "{\"event_id\": \""

/* ---------------------------------------------------------------------- */
/* Entries */

static char *
stream_payload(const SagazEvent *event)
{
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfoString(&out, "{\"event_id\": ");
	redis_append_json_string(&out, event->event_id);
	appendStringInfoString(&out, ", \"saga_id\": ");
	redis_append_json_string(&out, event->saga_id);
	appendStringInfoString(&out, ", \"aggregate_type\": ");
	redis_append_json_string(&out, event->aggregate_type);
	appendStringInfoString(&out, ", \"aggregate_id\": ");
	redis_append_json_string(&out, event->aggregate_id ? event->aggregate_id : event->saga_id);
	appendStringInfoString(&out, ", \"event_type\": ");
	redis_append_json_string(&out, event->event_type);
	appendStringInfoString(&out, ", \"payload\": ");
	redis_append_json(&out, event->payload);
	appendStringInfoString(&out, ", \"timestamp\": ");
	redis_append_json_time(&out, event->created_at);
	appendStringInfoChar(&out, '}');
	return out.data;
}

static void
add_stream_field(RedisCommand *command, const char *name, const char *value)
{
	redis_add(command, name);
	redis_add_text(command, value);
}

static void
add_stream_header(RedisCommand *command, const char *name, const char *value)
{
	add_stream_field(command, psprintf("header:%s", redis_utf8(name)), value);
}

/* A header of that name in the event, as text; else the default. */
static const char *
stream_header_value(const SagazEvent *event, const char *name, const char *otherwise)
{
	JsonbValue	value;

	if (getKeyJsonValueFromContainer(&event->headers->root, name, strlen(name), &value) == NULL)
		return otherwise;
	return redis_python_text(&value);
}

static const char *const own_headers[] = {
	"event_id", "saga_id", "event_type", "content_type"
};

static bool
is_own_stream_header(const char *name)
{
	for (int i = 0; i < (int) lengthof(own_headers); i++)
		if (strcmp(own_headers[i], name) == 0)
			return true;
	return false;
}

/* The event's own headers come behind, and win over those of their name. */
static void
add_stream_headers(RedisCommand *command, const SagazEvent *event)
{
	const char *const values[] = {
		event->event_id, event->saga_id, event->event_type, "application/json"
	};
	JsonbIterator *iterator = JsonbIteratorInit(&event->headers->root);
	JsonbIteratorToken token;
	JsonbValue	part;

	for (int i = 0; i < (int) lengthof(own_headers); i++)
		add_stream_header(command, own_headers[i],
						  stream_header_value(event, own_headers[i], values[i]));
	while ((token = JsonbIteratorNext(&iterator, &part, true)) != WJB_DONE)
	{
		char	   *name;

		if (token != WJB_KEY)
			continue;
		name = pnstrdup(part.val.string.val, part.val.string.len);
		(void) JsonbIteratorNext(&iterator, &part, true);
		if (!is_own_stream_header(name))
			add_stream_header(command, name, redis_python_text(&part));
	}
}

static void
add_stream_entry(RedisCommand *command, const SagazEvent *event)
{
	const char *key = event->aggregate_id ? event->aggregate_id : event->saga_id;

	add_stream_field(command, "topic", event->event_type);
	redis_add(command, "payload");
	redis_add(command, stream_payload(event));
	if (key[0] != '\0')
		add_stream_field(command, "key", key);
	add_stream_headers(command, event);
}

static int64
stream_max_length(const RedisStore *store)
{
	return store->max_stream_length < 0 ? BROKER_LENGTH : store->max_stream_length;
}

/* ---------------------------------------------------------------------- */
/* Publishing */

/*
 * Without ids of our own: after an error some, or all, may be in the stream.
 */
void
redis_publish(SagazStore *base, SagazRecord *records, int count)
{
	RedisStore *store = (RedisStore *) base;
	RedisReply **replies;
	int			nreplies;

	redis_ready(store);
	for (int i = 0; i < count; i++)
	{
		RedisCommand *command = redis_command("XADD");

		redis_add(command, store->stream);
		if (stream_max_length(store) > 0)
		{
			redis_add(command, "MAXLEN");
			redis_add(command, "~");
			redis_add_int(command, stream_max_length(store));
		}
		redis_add(command, "*");
		add_stream_entry(command, &records[i].event);
		redis_queue(store, command);
	}
	replies = redis_exchange(store, &nreplies);
	for (int i = 0; i < nreplies; i++)
		redis_expect(store, replies[i], REDIS_STRING);
}

static char *
format_stream_id(SagazStreamId id)
{
	return psprintf(UINT64_FORMAT "-" UINT64_FORMAT, id.ms, id.seq);
}

static SagazStreamId
parse_stream_id(RedisStore *store, const RedisReply *reply)
{
	SagazStreamId id;
	char	   *end;

	redis_expect(store, reply, REDIS_STRING);
	id.ms = strtoull(reply->str, &end, 10);
	if (end == reply->str || *end != '-')
		redis_refuse_reply(store);
	id.seq = strtoull(end + 1, &end, 10);
	if (*end != '\0')
		redis_refuse_reply(store);
	return id;
}

/* The id of an entry that is deleted counts, too. */
SagazStreamId
redis_stream_end(SagazStore *base)
{
	RedisStore *store = (RedisStore *) base;
	SagazStreamId none = {0, 0};
	RedisCommand *command = redis_command("XINFO");
	RedisReply **replies;
	int			count;

	redis_ready(store);
	redis_add(command, "STREAM");
	redis_add(command, store->stream);
	command->spares = "ERR no such key";
	redis_queue(store, command);
	replies = redis_exchange(store, &count);
	if (replies[0]->type == REDIS_ERROR)
		return none;
	redis_expect(store, replies[0], REDIS_ARRAY);
	for (int i = 0; i + 1 < replies[0]->count; i += 2)
		if (replies[0]->elements[i]->type == REDIS_STRING &&
			strcmp(replies[0]->elements[i]->str, "last-generated-id") == 0)
			return parse_stream_id(store, replies[0]->elements[i + 1]);
	redis_refuse_reply(store);
	return none;				/* keep compiler quiet */
}

/*
 * One script, so nobody adds anything between the look at the end and the
 * entries.
 */
bool
redis_stream_append(SagazStore *base, SagazStreamId end, SagazRecord *records,
					const SagazStreamId *ids, int count)
{
	RedisStore *store = (RedisStore *) base;
	RedisCommand *arguments = redis_command(store->stream);
	RedisReply *reply;

	redis_add(arguments, format_stream_id(end));
	/* what is added now is not cut off at once */
	redis_add_int(arguments, stream_max_length(store) > 0 ? Max(stream_max_length(store), count) : 0);
	for (int i = 0; i < count; i++)
	{
		int			words;

		redis_add(arguments, format_stream_id(ids[i]));
		words = arguments->count;
		redis_add(arguments, "0");
		add_stream_entry(arguments, &records[i].event);
		arguments->words[words] = psprintf("%d", arguments->count - words - 1);
		arguments->lengths[words] = strlen(arguments->words[words]);
	}
	redis_ready(store);
	reply = redis_run_script(store, &redis_append_script, arguments);
	redis_expect(store, reply, REDIS_INTEGER);
	return reply->integer == 1;
}

/* ---------------------------------------------------------------------- */
/* Looking */

/* The id of the event in an entry of ours; empty in one of others. */
static char *
event_in_stream(RedisStore *store, const RedisReply *fields)
{
	redis_expect(store, fields, REDIS_ARRAY);
	for (int i = 0; i + 1 < fields->count; i += 2)
	{
		const RedisReply *value = fields->elements[i + 1];

		redis_expect(store, fields->elements[i], REDIS_STRING);
		redis_expect(store, value, REDIS_STRING);
		if (strcmp(fields->elements[i]->str, "payload") == 0 &&
			strncmp(value->str, PAYLOAD_START, strlen(PAYLOAD_START)) == 0)
		{
			const char *id = value->str + strlen(PAYLOAD_START);

			return pnstrdup(id, strcspn(id, "\""));
		}
	}
	return pstrdup("");
}

List *
redis_stream_read(SagazStore *base, SagazStreamId from, SagazStreamId to)
{
	RedisStore *store = (RedisStore *) base;
	RedisReply *reply;
	List	   *entries = NIL;

	redis_ready(store);
	reply = redis_call(store, redis_words("XRANGE", store->stream, format_stream_id(from),
										  format_stream_id(to), NULL));
	redis_expect(store, reply, REDIS_ARRAY);
	for (int i = 0; i < reply->count; i++)
	{
		const RedisReply *read = reply->elements[i];
		SagazStreamEntry *entry = palloc(sizeof(SagazStreamEntry));

		redis_expect(store, read, REDIS_ARRAY);
		if (read->count != 2)
			redis_refuse_reply(store);
		entry->id = parse_stream_id(store, read->elements[0]);
		entry->event_id = event_in_stream(store, read->elements[1]);
		entries = lappend(entries, entry);
	}
	return entries;
}
