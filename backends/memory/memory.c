/*
 * memory.c
 *		Storages in this session's memory.
 *
 * They need no server and no file and are gone with the session: for tests,
 * and to try things out.  A store is a hash table of records a kind, each in
 * a memory context of its own; sagaz.memory_limit bounds all of a store.
 * Changes are prepared in full before the first is made, so that an error
 * leaves the store as it was.
 *
 * The folder is this file.  It is the smallest backend, and the one to copy.
 */
#include "backends/common/backend.h"

#include "miscadmin.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "backends/common/url.h"
#include "backends/record/record.h"
#include "lib/key_table.h"

typedef struct MemoryEntry
{
	const char *key;			/* must be first; is in the record */
	MemoryContext context;		/* the record's */
	SagazRecord *record;
} MemoryEntry;

typedef struct MemoryStore
{
	SagazStore	base;
	MemoryContext tables;		/* of the entries */
	HTAB	   *entries[SAGAZ_EVENT + 1];
	Size		bytes;			/* of all records */
} MemoryStore;

typedef struct MemoryReader
{
	SagazReader base;
	int			nfound;
	int			next;
	SagazRecord **found;		/* copies, in order */
	char	  **keys;			/* or else these */
} MemoryReader;

/* A change that is to be made; new is NULL where a record goes. */
typedef struct MemoryChange
{
	char	   *key;
	MemoryContext context;
	SagazRecord *record;
} MemoryChange;

static const char *
memory_version(void)
{
	return "";
}

static List *
memory_read_url(const char *scheme, const char *rest)
{
	return sagaz_url_add_option(NIL, "name", pstrdup(rest));
}

static void
memory_open(SagazStore *base)
{
	MemoryStore *store = (MemoryStore *) base;

	store->tables = AllocSetContextCreate(CurrentMemoryContext,
										  "sagaz memory storage",
										  ALLOCSET_DEFAULT_SIZES);
	for (int kind = SAGAZ_SAGA; kind <= SAGAZ_EVENT; kind++)
		store->entries[kind] =
			sagaz_key_table("sagaz memory table", 256, sizeof(MemoryEntry),
							store->tables);
}

static void
memory_ping(SagazStore *base)
{
}

static char *
memory_identity(SagazStore *base, SagazKind kind)
{
	return psprintf("memory:%d:" INT64_FORMAT ":%p", MyProcPid, MyStartTimestamp,
					(void *) base);
}

static MemoryEntry *
find_memory_entry(SagazStore *base, SagazKind kind, const char *key)
{
	return hash_search(((MemoryStore *) base)->entries[kind], &key, HASH_FIND, NULL);
}

/* Prepare the change of a record to a copy of this one. */
static MemoryChange *
prepare_memory_change(SagazStore *store, const SagazRecord *record)
{
	MemoryChange *change = palloc(sizeof(MemoryChange));
	MemoryContext outer;

	change->context = AllocSetContextCreate(CurrentMemoryContext,
											"sagaz record",
											ALLOCSET_START_SMALL_SIZES);
	outer = MemoryContextSwitchTo(change->context);
	change->record = palloc(sizeof(SagazRecord));
	sagaz_record_copy(record, change->record);
	change->key = unconstify(char *, sagaz_record_key(change->record));
	MemoryContextSwitchTo(outer);
	return change;
}

/* Of one record. */
static Size
memory_bytes(MemoryContext context)
{
	return MemoryContextMemAllocated(context, false);
}

static void
check_memory_limit(SagazStore *store, List *changes)
{
	Size		limit = (Size) sagaz_memory_limit * 1024;
	Size		total = ((MemoryStore *) store)->bytes +
		MemoryContextMemAllocated(((MemoryStore *) store)->tables, true);
	ListCell   *cell;

	foreach(cell, changes)
	{
		MemoryChange *change = lfirst(cell);

		if (change->context)
			total += memory_bytes(change->context);
	}
	if (total > limit)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CAPACITY),
				 errmsg("storage \"%s\" is full", store->name),
				 errdetail("It may take up sagaz.memory_limit, %d kB.",
						   sagaz_memory_limit),
				 errhint("Remove records, or increase sagaz.memory_limit.")));
}

/* Make the changes; nothing here can fail but for want of memory. */
static void
apply_to_memory(SagazStore *store, SagazKind kind, List *changes)
{
	MemoryStore *memory = (MemoryStore *) store;
	HTAB	   *entries = memory->entries[kind];
	ListCell   *cell;

	check_memory_limit(store, changes);
	foreach(cell, changes)
	{
		MemoryChange *change = lfirst(cell);
		bool		found;
		MemoryEntry *entry;
		MemoryContext old = NULL;

		entry = hash_search(entries, &change->key,
							change->record ? HASH_ENTER : HASH_FIND, &found);
		if (found)
			old = entry->context;
		if (change->record)
		{
			MemoryContextSetParent(change->context, store->context);
			memory->bytes += memory_bytes(change->context);
			entry->key = change->key;
			entry->context = change->context;
			entry->record = change->record;
		}
		else if (found)
			(void) hash_search(entries, &change->key, HASH_REMOVE, NULL);
		if (old == NULL)
			continue;
		memory->bytes -= memory_bytes(old);
		MemoryContextDelete(old);
	}
}

/* Is the key there, or one of those before it, to which it is added? */
static bool
is_taken_in_memory(SagazStore *store, SagazKind kind, HTAB *before, const char *key)
{
	bool		found;

	(void) hash_search(before, &key, HASH_ENTER, &found);
	return found || find_memory_entry(store, kind, key) != NULL;
}

static int64
memory_put(SagazStore *store, SagazRecord *records, int count, SagazPutMode mode)
{
	List	   *changes = NIL;
	HTAB	   *before = mode == SAGAZ_PUT_ALWAYS ? NULL :
		sagaz_key_table("sagaz memory keys", count, sizeof(char *), CurrentMemoryContext);

	for (int i = 0; i < count; i++)
	{
		const char *key = sagaz_record_key(&records[i]);
		bool		exists = before && is_taken_in_memory(store, records[i].kind, before, key);

		if (exists && mode == SAGAZ_PUT_NEW)
			ereport(ERROR,
					(errcode(ERRCODE_UNIQUE_VIOLATION),
					 errmsg("record \"%s\" exists already in storage \"%s\"",
							key, store->name)));
		if (!exists)
			changes = lappend(changes, prepare_memory_change(store, &records[i]));
	}
	apply_to_memory(store, records[0].kind, changes);
	return list_length(changes);
}

static int
compare_memory_found(const void *a, const void *b, void *arg)
{
	return sagaz_filter_compare(*(SagazRecord *const *) a,
								*(SagazRecord *const *) b,
								*(SagazOrder *) arg);
}

/* Find those among the filter's keys that match. */
static int
find_memory_by_keys(SagazStore *store, SagazKind kind, const SagazFilter *filter,
					SagazRecord **found)
{
	int			count = 0;

	for (int i = 0; i < filter->nkeys; i++)
	{
		MemoryEntry *entry = find_memory_entry(store, kind, filter->keys[i]);

		if (entry && sagaz_filter_matches(filter, entry->record))
			found[count++] = entry->record;
	}
	return count;
}

/* The stored records that match, in order, not more than the limit. */
static SagazRecord **
find_in_memory(SagazStore *store, SagazKind kind, const SagazFilter *filter,
			   int *count)
{
	HTAB	   *entries = ((MemoryStore *) store)->entries[kind];
	SagazRecord **found = palloc((Max(hash_get_num_entries(entries), filter->nkeys) + 1) *
								 sizeof(SagazRecord *));
	SagazOrder	order = filter->order;
	HASH_SEQ_STATUS scan;
	MemoryEntry *entry;

	*count = 0;
	if (filter->nkeys > 0)
		*count = find_memory_by_keys(store, kind, filter, found);
	else
	{
		hash_seq_init(&scan, entries);
		while ((entry = hash_seq_search(&scan)) != NULL)
			if (sagaz_filter_matches(filter, entry->record))
				found[(*count)++] = entry->record;
	}
	qsort_arg(found, *count, sizeof(SagazRecord *), compare_memory_found, &order);
	if (filter->limit > 0)
		*count = Min(*count, filter->limit);
	return found;
}

/* What the callback makes of one record, or NULL. */
static MemoryChange *
edit_in_memory(SagazStore *store, const SagazRecord *stored, bool exists,
			   SagazEdit edit, void *arg)
{
	SagazRecord record = *stored;
	MemoryChange *change;

	switch (edit(&record, exists, arg))
	{
		case SAGAZ_CHANGE:
			return prepare_memory_change(store, &record);
		case SAGAZ_REMOVE:
			change = palloc0(sizeof(MemoryChange));
			change->key = pstrdup(sagaz_record_key(stored));
			return change;
		case SAGAZ_KEEP:
			break;
	}
	return NULL;
}

static int64
memory_edit(SagazStore *store, SagazKind kind, const SagazFilter *filter,
			bool create, SagazEdit edit, void *arg)
{
	List	   *changes = NIL;
	SagazRecord fresh = {.kind = kind};
	int			count;
	SagazRecord **found = find_in_memory(store, kind, filter, &count);

	for (int i = 0; i < count; i++)
	{
		MemoryChange *change = edit_in_memory(store, found[i], true, edit, arg);

		if (change)
			changes = lappend(changes, change);
	}
	if (create && find_memory_entry(store, kind, filter->key) == NULL)
	{
		MemoryChange *change;

		fresh.saga.saga_id = fresh.event.event_id = pstrdup(filter->key);
		change = edit_in_memory(store, &fresh, false, edit, arg);
		if (change)
			changes = lappend(changes, change);
	}
	apply_to_memory(store, kind, changes);
	return list_length(changes);
}

/* For a copy, which need not be of one moment, the keys are enough. */
static void
keep_memory_keys(MemoryReader *reader, SagazRecord **found)
{
	reader->keys = palloc((reader->nfound + 1) * sizeof(char *));
	for (int i = 0; i < reader->nfound; i++)
		reader->keys[i] = pstrdup(sagaz_record_key(found[i]));
	pfree(found);
}

static bool
next_of_memory_keys(MemoryReader *reader, SagazRecord *record)
{
	while (reader->next < reader->nfound)
	{
		MemoryEntry *entry = find_memory_entry(reader->base.store, reader->base.kind,
											   reader->keys[reader->next++]);

		if (entry == NULL)
			continue;
		sagaz_record_copy(entry->record, record);
		return true;
	}
	return false;
}

/* The reader sees the store as it is now, whatever is changed meanwhile. */
static void
memory_read_begin(SagazReader *base)
{
	MemoryReader *reader = (MemoryReader *) base;
	SagazRecord **found = find_in_memory(base->store, base->kind, &base->filter,
										 &reader->nfound);

	if (base->filter.order == SAGAZ_FOR_COPY)
	{
		keep_memory_keys(reader, found);
		return;
	}
	reader->found = found;
	for (int i = 0; i < reader->nfound; i++)
	{
		SagazRecord *copy = palloc(sizeof(SagazRecord));

		sagaz_record_copy(found[i], copy);
		found[i] = copy;
	}
}

static bool
memory_read_next(SagazReader *base, SagazRecord *record)
{
	MemoryReader *reader = (MemoryReader *) base;

	if (reader->keys)
		return next_of_memory_keys(reader, record);
	if (reader->next >= reader->nfound)
		return false;
	sagaz_record_copy(reader->found[reader->next++], record);
	return true;
}

static void
memory_read_end(SagazReader *base)
{
}

static int64
memory_count(SagazStore *store, SagazKind kind, const SagazFilter *filter)
{
	int			count;

	pfree(find_in_memory(store, kind, filter, &count));
	return count;
}

static const char *const memory_schemes[] = {"memory", NULL};

static const SagazOption memory_options[] = {
	{.name = "name"},
	SAGAZ_COMMON_OPTIONS
};

const SagazBackend sagaz_memory_backend = {
	.name = "memory",
	.capabilities = SAGAZ_KEEPS_SAGAS | SAGAZ_KEEPS_EVENTS | SAGAZ_TAKES_EDITS | SAGAZ_KEEPS_VERSIONS,
	.store_size = sizeof(MemoryStore),
	.reader_size = sizeof(MemoryReader),
	.options = memory_options,
	.version = memory_version,
	.schemes = memory_schemes,
	.read_url = memory_read_url,
	.open = memory_open,
	.ping = memory_ping,
	.examine = sagaz_store_no_faults,
	.overlap = sagaz_store_no_overlap,
	.make_ready = memory_ping,
	.store_can = sagaz_store_can_all,
	.identity = memory_identity,
	.origin = sagaz_store_origin_by_identity,
	.unfit = sagaz_store_fits_all,
	.put = memory_put,
	.edit = memory_edit,
	SAGAZ_MERGES_BY_EDIT,
	.read_begin = memory_read_begin,
	.read_next = memory_read_next,
	.read_end = memory_read_end,
	.read_position = sagaz_store_no_position,
	.count = memory_count,
	SAGAZ_CLAIMS_BY_EDIT,
	.call = sagaz_store_no_call,
	SAGAZ_WITHOUT_STREAMS
};
