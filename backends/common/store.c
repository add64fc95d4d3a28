/*
 * store.c
 *		Stores and their readers, and what a backend does that has no such thing.
 */
#include "backends/common/backend.h"

#include "commands/defrem.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "backends/record/bounds.h"
#include "backends/record/record.h"

/*
 * The value of an option in a list, or NULL; what it points to may be the
 * list's.
 */
const char *
sagaz_store_find_option(const List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, name) == 0)
			return defGetString(option);
	}
	return NULL;
}

/* Close it, or let its last reader do that: a cursor may outlive its use. */
void
sagaz_store_close(SagazStore *store)
{
	store->is_left = true;
	if (store->readers == 0)
		MemoryContextDelete(store->context);
}

static void
store_reader_is_gone(void *arg)
{
	SagazStore *store = arg;

	if (--store->readers == 0 && store->is_left)
		MemoryContextDelete(store->context);
}

/* What is tied first runs last, after what the backend ties to the context. */
static void
hold_store(SagazStore *store, MemoryContext context)
{
	MemoryContextCallback *callback = MemoryContextAlloc(context, sizeof(*callback));

	callback->func = store_reader_is_gone;
	callback->arg = store;
	MemoryContextRegisterResetCallback(context, callback);
	store->readers++;
}

/*
 * The reader lies in a context below the present one, and the filter's
 * strings must last as long.  It may outlive a call of sagaz_store_close().
 */
SagazReader *
sagaz_store_read_begin(SagazStore *store, SagazKind kind, const SagazFilter *filter)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "sagaz reader",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(context);
	SagazReader *reader = palloc0(store->backend->reader_size);

	hold_store(store, context);
	reader->store = store;
	reader->context = context;
	reader->kind = kind;
	reader->filter = *filter;
	store->backend->read_begin(reader);
	MemoryContextSwitchTo(outer);
	return reader;
}

/*
 * After an error it is not called: then the reader goes with the context in
 * which it began.
 */
void
sagaz_store_read_end(SagazReader *reader)
{
	reader->store->backend->read_end(reader);
	MemoryContextDelete(reader->context);
}

/*
 * Counting, for backends that have no quicker way.  Records with a problem
 * count, where the filter does not ask for what cannot be read of them.
 */
int64
sagaz_store_count_by_reading(SagazStore *store, SagazKind kind, const SagazFilter *filter)
{
	SagazReader *reader = sagaz_store_read_begin(store, kind, filter);
	MemoryContext part = AllocSetContextCreate(CurrentMemoryContext,
											   "sagaz count", ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(part);
	SagazRecord record;
	int64		count = 0;

	while (sagaz_store_read_next(reader, &record))
	{
		count++;
		MemoryContextReset(part);
	}
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(part);
	sagaz_store_read_end(reader);
	return count;
}

/* The value of an option of the store, or NULL. */
const char *
sagaz_store_option(const SagazStore *store, const char *name)
{
	return sagaz_store_find_option(store->options, name);
}

/* Of storages that are one place or have nothing in common. */
bool
sagaz_store_no_overlap(List *options, List *others)
{
	return false;
}

List *
sagaz_store_no_faults(SagazStore *store, SagazKind kind)
{
	return NIL;
}

char *
sagaz_store_fits_all(SagazStore *store, const SagazRecord *record)
{
	return NULL;
}

/* Of those that keep text as UTF-8, for the Python library too, and have no other limits. */
char *
sagaz_store_fits_library(SagazStore *store, const SagazRecord *record)
{
	char	   *why = sagaz_bounds_for_library(record, NULL);

	return why ? why : sagaz_unfit_for_encoding(record, PG_UTF8);
}

static void
check_for_library(const SagazRecord *record, const SagazRecord *before)
{
	char	   *why = sagaz_bounds_for_library(record, before);

	if (why)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_SERIALIZATION),
				 errmsg("record \"%s\" is refused", sagaz_record_key(record)),
				 errdetail_internal("%s.", why),
				 errhint("Write such a number as a string, or keep the document in a storage of sagaz alone.")));
}

/* An error if the Python library could not read one of them. */
void
sagaz_store_check_library(SagazStore *store, const SagazRecord *records, int count)
{
	for (int i = 0; i < count; i++)
		check_for_library(&records[i], NULL);
}

typedef struct LibraryEdit
{
	SagazEdit	edit;
	void	   *arg;
} LibraryEdit;

static SagazVerdict
edit_for_library(SagazRecord *record, bool exists, void *arg)
{
	const LibraryEdit *library = arg;
	SagazRecord before = *record;
	SagazVerdict verdict = library->edit(record, exists, library->arg);

	if (verdict == SAGAZ_CHANGE)
		check_for_library(record, &before);
	return verdict;
}

/* An edit that brings in no document that the Python library could not read. */
int64
sagaz_store_edit(SagazStore *store, SagazKind kind, const SagazFilter *filter,
				 bool create, SagazEdit edit, void *arg)
{
	LibraryEdit library = {edit, arg};

	return store->backend->edit(store, kind, filter, create, edit_for_library, &library);
}

/* Of a backend all of whose stores can the same; nobody is asked. */
int
sagaz_store_can_all(SagazStore *store)
{
	return store->backend->capabilities;
}

/* Nobody gets here who has asked store_can() before. */
int64
sagaz_store_no_edit(SagazStore *store, SagazKind kind, const SagazFilter *filter,
					bool create, SagazEdit edit, void *arg)
{
	elog(ERROR, "storage \"%s\" takes no edits", store->name);
	return 0;
}

/* Where nothing else can come to its place unnoticed, or nothing tells it. */
char *
sagaz_store_origin_by_identity(SagazStore *store, const char *known)
{
	return store->backend->identity(store, SAGAZ_SAGA);
}

char *
sagaz_store_no_position(SagazReader *reader)
{
	return NULL;
}

bool
sagaz_store_no_call(SagazStore *store, const SagazCall *call)
{
	return false;
}

static void
refuse_store_stream(SagazStore *store)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_STORAGE),
			 errmsg("storage \"%s\" has no streams", store->name)));
}

/*
 * An error, here and in what follows; create_delivery() looks for
 * SAGAZ_HAS_STREAMS first.
 */
void
sagaz_store_no_publish(SagazStore *store, SagazRecord *records, int count)
{
	refuse_store_stream(store);
}

SagazStreamId
sagaz_store_no_stream_end(SagazStore *store)
{
	SagazStreamId none = {0, 0};

	refuse_store_stream(store);
	return none;
}

bool
sagaz_store_no_stream_append(SagazStore *store, SagazStreamId end,
							 SagazRecord *records, const SagazStreamId *ids,
							 int count)
{
	refuse_store_stream(store);
	return false;
}

List *
sagaz_store_no_stream_read(SagazStore *store, SagazStreamId from, SagazStreamId to)
{
	refuse_store_stream(store);
	return NIL;
}
