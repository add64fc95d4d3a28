/*
 * redis_scan.c
 *		Which keys there are under a prefix, and reading them in batches.
 *
 * SCAN may yield a key twice, so the ids are gathered first, those of all keys
 * in a spool; what is read of the keys comes a batch at a time.
 */
#include "backends/redis/redis.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "backends/common/id_spool.h"
#include "lib/times.h"

/* Keys asked for in one round trip; of all, at first fewer, … */
#define FETCH_SIZE 500
#define FIRST_FETCH 16
/* … until it is known how much they hold; */
#define FETCH_BYTES (4 * 1024 * 1024)
/* keys looked at by one SCAN. */
#define SCAN_SIZE "5000"

/* Ids, and what is read of their keys. */
typedef struct Page
{
	MemoryContext context;
	RedisId    *ids;
	int			count;
	RedisReply **replies;
	uint64		request;		/* of the replies, 0: they are not asked for */
} Page;

struct RedisScan
{
	RedisStore *store;
	const char *prefix;
	const char *const *fetch;	/* a command, then what follows the key */
	const char *spares;			/* of that command */
	RedisType	fetches;		/* what it answers */
	MemoryContext context;
	IdSpool    *spool;			/* of all ids; else they are in ids */
	const char *time_field;		/* by which the spool is in order; NULL: by id */
	bool		reads_ahead;
	HTAB	   *known;
	RedisId    *ids;
	int			count;
	int			size;
	int			taken;			/* of the ids, into pages */
	Page		pages[2];		/* the present one, and the one after it */
	int			next;			/* of the present page */
	int			fetch_size;		/* of the next page */
};

static uint32
hash_scan_id(const void *key, Size size)
{
	const RedisId *id = key;

	return DatumGetUInt32(hash_any((const unsigned char *) id->bytes, id->length));
}

static int
compare_scan_ids(const RedisId *a, const RedisId *b)
{
	int			order = memcmp(a->bytes, b->bytes, Min(a->length, b->length));

	if (order == 0 && a->length != b->length)
		order = a->length < b->length ? -1 : 1;
	return order;
}

static int
match_scan_ids(const void *a, const void *b, Size size)
{
	return compare_scan_ids(a, b);
}

static int
sort_scan_ids(const void *a, const void *b)
{
	return compare_scan_ids(a, b);
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
		.hash = hash_scan_id,
		.match = match_scan_ids,
		.hcxt = CurrentMemoryContext
	};
	RedisScan  *scan = palloc0(sizeof(RedisScan));

	scan->store = store;
	scan->prefix = prefix;
	scan->fetch = fetch;
	scan->fetches = REDIS_ARRAY;
	scan->context = CurrentMemoryContext;
	for (int i = 0; i < (int) lengthof(scan->pages); i++)
		scan->pages[i].context = AllocSetContextCreate(CurrentMemoryContext,
													   "sagaz redis page",
													   ALLOCSET_DEFAULT_SIZES);
	scan->known = hash_create("sagaz redis keys", 256, &control,
							  HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	scan->fetch_size = FETCH_SIZE;
	scan->size = 64;
	scan->ids = palloc(scan->size * sizeof(RedisId));
	return scan;
}

/* Add an id, unless it is there. */
static void
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
spool_scan_page(RedisScan *scan, RedisReply *keys)
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
		command->spares = scan->spares;
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
add_scan_page(RedisScan *scan, RedisReply *keys)
{
	for (int i = 0; i < keys->count; i++)
	{
		redis_expect(scan->store, keys->elements[i], REDIS_STRING);
		redis_scan_add(scan, keys->elements[i]->str, keys->elements[i]->length);
	}
}

/*
 * Send a SCAN or SSCAN until it is at its end; take what it yields.  A key that
 * it found may be another program's by the time it is read, and then it is
 * passed over; who names a key himself is told.
 */
static void
run_scan(RedisScan *scan, const char *name, const char *const *words)
{
	MemoryContext part = scan->pages[0].context;
	MemoryContext outer = MemoryContextSwitchTo(part);
	char	   *cursor = "0";

	scan->spares = "WRONGTYPE";
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
			spool_scan_page(scan, reply->elements[1]);
		else
			add_scan_page(scan, reply->elements[1]);
		cursor = MemoryContextStrdup(scan->context, reply->elements[0]->str);
		MemoryContextReset(part);
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

/* Let them come in the order of their bytes; those of a spool do. */
void
redis_scan_sort(RedisScan *scan)
{
	if (scan->spool == NULL)
		qsort(scan->ids, scan->count, sizeof(RedisId), sort_scan_ids);
}

/*
 * Let the server work on a page while the one before it is used; not for
 * scans that alternate with something else in the same storage.
 */
void
redis_scan_read_ahead(RedisScan *scan)
{
	scan->reads_ahead = true;
}

/* Take the next ids, where they are kept. */
static void
take_scan_ids(RedisScan *scan, Page *page)
{
	page->count = 0;
	if (scan->spool == NULL)
	{
		page->ids = scan->ids + scan->taken;
		page->count = Min(scan->fetch_size, scan->count - scan->taken);
	}
	else
	{
		page->ids = palloc(scan->fetch_size * sizeof(RedisId));
		while (page->count < scan->fetch_size)
		{
			RedisId    *id = &page->ids[page->count];

			id->bytes = id_spool_next(scan->spool, &id->length);
			if (id->bytes == NULL)
				break;
			page->count++;
		}
	}
	scan->taken += page->count;
}

/* Queue the commands that read the keys of a page. */
static void
queue_scan_page(RedisScan *scan, const Page *page)
{
	size_t		prefix = strlen(scan->prefix);

	for (int i = 0; i < page->count; i++)
	{
		RedisCommand *command = redis_command(scan->fetch[0]);
		char	   *key = palloc(prefix + page->ids[i].length + 1);

		memcpy(key, scan->prefix, prefix);
		memcpy(key + prefix, page->ids[i].bytes, page->ids[i].length);
		redis_add_bytes(command, key, prefix + page->ids[i].length);
		for (const char *const *word = scan->fetch + 1; *word; word++)
			redis_add(command, *word);
		command->spares = scan->spares;
		redis_queue(scan->store, command);
	}
}

/* More or fewer next time, by what these have held. */
static void
adapt_scan_page(RedisScan *scan, const Page *page)
{
	Size		bytes = MemoryContextMemAllocated(page->context, true);

	if (bytes > FETCH_BYTES)
		scan->fetch_size = Max(1, (int) (page->count * (FETCH_BYTES / (double) bytes)));
	else
		scan->fetch_size = Min(FETCH_SIZE, Max(page->count, scan->fetch_size) * 2);
}

static void
fetch_scan_page(RedisScan *scan, Page *page)
{
	MemoryContext outer = MemoryContextSwitchTo(page->context);
	int			count;

	if (page->request == 0)
		take_scan_ids(scan, page);
	if (page->count > 0)
	{
		page->replies = redis_collect(scan->store, page->request, &count);
		if (page->replies == NULL)
		{
			queue_scan_page(scan, page);
			page->replies = redis_exchange(scan->store, &count);
		}
		adapt_scan_page(scan, page);
	}
	MemoryContextSwitchTo(outer);
}

static void
request_scan_page(RedisScan *scan, Page *page)
{
	MemoryContext outer = MemoryContextSwitchTo(page->context);

	take_scan_ids(scan, page);
	if (page->count > 0)
	{
		queue_scan_page(scan, page);
		page->request = redis_request(scan->store);
	}
	MemoryContextSwitchTo(outer);
}

static void
turn_scan_page(RedisScan *scan)
{
	Page		used = scan->pages[0];

	MemoryContextReset(used.context);
	used.request = 0;
	scan->pages[0] = scan->pages[1];
	scan->pages[1] = used;
	scan->next = 0;
	fetch_scan_page(scan, &scan->pages[0]);
	if (scan->reads_ahead && scan->pages[0].count > 0)
		request_scan_page(scan, &scan->pages[1]);
}

/* The next id and what its key holds, valid until the next call; NULL at the end. */
const RedisId *
redis_scan_next(RedisScan *scan, RedisReply **reply)
{
	Page	   *page = &scan->pages[0];

	do
	{
		if (scan->next >= page->count)
			turn_scan_page(scan);
		if (scan->next >= page->count)
			return NULL;
		*reply = page->replies[scan->next++];
	} while ((*reply)->type == REDIS_ERROR);
	redis_expect(scan->store, *reply, scan->fetches);
	return &page->ids[scan->next - 1];
}

/*
 * How many of the keys are those of records, by a command that answers 1 for
 * them and 0 for others; instead of reading them.
 */
int64
redis_scan_count(RedisScan *scan, const char *const *fetch)
{
	RedisReply *reply;
	int64		count = 0;

	scan->fetch = fetch;
	scan->fetches = REDIS_INTEGER;
	while (redis_scan_next(scan, &reply) != NULL)
		count += reply->integer;
	return count;
}
