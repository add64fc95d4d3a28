/*
 * redis.c
 *		Storages in a Redis server: options and the table of operations.
 *
 * redis_connection.c talks to the server, redis_saga.c and redis_event.c know
 * what the records look like there, redis_claim.c hands events out, and
 * redis_stream.c publishes to the stream that other systems read.
 */
#include "backends/redis/redis.h"

#include <limits.h>

#include "commands/defrem.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "backends/redis/redis_sentinel.h"
#include "backends/redis/redis_tls.h"
#include "backends/redis/redis_url.h"

#define SAGA_PREFIX "saga:"
#define OUTBOX_PREFIX "sagaz:outbox"
#define BROKER_STREAM "sage.outbox"
/* Sent events stay for seven days, as the library has it. */
#define EVENT_TTL (7 * 24 * 60 * 60)

/* ---------------------------------------------------------------------- */
/* Options */

static void
refuse_redis_option(const char *option, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_INPUT),
			 errmsg("%s is not valid", option),
			 errhint("%s", hint)));
}

static void
check_redis_port(const char *value)
{
	if (!redis_url_is_number(value, 1, 65535))
		refuse_redis_option("port", "Give a number from 1 to 65535.");
}

static void
check_redis_database(const char *value)
{
	if (!redis_url_is_number(value, 0, INT_MAX))
		refuse_redis_option("database", "Give the number of a database of the server, 0 or more.");
}

static void
check_redis_stream_length(const char *value)
{
	if (!redis_url_is_number(value, 0, PG_INT64_MAX))
		refuse_redis_option("max_stream_length", "Give a number of entries, or 0 for no limit.");
}

static void
check_redis_event_ttl(const char *value)
{
	if (!redis_url_is_number(value, 0, INT_MAX))
		refuse_redis_option("event_ttl", "Give a number of seconds, or 0 for ever.");
}

static void
check_redis_saga_ttl(const char *value)
{
	if (!redis_url_is_number(value, 0, INT_MAX))
		refuse_redis_option("saga_ttl", "Give a number of seconds, or 0 for ever.");
}

static void
check_redis_outbox_prefix(const char *value)
{
	if (value[0] == '\0')
		refuse_redis_option("outbox_prefix", "It must not be empty.");
}

static void
check_redis_stream(const char *value)
{
	if (value[0] == '\0')
		refuse_redis_option("stream", "It must not be empty.");
}

static void
check_redis_service(const char *value)
{
	if (value[0] == '\0')
		refuse_redis_option("service", "It must not be empty.");
}

static const SagazOption redis_options[] = {
	{.name = "host"},
	{.name = "port",.check = check_redis_port},
	{.name = "path"},
	{.name = "sentinels",.check = redis_sentinel_check_list},
	{.name = "service",.check = check_redis_service},
	{.name = "sentinel_user",.secret = true},
	{.name = "sentinel_password",.secret = true},
	{.name = "sslmode",.check = redis_tls_check_mode},
	{.name = "sslrootcert"},
	{.name = "sslcert"},
	{.name = "sslkey"},
	{.name = "database",.check = check_redis_database},
	{.name = "user",.secret = true},
	{.name = "password",.secret = true},
	{.name = "saga_prefix"},
	{.name = "outbox_prefix",.check = check_redis_outbox_prefix},
	{.name = "stream",.check = check_redis_stream},
	{.name = "max_stream_length",.check = check_redis_stream_length},
	{.name = "event_ttl",.check = check_redis_event_ttl},
	{.name = "saga_ttl",.check = check_redis_saga_ttl},
	SAGAZ_COMMON_OPTIONS
};

static const char *const redis_schemes[] = {
	"redis", "rediss", "redis+sentinel", "rediss+sentinel", "unix", NULL
};

/* ---------------------------------------------------------------------- */
/* Prefixes */

static const char *
redis_option_or(List *options, const char *name, const char *otherwise)
{
	const char *value = sagaz_store_find_option(options, name);

	return value ? value : otherwise;
}

static bool
is_same_redis(List *options, List *others)
{
	static const char *const places[][2] = {
		{"host", "localhost"}, {"port", "6379"}, {"path", ""}, {"database", "0"}
	};

	for (int i = 0; i < (int) lengthof(places); i++)
		if (strcmp(redis_option_or(options, places[i][0], places[i][1]),
				   redis_option_or(others, places[i][0], places[i][1])) != 0)
			return false;
	return true;
}

/* What its keys begin with; NULL: it has none of the kind. */
static char *
redis_keys_begin(List *options, SagazKind kind)
{
	const char *type = redis_option_or(options, "storage_type", "both");

	if (kind == SAGAZ_SAGA)
		return strcmp(type, "outbox") == 0 ? NULL :
			pstrdup(redis_option_or(options, "saga_prefix", SAGA_PREFIX));
	return strcmp(type, "saga") == 0 ? NULL :
		psprintf("%s:", redis_option_or(options, "outbox_prefix", OUTBOX_PREFIX));
}

/* Keys of the one begin as those of the other do, and go on. */
static bool
redis_overlap(List *options, List *others)
{
	for (int i = SAGAZ_SAGA; i <= SAGAZ_EVENT && is_same_redis(options, others); i++)
		for (int j = SAGAZ_SAGA; j <= SAGAZ_EVENT; j++)
		{
			char	   *a = redis_keys_begin(options, i);
			char	   *b = redis_keys_begin(others, j);

			if (a && b && strcmp(a, b) != 0 && strncmp(a, b, Min(strlen(a), strlen(b))) == 0)
				return true;
		}
	return false;
}

/* ---------------------------------------------------------------------- */
/* Stores */

static char *
redis_utf8_option(RedisStore *store, const char *name, const char *otherwise)
{
	const char *value = sagaz_store_option(&store->base, name);

	return redis_utf8(pstrdup(value ? value : otherwise));
}

static int64
redis_number_option(RedisStore *store, const char *name, int64 otherwise)
{
	const char *value = sagaz_store_option(&store->base, name);

	return value ? strtoll(value, NULL, 10) : otherwise;
}

static void
redis_open(SagazStore *base)
{
	RedisStore *store = (RedisStore *) base;

	store->saga_prefix = redis_utf8_option(store, "saga_prefix", SAGA_PREFIX);
	store->outbox_prefix = redis_utf8_option(store, "outbox_prefix", OUTBOX_PREFIX);
	store->stream = redis_utf8_option(store, "stream", BROKER_STREAM);
	store->group = redis_utf8(pstrdup(base->consumer_group));
	store->max_stream_length = redis_number_option(store, "max_stream_length", -1);
	store->event_ttl = redis_number_option(store, "event_ttl", EVENT_TTL);
	store->saga_ttl = redis_number_option(store, "saga_ttl", 0);
	redis_connect(store);
}

static void
redis_ping(SagazStore *base)
{
	RedisStore *store = (RedisStore *) base;
	RedisReply *reply;

	redis_ready(store);
	reply = redis_call(store, redis_command("PING"));
	redis_expect(store, reply, REDIS_STATUS);
}

/* The number by which a server tells itself from others, NULL if it does not say. */
static char *
redis_run_id(RedisStore *store)
{
	RedisCommand *command = redis_command("INFO");
	RedisReply **replies;
	const char *field = "run_id:";
	char	   *start;
	int			count;

	redis_add(command, "server");
	command->spares = "NOPERM";
	redis_queue(store, command);
	replies = redis_exchange(store, &count);
	if (replies[0]->type != REDIS_STRING)
		return NULL;
	start = strstr(replies[0]->str, field);
	return start ? pnstrdup(start + strlen(field), strcspn(start + strlen(field), "\r\n")) :
		NULL;
}

static char *
redis_address(const SagazStore *base)
{
	const char *path = sagaz_store_option(base, "path");
	const char *service = sagaz_store_option(base, "service");
	const char *host = sagaz_store_option(base, "host");
	const char *port = sagaz_store_option(base, "port");

	return path ? pstrdup(path) : service ?
		psprintf("%s/%s", sagaz_store_option(base, "sentinels"), service) :
		psprintf("%s:%s", host ? host : "localhost", port ? port : "6379");
}

/*
 * A server that was restarted with its data is the same one; an empty one is
 * not.  One that was known without a mark is known by its address.
 */
static char *
redis_origin(SagazStore *base, const char *known)
{
	RedisStore *store = (RedisStore *) base;
	const char *database = sagaz_store_option(base, "database");
	char	   *place = psprintf("redis:%s:%d:%s:%s", redis_address(base),
								 database ? atoi(database) : 0,
								 store->saga_prefix, store->outbox_prefix);
	char	   *mark;

	if (known && strcmp(known, place) == 0)
		return place;
	redis_ready(store);
	mark = redis_mark(store, known == NULL);
	return mark ? psprintf("%s:%s", place, mark) : place;
}

static char *
redis_identity(SagazStore *base, SagazKind kind)
{
	RedisStore *store = (RedisStore *) base;
	const char *database = sagaz_store_option(base, "database");
	char	   *server;

	redis_ready(store);
	server = redis_run_id(store);
	if (server == NULL)
		server = redis_address(base);
	return psprintf("redis:%s:%d:%s", server, database ? atoi(database) : 0,
					kind == SAGAZ_SAGA ? store->saga_prefix : store->outbox_prefix);
}

/* In the hash of an event empty text is none. */
static char *
redis_unfit(SagazStore *base, const SagazRecord *record)
{
	const SagazEvent *event = &record->event;
	const struct
	{
		const char *name;
		const char *text;
	}			fields[] = {
		{"aggregate_type", event->aggregate_type},
		{"aggregate_id", event->aggregate_id},
		{"last_error", event->last_error},
		{"worker_id", event->worker_id},
		{"routing_key", event->routing_key},
		{"partition_key", event->partition_key}
	};

	if (record->kind == SAGAZ_SAGA)
		return sagaz_store_fits_library(base, record);
	for (int i = 0; i < (int) lengthof(fields); i++)
		if (fields[i].text && fields[i].text[0] == '\0')
			return psprintf("%s is empty, which in Redis is the same as none",
							fields[i].name);
	return sagaz_store_fits_library(base, record);
}

static const RedisKind *
kind_of(SagazKind kind)
{
	return kind == SAGAZ_SAGA ? &redis_sagas : &redis_events;
}

static int64
redis_put(SagazStore *base, SagazRecord *records, int count, SagazPutMode mode)
{
	RedisStore *store = (RedisStore *) base;

	redis_ready(store);
	return kind_of(records[0].kind)->put(store, records, count, mode);
}

static int64
redis_edit(SagazStore *base, SagazKind kind, const SagazFilter *filter,
		   bool create, SagazEdit edit, void *arg)
{
	RedisStore *store = (RedisStore *) base;

	redis_ready(store);
	return kind_of(kind)->edit(store, filter, create, edit, arg);
}

static void
read_begin(SagazReader *reader)
{
	redis_read_begin(reader, kind_of(reader->kind));
}

/* All are counted without their content, others by reading them. */
static int64
redis_count(SagazStore *base, SagazKind kind, const SagazFilter *filter)
{
	static const SagazFilter everything = {0};
	RedisStore *store = (RedisStore *) base;

	if (memcmp(filter, &everything, sizeof(SagazFilter)) != 0)
		return sagaz_store_count_by_reading(base, kind, filter);
	redis_ready(store);
	return redis_scan_count(kind_of(kind)->scan(store, filter), kind_of(kind)->count);
}

const SagazBackend sagaz_redis_backend = {
	.name = "redis",
	.capabilities = SAGAZ_KEEPS_SAGAS | SAGAZ_KEEPS_EVENTS | SAGAZ_TAKES_EDITS |
		SAGAZ_KEEPS_VERSIONS | SAGAZ_OUTLIVES_SESSION | SAGAZ_HAS_STREAMS |
		SAGAZ_RECORDS_EXPIRE | SAGAZ_LIBRARY_READS,
	.store_size = sizeof(RedisStore),
	.reader_size = sizeof(RedisReader),
	.options = redis_options,
	.version = redis_client_version,
	.schemes = redis_schemes,
	.read_url = redis_url_read,
	.open = redis_open,
	.ping = redis_ping,
	.examine = redis_examine,
	.room = redis_room,
	.overlap = redis_overlap,
	.make_ready = redis_ping,
	.store_can = sagaz_store_can_all,
	.identity = redis_identity,
	.origin = redis_origin,
	.unfit = redis_unfit,
	.put = redis_put,
	.edit = redis_edit,
	SAGAZ_MERGES_BY_EDIT,
	.read_begin = read_begin,
	.read_next = redis_read_next,
	.read_end = redis_read_end,
	.read_position = sagaz_store_no_position,
	.count = redis_count,
	.claim = redis_claim,
	.finish = redis_finish,
	.call = sagaz_store_no_call,
	.publish = redis_publish,
	.stream_end = redis_stream_end,
	.stream_append = redis_stream_append,
	.stream_read = redis_stream_read
};
