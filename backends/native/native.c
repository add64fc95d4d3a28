/*
 * native.c
 *		The native tables behind the interface of all storages: reading and
 *		putting whole records, for copies.
 *
 * A thin adapter over src/; the SQL functions on the native tables do not
 * come this way.
 */
#include "lib/sagaz.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

#include "outbox/group.h"
#include "backends/native/native_store.h"
#include "lib/owner.h"
#include "backends/record/record.h"

static const char *
native_version(void)
{
	return "";
}

static List *
native_read_url(const char *scheme, const char *rest)
{
	return NIL;
}

static void
native_open(SagazStore *store)
{
}

static void
native_ping(SagazStore *store)
{
}

static char *
native_identity(SagazStore *store, SagazKind kind)
{
	return psprintf("postgresql:" UINT64_FORMAT ":%u:sagaz",
					GetSystemIdentifier(), MyDatabaseId);
}

static void
put_native(NativePut *put, SagazRecord *records, int count)
{
	if (records[0].kind == SAGAZ_SAGA)
		native_put_sagas(put, records, count);
	else
		native_put_events(put, records, count);
}

static int64
native_put(SagazStore *store, SagazRecord *records, int count, SagazPutMode mode)
{
	NativePut	put = {.store = store,.mode = mode,.over_claims = true};

	put_native(&put, records, count);
	return put.merged.added + put.merged.changed;
}

static void
native_merge(SagazStore *store, SagazRecord *records, int count,
			 bool over_claims, SagazMerged *merged)
{
	NativePut	put = {.store = store,.mode = SAGAZ_PUT_ALWAYS,
	.over_claims = over_claims,.is_merge = true};

	if (count == 0)
		return;
	put_native(&put, records, count);
	merged->added += put.merged.added;
	merged->changed += put.merged.changed;
	merged->unchanged += put.merged.unchanged;
	merged->kept += put.merged.kept;
}

static int64
native_remove(SagazStore *store, SagazKind kind, const char *const *keys,
			  int nkeys)
{
	return kind == SAGAZ_SAGA ? native_remove_sagas(keys, nkeys) :
		native_remove_events(store, keys, nkeys);
}

/*
 * All records, counted by the index with the fewest pages.  Events that are
 * none of the group's are not records: those that are never read off the log
 * and have no retry row.
 */
static const char *const count_queries[] = {
	[SAGAZ_SAGA] = "SELECT pg_catalog.count(*) FROM sagaz.sagas",
	[SAGAZ_EVENT] = "SELECT (SELECT pg_catalog.count(*) FROM sagaz.outbox)"
	" OPERATOR(pg_catalog.-) (SELECT pg_catalog.count(*) FROM sagaz.outbox AS o"
	" WHERE o.pos OPERATOR(pg_catalog.<) '3'::pg_catalog.xid8 AND NOT EXISTS"
	" (SELECT FROM sagaz.outbox_retry AS r WHERE r.group_no OPERATOR(pg_catalog.=) $1"
	" AND r.seq OPERATOR(pg_catalog.=) o.seq))"
	" OPERATOR(pg_catalog.+) (SELECT pg_catalog.count(*) FROM sagaz.outbox_archive)"
};

/* The tables are the extension owner's. */
static int64
count_native(SagazKind kind, int16 group_no)
{
	Oid			types[] = {INT2OID};
	Datum		values[] = {Int16GetDatum(group_no)};
	SagazUser	user;
	bool		isnull;
	int64		count;

	sagaz_become_owner(&user);
	SPI_connect();
	if (SPI_execute_with_args(count_queries[kind], kind == SAGAZ_SAGA ? 0 : 1,
							  types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not count records");
	count = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
										SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	sagaz_owner_restore(&user);
	return count;
}

/* A group that begins at some time has to be asked about each event. */
static int64
native_count(SagazStore *store, SagazKind kind, const SagazFilter *filter)
{
	bool		all = filter->key == NULL && filter->nkeys == 0 &&
		filter->nstatuses == 0 && filter->name_part == NULL &&
		filter->saga_id == NULL && filter->event_type == NULL &&
		filter->batch_id == 0 && filter->updated_before == 0 &&
		filter->claimed_before == 0 && filter->sent_before == 0 &&
		filter->claimable_at == 0 && filter->limit == 0 &&
		filter->position == NULL;
	SagazGroup	group = {0};

	(void) sagaz_group_find_in(store->consumer_group, GetActiveSnapshot(), &group);
	if (!all ||
		(kind == SAGAZ_EVENT &&
		 (group.start_time != 0 ||
		  strcmp(store->consumer_group, SAGAZ_DEFAULT_GROUP) != 0)))
		return sagaz_store_count_by_reading(store, kind, filter);
	return count_native(kind, group.no);
}

static char *
native_unfit(SagazStore *store, const SagazRecord *record)
{
	return sagaz_fit_problem(record);
}

static const char *const native_schemes[] = {"native", NULL};

static const SagazOption native_options[] = {
	SAGAZ_COMMON_OPTIONS
};

const SagazBackend sagaz_native_backend = {
	.name = "native",
	.capabilities = SAGAZ_KEEPS_SAGAS | SAGAZ_KEEPS_EVENTS |
		SAGAZ_KEEPS_VERSIONS | SAGAZ_OUTLIVES_SESSION | SAGAZ_KEY_ORDER,
	.store_size = sizeof(SagazStore),
	.reader_size = sizeof(NativeReader),
	.options = native_options,
	.version = native_version,
	.schemes = native_schemes,
	.read_url = native_read_url,
	.open = native_open,
	.ping = native_ping,
	.examine = sagaz_store_no_faults,
	.overlap = sagaz_store_no_overlap,
	.make_ready = native_ping,
	.store_can = sagaz_store_can_all,
	.identity = native_identity,
	.origin = sagaz_store_origin_by_identity,
	.unfit = native_unfit,
	.put = native_put,
	.edit = sagaz_store_no_edit,
	.merge = native_merge,
	.remove = native_remove,
	.read_begin = native_read_begin,
	.read_next = native_read_next,
	.read_end = native_read_end,
	.read_position = native_read_position,
	.count = native_count,
	SAGAZ_CLAIMS_BY_EDIT,
	.call = sagaz_store_no_call,
	SAGAZ_WITHOUT_STREAMS
};
