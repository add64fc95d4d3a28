/*
 * storage_cache.c
 *		The stores that this session has open.
 *
 * A store stays open for the session, for a server and a user, or for a URL
 * and a user; what a superuser opened for himself is not what his functions
 * get when others call them.  It is opened anew where its options have changed, where it is
 * broken, and where it was idle for longer than sagaz.idle_timeout; a store
 * whose data would go with it is never closed for idleness.
 */
#include "lib/sagaz.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "outbox/group.h"
#include "storage/storage.h"

typedef struct StoreKey
{
	Oid			server;
	Oid			user;
	uint64		url;			/* hash of a URL, else 0 */
	bool		is_superusers;	/* where the login depends on that */
	char		padding[7];
} StoreKey;

typedef struct StoreEntry
{
	StoreKey	key;			/* must be first */
	SagazStore *store;			/* NULL: closed */
	TimestampTz used_at;
} StoreEntry;

static HTAB *stores = NULL;

static void
close_cache_entry(StoreEntry *entry)
{
	SagazStore *store = entry->store;

	entry->store = NULL;
	if (store)
		sagaz_store_close(store);
}

/* Close what was idle for too long. */
static void
close_idle_storages(void)
{
	TimestampTz now = GetCurrentTimestamp();
	HASH_SEQ_STATUS scan;
	StoreEntry *entry;

	hash_seq_init(&scan, stores);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (entry->store && sagaz_idle_timeout >= 0 &&
			(entry->store->backend->capabilities & SAGAZ_OUTLIVES_SESSION) != 0 &&
			TimestampDifferenceExceeds(entry->used_at, now, sagaz_idle_timeout))
			close_cache_entry(entry);
		if (entry->store == NULL)
			(void) hash_search(stores, &entry->key, HASH_REMOVE, NULL);
	}
}

static List *
copy_storage_options(List *options)
{
	List	   *copy = NIL;
	ListCell   *cell;

	foreach(cell, options)
		copy = lappend(copy, copyObject(lfirst(cell)));
	return copy;
}

/* They are of now, however long the store has been open. */
static void
take_file_rights(SagazStore *store, const SagazStorage *storage)
{
	store->reads_files = storage->reads_files;
	store->writes_files = storage->writes_files;
}

/* Open the store in a context of its own, which goes if that fails. */
static SagazStore *
open_storage(const SagazStorage *storage)
{
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(outer, "sagaz store",
												  ALLOCSET_DEFAULT_SIZES);
	SagazStore *store;
	const char *group;

	MemoryContextSwitchTo(context);
	store = palloc0(storage->backend->store_size);
	store->backend = storage->backend;
	store->context = context;
	store->name = pstrdup(storage->name);
	store->owner = storage->owner;
	store->is_superusers = storage->is_superusers;
	take_file_rights(store, storage);
	store->user = pstrdup(storage->user);
	store->options = copy_storage_options(storage->options);
	group = sagaz_store_option(store, "consumer_group");
	store->consumer_group = pstrdup(group ? group : SAGAZ_DEFAULT_GROUP);
	PG_TRY();
	{
		store->backend->open(store);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(outer);
		MemoryContextDelete(context);
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(outer);
	MemoryContextSetParent(context, TopMemoryContext);
	return store;
}

/*
 * The open store for a storage; name is how the caller called it.  Closes
 * what was idle for too long and what is broken; what is opened lies below
 * TopMemoryContext and belongs to the cache.
 */
SagazStore *
sagaz_storage_connect(const SagazStorage *storage, const char *name)
{
	StoreKey	key = {.server = storage->server,.user = GetUserId()};
	StoreEntry *entry;

	/* what is only in the session's memory is the same whoever's session it is */
	key.is_superusers = storage->is_superusers &&
		(storage->backend->capabilities & SAGAZ_OUTLIVES_SESSION) != 0;
	if (!OidIsValid(storage->server))
		key.url = DatumGetUInt64(hash_any_extended((const unsigned char *) name,
												   strlen(name), 0));
	if (stores == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(StoreKey),.entrysize = sizeof(StoreEntry)};

		stores = hash_create("sagaz stores", 16, &control, HASH_ELEM | HASH_BLOBS);
	}
	close_idle_storages();
	entry = hash_search(stores, &key, HASH_FIND, NULL);
	if (entry && entry->store &&
		(entry->store->broken || entry->store->owner != storage->owner ||
		 entry->store->backend != storage->backend ||
		 !equal(entry->store->options, storage->options)))
		close_cache_entry(entry);
	if (entry == NULL || entry->store == NULL)
	{
		/* first, so that one that cannot be opened leaves no entry */
		SagazStore *store = open_storage(storage);

		entry = hash_search(stores, &key, HASH_ENTER, NULL);
		entry->store = store;
	}
	take_file_rights(entry->store, storage);
	entry->used_at = GetCurrentTimestamp();
	return entry->store;
}
