/*
 * exchange.c
 *		Records out of and into any storage: export_all(), import_record(),
 *		count_records() and checksum(), in the normal form.
 */
#include "sagaz.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "group.h"
#include "record.h"
#include "rows.h"
#include "saga.h"
#include "storage.h"

PG_FUNCTION_INFO_V1(sagaz_export_all);
PG_FUNCTION_INFO_V1(sagaz_export_saga);
PG_FUNCTION_INFO_V1(sagaz_import_record);
PG_FUNCTION_INFO_V1(sagaz_count_records);
PG_FUNCTION_INFO_V1(sagaz_checksum);

#define DIGEST_SIZE 32

/* The native tables as a store; it holds nothing open. */
static SagazStore *
native_store(void)
{
	SagazStore *store = palloc0(sizeof(SagazStore));

	store->backend = sagaz_backend_find("native");
	store->context = CurrentMemoryContext;
	store->name = "native";
	store->owner = GetUserId();
	store->consumer_group = SAGAZ_DEFAULT_GROUP;
	return store;
}

/* The storage of the last argument, and the kind of the one before it. */
static SagazStore *
store_argument(FunctionCallInfo fcinfo, SagazKind *kind)
{
	SagazStore *store;

	*kind = sagaz_kind_of(sagaz_text_argument(fcinfo, PG_NARGS() - 2, "type"));
	store = sagaz_store_of(fcinfo, *kind == SAGAZ_SAGA ? sagaz_saga_storage :
						   sagaz_outbox_storage, *kind);
	return store ? store : native_store();
}

/* One that cannot be read is left out, with a word of why. */
static void
warn_refused(const SagazStore *store, const SagazRecord *record)
{
	const char *key = sagaz_record_key(record);

	ereport(WARNING,
			(errcode(ERRCODE_SAGAZ_SERIALIZATION),
			 errmsg("record \"%s\" of storage \"%s\" is refused", key ? key : "",
					store->name),
			 errdetail("%s.", record->problem)));
}

/* export_all(type, storage) */
static Datum
export_all(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	SagazFilter filter = {.order = SAGAZ_BY_KEY};
	SagazKind	kind;
	SagazStore *store = store_argument(fcinfo, &kind);
	SagazReader *reader;
	SagazRecord record;
	MemoryContext part = AllocSetContextCreate(CurrentMemoryContext,
											   "sagaz export", ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer;

	sagaz_rows_begin(fcinfo);
	reader = sagaz_read_begin(store, kind, &filter);
	outer = MemoryContextSwitchTo(part);
	while (sagaz_read_next(reader, &record))
	{
		if (record.problem)
			warn_refused(store, &record);
		else
		{
			Datum		values[] = {JsonbPGetDatum(sagaz_record_to_json(&record))};
			bool		nulls[] = {false};

			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		}
		MemoryContextReset(part);
	}
	MemoryContextSwitchTo(outer);
	sagaz_read_end(reader);
	return (Datum) 0;
}

Datum
sagaz_export_all(PG_FUNCTION_ARGS)
{
	return sagaz_with_storage(fcinfo, export_all);
}

/* export_saga(saga_id): of the native tables */
Datum
sagaz_export_saga(PG_FUNCTION_ARGS)
{
	Snapshot	snapshot;
	SagazRecord record;
	SagaRow		saga;
	Jsonb	   *json = NULL;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (saga_read(PG_GETARG_DATUM(0), snapshot, &saga))
	{
		sagaz_record_from_json(SAGAZ_SAGA, saga_load_json(&saga, snapshot), &record);
		json = sagaz_record_to_json(&record);
	}
	UnregisterSnapshot(snapshot);
	if (json == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(json);
}

/* import_record(record, type, storage): was anything written? */
static Datum
import_record(FunctionCallInfo fcinfo)
{
	SagazKind	kind;
	SagazStore *store = store_argument(fcinfo, &kind);
	SagazRecord record;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("record must not be null")));
	sagaz_record_from_json(kind, PG_GETARG_JSONB_P(0), &record);
	if (record.problem)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_SERIALIZATION),
				 errmsg("record \"%s\" is refused",
						sagaz_record_key(&record) ? sagaz_record_key(&record) : ""),
				 errdetail("%s.", record.problem)));
	PG_RETURN_BOOL(sagaz_put(store, &record, 1, SAGAZ_PUT_ALWAYS) > 0);
}

Datum
sagaz_import_record(PG_FUNCTION_ARGS)
{
	return sagaz_with_storage(fcinfo, import_record);
}

/* count_records(type, storage) */
static Datum
count_records(FunctionCallInfo fcinfo)
{
	SagazFilter filter = {0};
	SagazKind	kind;
	SagazStore *store = store_argument(fcinfo, &kind);

	PG_RETURN_INT64(sagaz_count(store, kind, &filter));
}

Datum
sagaz_count_records(PG_FUNCTION_ARGS)
{
	return sagaz_with_storage(fcinfo, count_records);
}

/* Add a record's digest to the sum, as numbers of 256 bits. */
static void
add_digest(uint8 *sum, const SagazRecord *record)
{
	Jsonb	   *json = sagaz_record_to_json(record);
	char	   *text = JsonbToCString(NULL, &json->root, VARSIZE(json));
	bytea	   *digest =
		DatumGetByteaPP(DirectFunctionCall1(sha256_bytea,
											PointerGetDatum(cstring_to_text(text))));
	const uint8 *bytes = (const uint8 *) VARDATA_ANY(digest);
	int			carry = 0;

	for (int i = DIGEST_SIZE - 1; i >= 0; i--)
	{
		carry += sum[i] + bytes[i];
		sum[i] = carry & 0xff;
		carry >>= 8;
	}
}

/*
 * checksum(type, storage): the sum of the records' SHA-256, so that the order
 * in which a storage yields them makes no difference.
 */
static Datum
checksum(FunctionCallInfo fcinfo)
{
	SagazFilter filter = {0};
	SagazKind	kind;
	SagazStore *store = store_argument(fcinfo, &kind);
	SagazReader *reader = sagaz_read_begin(store, kind, &filter);
	MemoryContext part = AllocSetContextCreate(CurrentMemoryContext,
											   "sagaz checksum", ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(part);
	uint8		sum[DIGEST_SIZE] = {0};
	char		hex[2 * DIGEST_SIZE + 1];
	SagazRecord record;

	while (sagaz_read_next(reader, &record))
	{
		if (record.problem)
			warn_refused(store, &record);
		else
			add_digest(sum, &record);
		MemoryContextReset(part);
	}
	MemoryContextSwitchTo(outer);
	sagaz_read_end(reader);
	hex_encode((const char *) sum, DIGEST_SIZE, hex);
	hex[2 * DIGEST_SIZE] = '\0';
	PG_RETURN_TEXT_P(cstring_to_text(hex));
}

Datum
sagaz_checksum(PG_FUNCTION_ARGS)
{
	return sagaz_with_storage(fcinfo, checksum);
}
