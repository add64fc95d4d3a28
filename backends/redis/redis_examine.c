/*
 * redis_examine.c
 *		What is wrong with a Redis server, though it answers.
 *
 * Whether a command would be taken, its key and this user with it, the server
 * says when the command is queued in a transaction: rights, its role, room,
 * its disk.  So all the commands that sagaz sends, and those that its scripts
 * run, are queued and then discarded; nothing is changed.
 */
#include "backends/redis/redis.h"

#include "utils/timestamp.h"

#include "backends/redis/redis_scripts.h"
#include "lib/times.h"

/* Less than so much of maxmemory or of the stream's length left is too little. */
#define LITTLE 0.1
/* Events are looked at for so long. */
#define LOOK_MS 3000

/* KEY and SET are keys under the prefix that nobody has. */
static const char *const saga_probes[] = {
	"HMGET KEY data", "HGET KEY data", "HEXISTS KEY data", "SCAN 0", "SSCAN SET 0",
	"HSET KEY data x", "DEL KEY", "SADD SET x", "SREM SET x", "PERSIST KEY",
	"EXPIRE KEY 1", "UNWATCH", NULL
};
static const char *const event_probes[] = {
	"HGETALL KEY", "HMGET KEY x", "HGET KEY x", "HEXISTS KEY x", "HLEN KEY", "EXISTS KEY",
	"SCAN 0", "SSCAN SET 0", "SMEMBERS SET", "SCARD SET", "ZCARD SET", "ZSCORE SET x",
	"ZRANGE SET 0 -1", "ZRANGEBYSCORE SET 0 1", "XLEN SET", "XRANGE SET - +",
	"XREVRANGE SET + -", "XPENDING SET g - + 1", "XINFO GROUPS SET", "XINFO CONSUMERS SET g",
	"SCRIPT LOAD x", "EVALSHA x 0", "HSET KEY f v", "HDEL KEY f", "DEL KEY", "PERSIST KEY",
	"EXPIRE KEY 1", "SADD SET x", "SREM SET x", "ZADD SET 1 x", "ZREM SET x",
	"XADD SET * f v", "XDEL SET 1-1", "XACK SET g 1-1", "XCLAIM SET g c 0 1-1",
	"XAUTOCLAIM SET g c 0 0-0", "XGROUP CREATE SET g 0", "XGROUP DELCONSUMER SET g c",
	"XREADGROUP GROUP g c STREAMS SET >", NULL
};

static void
add_redis_fault(List **faults, bool stops_writes, char *text)
{
	SagazFault *fault = palloc(sizeof(SagazFault));

	fault->stops_writes = stops_writes;
	fault->text = text;
	*faults = lappend(*faults, fault);
}

/* ---------------------------------------------------------------------- */
/* Memory */

/* The value of a line of INFO; of none, NULL. */
static char *
info_field(const char *info, const char *name)
{
	char	   *line = psprintf("\n%s:", name);
	const char *found = strstr(info, line);

	if (found == NULL)
		return NULL;
	found += strlen(line);
	return pnstrdup(found, strcspn(found, "\r\n"));
}

static double
info_number(const char *info, const char *name)
{
	char	   *value = info_field(info, name);

	return value ? strtod(value, NULL) : 0;
}

static void
examine_memory(RedisStore *store, List **faults)
{
	RedisCommand *command = redis_command("INFO");
	RedisReply **replies;
	char	   *policy;
	double		most;
	int			count;

	redis_add(command, "memory");
	command->spares = "NOPERM";
	redis_queue(store, command);
	replies = redis_exchange(store, &count);
	if (replies[0]->type == REDIS_ERROR)
	{
		add_redis_fault(faults, false, "the user may not run INFO, so nothing is known of the server's memory");
		return;
	}
	redis_expect(store, replies[0], REDIS_STRING);
	policy = info_field(replies[0]->str, "maxmemory_policy");
	most = info_number(replies[0]->str, "maxmemory");
	if (policy && strncmp(policy, "allkeys", 7) == 0)
		add_redis_fault(faults, false,
						psprintf("with maxmemory-policy %s the server throws away what is not finished; set noeviction or volatile-ttl", policy));
	if (most > 0 && info_number(replies[0]->str, "used_memory") > (1 - LITTLE) * most)
		add_redis_fault(faults, false, "less than a tenth of the server's maxmemory is left");
}

/* ---------------------------------------------------------------------- */
/* Rights, role, room */

static RedisCommand *
make_probe(const char *words, const char *key, const char *set)
{
	char	   *copy = pstrdup(words);
	char	   *rest = NULL;
	RedisCommand *command = redis_command(strtok_r(copy, " ", &rest));
	char	   *word;

	while ((word = strtok_r(NULL, " ", &rest)) != NULL)
		redis_add(command, strcmp(word, "KEY") == 0 ? key :
				  strcmp(word, "SET") == 0 ? set : word);
	command->spares = REDIS_SPARE_ALL;
	return command;
}

/* Add a command to those that are refused for want of a right. */
static void
add_refused(StringInfo refused, const char *probe)
{
	int			length = strcspn(probe, " ");

	if (strncmp(probe, "XINFO", 5) == 0 || strncmp(probe, "XGROUP", 6) == 0 ||
		strncmp(probe, "SCRIPT", 6) == 0)
		length += 1 + strcspn(probe + length + 1, " ");
	appendStringInfo(refused, "%s%.*s", refused->len > 0 ? ", " : "", length, probe);
}

static void
judge_probes(RedisStore *store, const char *const *probes, RedisReply **replies, List **faults)
{
	StringInfoData refused;
	bool		complained = false;

	initStringInfo(&refused);
	for (int i = 0; probes[i]; i++)
	{
		if (redis_is_error(replies[i], "NOPERM"))
			add_refused(&refused, probes[i]);
		else if (replies[i]->type == REDIS_ERROR && !complained)
		{
			complained = true;
			add_redis_fault(faults, true,
							psprintf("the server refuses to write: %s", redis_words_of(replies[i])));
		}
		else if (replies[i]->type != REDIS_ERROR)
			redis_expect(store, replies[i], REDIS_STATUS);
	}
	if (refused.len > 0)
		add_redis_fault(faults, true,
						psprintf("the user may not, on keys that begin with the storage's prefix, run %s", refused.data));
}

/* Nothing is queued before the transaction is there: it would be done. */
static void
examine_rights(RedisStore *store, SagazKind kind, List **faults)
{
	const char *const *probes = kind == SAGAZ_SAGA ? saga_probes : event_probes;
	const char *prefix = kind == SAGAZ_SAGA ? store->saga_prefix :
		psprintf("%s:", store->outbox_prefix);
	char	   *key = psprintf("%s%ssagaz:probe", prefix, kind == SAGAZ_SAGA ? "" : "meta:");
	char	   *set = psprintf("%s%s", prefix, kind == SAGAZ_SAGA ? "index:status:sagaz:probe" : "sagaz:probe");
	RedisCommand *watch = make_probe("WATCH KEY", key, set);
	RedisReply **replies;
	int			count;

	redis_queue(store, watch);
	redis_queue_words(store, "MULTI", NULL);
	replies = redis_exchange(store, &count);
	if (kind == SAGAZ_SAGA && replies[0]->type == REDIS_ERROR)
		add_redis_fault(faults, true, "the user may not run WATCH");
	for (int i = 0; probes[i]; i++)
		redis_queue(store, make_probe(probes[i], key, set));
	redis_queue_words(store, "DISCARD", NULL);
	replies = redis_exchange(store, &count);
	judge_probes(store, probes, replies, faults);
}

/* ---------------------------------------------------------------------- */
/* The outbox */

/* An entry is in the stream until all its groups are done with it. */
int64
redis_room(SagazStore *base, int64 *waiting)
{
	RedisStore *store = (RedisStore *) base;
	RedisReply *reply;

	redis_ready(store);
	reply = redis_call(store, redis_words("XLEN", psprintf("%s:events", store->outbox_prefix), NULL));
	redis_expect(store, reply, REDIS_INTEGER);
	*waiting = reply->integer;
	return redis_max_entries(store);
}

static void
examine_length(RedisStore *store, List **faults)
{
	int64		waiting;
	int64		most = redis_room(&store->base, &waiting);

	if (most > 0 && waiting > (1 - LITTLE) * most)
		add_redis_fault(faults, false,
						psprintf(INT64_FORMAT " of at most " INT64_FORMAT " events wait (max_stream_length)",
								 waiting, most));
}

/*
 * Events that no claim would find as things are.  The next claims bring back
 * those that are lost.
 */
static void
examine_events(RedisStore *store, List **faults)
{
	TimestampTz since = GetCurrentTimestamp();
	const char *cursor = "0";
	int64		lost = 0;
	int64		unnamed = 0;

	do
	{
		RedisCommand *arguments = redis_command(store->outbox_prefix);
		RedisReply *reply;

		redis_add(arguments, store->group);
		redis_add_int(arguments, since);
		redis_add(arguments, redis_claim_limit_text(since - sagaz_claim_timeout * INT64CONST(1000)));
		redis_add(arguments, redis_claim_limit_text(since + SAGAZ_CLOCK_SLACK));
		redis_add(arguments, cursor);
		reply = redis_run_script(store, &redis_look_script, arguments);
		redis_expect(store, reply, REDIS_ARRAY);
		if (reply->count != 3)
			redis_refuse_reply(store);
		redis_expect(store, reply->elements[0], REDIS_STRING);
		redis_expect(store, reply->elements[1], REDIS_INTEGER);
		redis_expect(store, reply->elements[2], REDIS_INTEGER);
		cursor = reply->elements[0]->str;
		lost += reply->elements[1]->integer;
		unnamed += reply->elements[2]->integer;
	} while (strcmp(cursor, "0") != 0 &&
			 !TimestampDifferenceExceeds(since, GetCurrentTimestamp(), LOOK_MS));
	if (lost > 0)
		add_redis_fault(faults, false,
						psprintf(INT64_FORMAT " events wait and have no entry in the stream; claims bring them back", lost));
	if (unnamed > 0)
		add_redis_fault(faults, false,
						psprintf(INT64_FORMAT " events have an id that is no UUID in small letters and are never handed out", unnamed));
}

/*
 * Writes are tried in a MULTI that is discarded, so nothing is changed; a
 * command that the login may not run is a fault, not an error.
 */
List *
redis_examine(SagazStore *base, SagazKind kind)
{
	RedisStore *store = (RedisStore *) base;
	List	   *faults = NIL;
	bool		stops = false;
	ListCell   *cell;

	redis_ready(store);
	if (store->is_replica)
		add_redis_fault(&faults, true, "the server is a replica");
	examine_rights(store, kind, &faults);
	examine_memory(store, &faults);
	foreach(cell, faults)
		stops |= ((SagazFault *) lfirst(cell))->stops_writes;
	if (kind == SAGAZ_EVENT && !stops)
	{
		examine_length(store, &faults);
		examine_events(store, &faults);
	}
	return faults;
}
