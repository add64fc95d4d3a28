/*
 * memory.c
 *		The storage kind "memory": records of this session, gone with it.
 *
 * The records outlive the store that shows them, since connections are
 * dropped when they idle: they are in a Memory that is found by the storage's
 * identity.  It has a hash table by key for each kind and a list in the order
 * of insertion.  Scans read a copy of the keys as they were at their start,
 * so that records may come and go meanwhile.
 *
 * A transaction need not be undone: records are copied before the first of
 * them takes the place of an old one, and from then on nothing can fail.
 */
#include "sagaz.h"

#include "common/hashfn.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "backend.h"

typedef struct MemoryItem
{
	const char *key;			/* the record's own; hash key */
	dlist_node	node;
	SagazRecord record;
} MemoryItem;

typedef struct Memory
{
	char	   *identity;		/* hash key */
	MemoryContext context;
	HTAB	   *items[2];		/* by SagazKind */
	dlist_head	order[2];
} Memory;

typedef struct MemoryStore
{
	SagazStore	base;
	Memory	   *memory;
} MemoryStore;

typedef struct MemoryReader
{
	SagazReader base;
	const SagazFilter *filter;
	char	  **keys;
	int64		count;
	int64		next;
	int64		given;
} MemoryReader;

static HTAB *memories = NULL;

/* Hash tables whose keys are pointers to strings. */
static uint32
hash_key(const void *key, Size size)
{
	const char *string = *(const char *const *) key;

	return DatumGetUInt32(hash_any((const unsigned char *) string,
								   strlen(string)));
}

static int
match_key(const void *a, const void *b, Size size)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

static HTAB *
make_table(const char *name, Size entry_size, MemoryContext context)
{
	HASHCTL		control = {
		.keysize = sizeof(char *), .entrysize = entry_size,
		.hash = hash_key, .match = match_key, .hcxt = context
	};

	return hash_create(name, 64, &control,
					   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

/* The records of a storage; they stay for the session. */
static Memory *
find_memory(const char *identity)
{
	Memory	   *memory;
	MemoryContext context;
	char	   *key;

	if (memories == NULL)
		memories = make_table("sagaz memory storages", sizeof(Memory),
							  TopMemoryContext);
	memory = hash_search(memories, &identity, HASH_FIND, NULL);
	if (memory != NULL)
		return memory;
	context = AllocSetContextCreate(TopMemoryContext, "sagaz memory storage",
									ALLOCSET_DEFAULT_SIZES);
	key = MemoryContextStrdup(context, identity);
	memory = hash_search(memories, &key, HASH_ENTER, NULL);
	memory->context = context;
	for (int kind = 0; kind < 2; kind++)
	{
		memory->items[kind] = make_table("sagaz memory records", sizeof(MemoryItem),
										 context);
		dlist_init(&memory->order[kind]);
	}
	return memory;
}

static void
parse_url(const char *rest, List **server_options, List **user_options)
{
	if (rest[0] == '\0')
		return;
	if (strpbrk(rest, "/?#@") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("url is not one of a memory storage"),
				 errhint("Such URLs are memory:// and memory://name.")));
	*server_options =
		lappend(*server_options,
				makeDefElem("name", (Node *) makeString(pstrdup(rest)), -1));
}

static void
check_option(const char *name, const char *value)
{
}

static SagazStore *
memory_open(const SagazLocation *location)
{
	MemoryStore *store = palloc0(sizeof(MemoryStore));

	store->memory = find_memory(location->identity);
	return &store->base;
}

static Memory *
memory_of(SagazStore *store)
{
	return ((MemoryStore *) store)->memory;
}

static void
memory_ping(SagazStore *store)
{
}

static void
memory_describe(SagazStore *store, JsonbParseState **state)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = pstrdup("bytes");
	value.val.string.len = strlen("bytes");
	pushJsonbValue(state, WJB_KEY, &value);
	value.type = jbvNumeric;
	value.val.numeric =
		int64_to_numeric(MemoryContextMemAllocated(memory_of(store)->context,
												   true));
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
memory_begin(SagazStore *store, bool write)
{
}

static void
memory_end(SagazStore *store)
{
}

static bool
memory_get(SagazStore *store, SagazKind kind, const char *key,
		   SagazRecord *record)
{
	MemoryItem	   *item = hash_search(memory_of(store)->items[kind], &key,
								   HASH_FIND, NULL);

	if (item == NULL)
		return false;
	sagaz_record_copy(kind, record, &item->record);
	return true;
}

/* Refuse to grow beyond the limit. */
static void
check_limit(SagazStore *store)
{
	Size		bytes = MemoryContextMemAllocated(memory_of(store)->context,
												  true);

	if (bytes > (Size) sagaz_memory_limit * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CAPACITY),
				 errmsg("storage \"%s\" is full", store->name),
				 errdetail("It has %zu bytes; sagaz.memory_limit is %d kB.",
						   bytes, sagaz_memory_limit),
				 errhint("Delete records, or raise sagaz.memory_limit.")));
}

/* Put a copy of a record, which becomes the table's. */
static void
put_copy(Memory *memory, SagazKind kind, SagazRecord *copy)
{
	const char *key = sagaz_record_key(kind, copy);
	bool		found;
	MemoryItem	   *item = hash_search(memory->items[kind], &key, HASH_ENTER,
								   &found);

	if (found)
	{
		SagazRecord old = item->record;

		item->record = *copy;
		item->key = key;
		sagaz_record_free(kind, &old);
		return;
	}
	item->record = *copy;
	dlist_push_tail(&memory->order[kind], &item->node);
}

static void
memory_put(SagazStore *store, SagazKind kind, const SagazRecord *records,
		   int count)
{
	Memory	   *memory = memory_of(store);
	SagazRecord *copies = palloc(count * sizeof(SagazRecord));
	MemoryContext outer;

	check_limit(store);
	outer = MemoryContextSwitchTo(memory->context);
	for (int i = 0; i < count; i++)
		sagaz_record_copy(kind, &copies[i], &records[i]);
	for (int i = 0; i < count; i++)
		put_copy(memory, kind, &copies[i]);
	MemoryContextSwitchTo(outer);
	pfree(copies);
}

static int64
memory_remove(SagazStore *store, SagazKind kind, const char *const *keys,
			  int count)
{
	Memory	   *memory = memory_of(store);
	int64		removed = 0;

	for (int i = 0; i < count; i++)
	{
		MemoryItem	   *item = hash_search(memory->items[kind], &keys[i],
									   HASH_FIND, NULL);
		SagazRecord record;

		if (item == NULL)
			continue;
		record = item->record;
		dlist_delete(&item->node);
		(void) hash_search(memory->items[kind], &keys[i], HASH_REMOVE, NULL);
		sagaz_record_free(kind, &record);
		removed++;
	}
	return removed;
}

static int64
memory_count(SagazStore *store, SagazKind kind, const SagazFilter *filter)
{
	Memory	   *memory = memory_of(store);
	dlist_iter	iter;
	int64		count = 0;

	dlist_foreach(iter, &memory->order[kind])
	{
		MemoryItem	   *item = dlist_container(MemoryItem, node, iter.cur);

		CHECK_FOR_INTERRUPTS();
		if (sagaz_filter_matches(filter, kind, &item->record))
			count++;
	}
	return count;
}

static int
compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

static SagazReader *
memory_scan(SagazStore *store, SagazKind kind, const SagazFilter *filter)
{
	Memory	   *memory = memory_of(store);
	MemoryContext context = AllocSetContextCreate(store->context,
												  "sagaz memory scan",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(context);
	MemoryReader *reader = palloc0(sizeof(MemoryReader));
	dlist_iter	iter;

	reader->base.store = store;
	reader->base.kind = kind;
	reader->base.context = context;
	reader->filter = filter;
	reader->keys =
		MemoryContextAllocHuge(context, sizeof(char *) *
							   (hash_get_num_entries(memory->items[kind]) + 1));
	dlist_foreach(iter, &memory->order[kind])
	{
		MemoryItem	   *item = dlist_container(MemoryItem, node, iter.cur);

		if (sagaz_filter_matches(filter, kind, &item->record))
			reader->keys[reader->count++] = pstrdup(item->key);
	}
	if (filter->order == SAGAZ_BY_KEY)
		qsort(reader->keys, reader->count, sizeof(char *), compare_strings);
	MemoryContextSwitchTo(outer);
	return &reader->base;
}

static bool
memory_read_next(SagazReader *base, SagazRecord *record)
{
	MemoryReader *reader = (MemoryReader *) base;

	while (reader->next < reader->count &&
		   (reader->filter->limit == 0 ||
			reader->given < reader->filter->limit))
	{
		CHECK_FOR_INTERRUPTS();
		if (memory_get(base->store, base->kind, reader->keys[reader->next++],
					   record))
		{
			reader->given++;
			return true;
		}
	}
	return false;
}

static void
memory_read_end(SagazReader *reader)
{
}

static const char *
memory_library_version(void)
{
	return NULL;
}

static const char *const server_options[] = {"name", NULL};
static const char *const user_options[] = {NULL};

const SagazBackend sagaz_memory_backend = {
	.size = sizeof(SagazBackend),
	.name = "memory",
	.wrapper = "sagaz_memory",
	.scheme = "memory",
	.capabilities = SAGAZ_CAN_SAGA | SAGAZ_CAN_OUTBOX | SAGAZ_CAN_ATOMIC |
	SAGAZ_CAN_ORDER,
	.server_options = server_options,
	.user_options = user_options,
	.library_version = memory_library_version,
	.parse_url = parse_url,
	.check_option = check_option,
	.open = memory_open,
	.ping = memory_ping,
	.describe = memory_describe,
	.begin = memory_begin,
	.commit = memory_end,
	.rollback = memory_end,
	.get = memory_get,
	.put = memory_put,
	.remove = memory_remove,
	.count = memory_count,
	.scan = memory_scan,
	.read_next = memory_read_next,
	.read_end = memory_read_end,
	.claim = sagaz_outbox_claim,
	.finish = sagaz_outbox_finish,
	.release = sagaz_outbox_release,
	.extend = sagaz_outbox_extend,
	.expire = sagaz_outbox_expire,
};
