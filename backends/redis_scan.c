/*
 * redis_scan.c
 *		Which keys there are under a prefix, and reading them in batches.
 *
 * SCAN may yield a key twice, so the ids are gathered first, those of all keys
 * in a spool; what is read of the keys comes a batch at a time.
 */
#include "redis.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "id_spool.h"
#include "times.h"

/* Keys asked for in one round trip; of all, at first fewer, … */
#define FETCH_SIZE 500
#define FIRST_FETCH 16
/* … until it is known how much they hold; */
#define FETCH_BYTES (4 * 1024 * 1024)
/* keys looked at by one SCAN. */
#define SCAN_SIZE "5000"

struct RedisScan
{
	RedisStore *store;
	const char *prefix;
	const char *const *fetch;	/* a command, then what follows the key */
	MemoryContext context;
	MemoryContext batch;		/* the replies */
	IdSpool    *spool;			/* of all ids; else they are in ids */
	const char *time_field;		/* by which the spool is in order; NULL: by id */
	HTAB	   *known;
	RedisId    *ids;
	int			count;
	int			size;
	int			next;
	int			fetch_size;		/* of the next round trip */
	int			fetched;		/* replies are of the ids from here … */
	int			nreplies;		/* … so many */
	RedisReply **replies;
};

static uint32
hash_id(const void *key, Size size)
{
	const RedisId *id = key;

	return DatumGetUInt32(hash_any((const unsigned char *) id->bytes, id->length));
}

static int
compare_ids(const RedisId *a, const RedisId *b)
{
	int			order = memcmp(a->bytes, b->bytes, Min(a->length, b->length));

	if (order == 0 && a->length != b->length)
		order = a->length < b->length ? -1 : 1;
	return order;
}

static int
match_ids(const void *a, const void *b, Size size)
{
	return compare_ids(a, b);
}

static int
sort_ids(const void *a, const void *b)
{
	return compare_ids(a, b);
}

/*
 * A scan over keys that begin with the prefix; what follows it is the id.
 * fetch is the command that reads a key and the words behind that, NULL ends
 * them.
 */
RedisScan *
redis_scan_begin(RedisStore *store, const char *prefix, const char *const *fetch)
{
	HASHCTL		control = {
		.keysize = sizeof(RedisId),
		.entrysize = sizeof(RedisId),
		.hash = hash_id,
		.match = match_ids,
		.hcxt = CurrentMemoryContext
	};
	RedisScan  *scan = palloc0(sizeof(RedisScan));

	scan->store = store;
	scan->prefix = prefix;
	scan->fetch = fetch;
	scan->context = CurrentMemoryContext;
	scan->batch = AllocSetContextCreate(CurrentMemoryContext,
										"sagaz redis batch", ALLOCSET_DEFAULT_SIZES);
	scan->known = hash_create("sagaz redis keys", 256, &control,
							  HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	scan->fetch_size = FETCH_SIZE;
	scan->size = 64;
	scan->ids = palloc(scan->size * sizeof(RedisId));
	return scan;
}

/* Add an id, unless it is there. */
void
redis_scan_add(RedisScan *scan, const char *bytes, size_t length)
{
	RedisId		id = {length, unconstify(char *, bytes)};
	RedisId    *entry;
	bool		found;
	MemoryContext outer;

	if (hash_search(scan->known, &id, HASH_FIND, NULL) != NULL)
		return;
	outer = MemoryContextSwitchTo(scan->context);
	id.bytes = palloc(length + 1);
	memcpy(id.bytes, bytes, length);
	id.bytes[length] = '\0';
	entry = hash_search(scan->known, &id, HASH_ENTER, &found);
	*entry = id;
	if (scan->count == scan->size)
	{
		scan->size *= 2;
		scan->ids = repalloc_huge(scan->ids, scan->size * sizeof(RedisId));
	}
	scan->ids[scan->count++] = id;
	MemoryContextSwitchTo(outer);
}

/* Add an id that is text of the database. */
void
redis_scan_add_text(RedisScan *scan, const char *text)
{
	char	   *utf8 = redis_utf8(text);

	redis_scan_add(scan, utf8, strlen(utf8));
}

/* Spool the ids of a page of keys, with their times if these decide. */
static void
spool_page(RedisScan *scan, RedisReply *keys)
{
	size_t		prefix = strlen(scan->prefix);
	RedisReply **times = NULL;
	int			ntimes = 0;

	for (int i = 0; i < keys->count; i++)
		redis_expect(scan->store, keys->elements[i], REDIS_STRING);
	for (int i = 0; scan->time_field && i < keys->count; i++)
	{
		RedisCommand *command = redis_command("HGET");

		redis_add_bytes(command, keys->elements[i]->str, keys->elements[i]->length);
		redis_add(command, scan->time_field);
		redis_queue(scan->store, command);
	}
	if (scan->time_field && keys->count > 0)
		times = redis_exchange(scan->store, &ntimes);
	for (int i = 0; i < keys->count; i++)
	{
		RedisReply *key = keys->elements[i];
		TimestampTz time = 0;

		if (i < ntimes && times[i]->type == REDIS_STRING &&
			!sagaz_parse_time(times[i]->str, times[i]->length, &time))
			time = 0;
		if (key->length >= prefix)
			id_spool_add(scan->spool, time, key->str + prefix, key->length - prefix);
	}
}

static void
add_page(RedisScan *scan, RedisReply *keys)
{
	for (int i = 0; i < keys->count; i++)
	{
		redis_expect(scan->store, keys->elements[i], REDIS_STRING);
		redis_scan_add(scan, keys->elements[i]->str, keys->elements[i]->length);
	}
}

/* Send a SCAN or SSCAN until it is at its end; take what it yields. */
static void
run_scan(RedisScan *scan, const char *name, const char *const *words)
{
	MemoryContext outer = MemoryContextSwitchTo(scan->batch);
	char	   *cursor = "0";

	do
	{
		RedisCommand *command = redis_command(name);
		RedisReply *reply;

		/* SSCAN has the key before the cursor */
		if (strcmp(name, "SSCAN") == 0)
			redis_add(command, *words);
		redis_add(command, cursor);
		for (const char *const *word = words + (strcmp(name, "SSCAN") == 0);
			 *word; word++)
			redis_add(command, *word);
		reply = redis_call(scan->store, command);
		if (reply->type != REDIS_ARRAY || reply->count != 2 ||
			reply->elements[0]->type != REDIS_STRING ||
			reply->elements[1]->type != REDIS_ARRAY)
			redis_refuse_reply(scan->store);
		if (scan->spool)
			spool_page(scan, reply->elements[1]);
		else
			add_page(scan, reply->elements[1]);
		cursor = MemoryContextStrdup(scan->context, reply->elements[0]->str);
		MemoryContextReset(scan->batch);
	} while (strcmp(cursor, "0") != 0);
	MemoryContextSwitchTo(outer);
}

/* Add the members of a set. */
void
redis_scan_members(RedisScan *scan, const char *set)
{
	const char *words[] = {set, "COUNT", SCAN_SIZE, NULL};

	run_scan(scan, "SSCAN", words);
}

/*
 * Take the ids of all hashes under the prefix, in the order of the times that
 * a field of theirs holds or, with NULL, of their bytes.
 */
void
redis_scan_all(RedisScan *scan, const char *time_field)
{
	StringInfoData pattern;
	const char *words[] = {"MATCH", NULL, "COUNT", SCAN_SIZE, "TYPE", "hash", NULL};

	initStringInfo(&pattern);
	for (const char *c = scan->prefix; *c; c++)
	{
		if (strchr("*?[]\\^", *c))
			appendStringInfoChar(&pattern, '\\');
		appendStringInfoChar(&pattern, *c);
	}
	appendStringInfoChar(&pattern, '*');
	words[1] = pattern.data;
	scan->fetch_size = FIRST_FETCH;
	scan->spool = id_spool_begin();
	scan->time_field = time_field;
	run_scan(scan, "SCAN", words);
	id_spool_sort(scan->spool);
}

/* How many ids there are. */
int64
redis_scan_count(const RedisScan *scan)
{
	return scan->spool ? id_spool_count(scan->spool) : scan->count;
}

/* Let them come in the order of their bytes; those of a spool do. */
void
redis_scan_sort(RedisScan *scan)
{
	if (scan->spool == NULL)
		qsort(scan->ids, scan->count, sizeof(RedisId), sort_ids);
}

/* Take the next ids out of the spool. */
static void
unspool(RedisScan *scan)
{
	scan->count = scan->next = 0;
	while (scan->count < scan->fetch_size)
	{
		RedisId    *id;

		if (scan->count == scan->size)
		{
			scan->size *= 2;
			scan->ids = repalloc(scan->ids, scan->size * sizeof(RedisId));
		}
		id = &scan->ids[scan->count];
		id->bytes = id_spool_next(scan->spool, &id->length);
		if (id->bytes == NULL)
			return;
		scan->count++;
	}
}

/* More or fewer next time, by what these have held. */
static void
adapt(RedisScan *scan, int asked)
{
	Size		bytes = MemoryContextMemAllocated(scan->batch, true);

	if (bytes > FETCH_BYTES)
		scan->fetch_size = Max(1, (int) (asked * (FETCH_BYTES / (double) bytes)));
	else
		scan->fetch_size = Min(FETCH_SIZE, Max(asked, scan->fetch_size) * 2);
}

static void
fetch(RedisScan *scan)
{
	MemoryContext outer;
	size_t		prefix = strlen(scan->prefix);
	int			until;

	MemoryContextReset(scan->batch);
	outer = MemoryContextSwitchTo(scan->batch);
	if (scan->spool)
		unspool(scan);
	until = Min(scan->next + scan->fetch_size, scan->count);
	scan->fetched = scan->next;
	scan->nreplies = 0;
	for (int i = scan->next; i < until; i++)
	{
		RedisCommand *command = redis_command(scan->fetch[0]);
		char	   *key = palloc(prefix + scan->ids[i].length + 1);

		memcpy(key, scan->prefix, prefix);
		memcpy(key + prefix, scan->ids[i].bytes, scan->ids[i].length);
		redis_add_bytes(command, key, prefix + scan->ids[i].length);
		for (const char *const *word = scan->fetch + 1; *word; word++)
			redis_add(command, *word);
		redis_queue(scan->store, command);
	}
	if (until > scan->next)
	{
		scan->replies = redis_exchange(scan->store, &scan->nreplies);
		adapt(scan, until - scan->next);
	}
	MemoryContextSwitchTo(outer);
}

/* The next id and what its key holds, valid until the next call; NULL at the end. */
const RedisId *
redis_scan_next(RedisScan *scan, RedisReply **reply)
{
	if (scan->next >= scan->fetched + scan->nreplies &&
		(scan->spool || scan->next < scan->count))
		fetch(scan);
	if (scan->next >= scan->count)
		return NULL;
	*reply = scan->replies[scan->next - scan->fetched];
	return &scan->ids[scan->next++];
}
