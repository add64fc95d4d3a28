/*
 * records.c
 *		Records out of and into any storage: export_all(), import_record(),
 *		count_records() and checksum(), in the normal form.
 */
#include "lib/sagaz.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "backends/record/digest.h"
#include "storage/records.h"
#include "storage/calls.h"
#include "backends/record/record.h"
#include "lib/rows.h"
#include "storage/secrets.h"
#include "storage/storage.h"

/*
 * The storage of the last argument, and the kind of records; an error for a
 * word that is no kind, before the storage is opened.
 */
SagazStore *
sagaz_records_store(FunctionCallInfo fcinfo, int type_argno, SagazKind *kind)
{
	SagazStore *store;

	*kind = sagaz_record_kind(sagaz_text_argument(fcinfo, type_argno, "type"));
	store = sagaz_storage_argument(fcinfo, *kind);
	return store ? store : sagaz_storage_native();
}

/* One that cannot be read is left out, with a word of why. */
void
sagaz_records_warn(const SagazStore *store, const SagazRecord *record)
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
export_all_records(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	SagazFilter filter = {.order = SAGAZ_BY_KEY};
	SagazKind	kind;
	SagazStore *store = sagaz_records_store(fcinfo, 0, &kind);
	SagazReader *reader;
	SagazRecord record;
	MemoryContext part = AllocSetContextCreate(CurrentMemoryContext,
											   "sagaz export", ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer;

	sagaz_rows_begin(fcinfo);
	reader = sagaz_store_read_begin(store, kind, &filter);
	outer = MemoryContextSwitchTo(part);
	while (sagaz_store_read_next(reader, &record))
	{
		if (record.problem)
			sagaz_records_warn(store, &record);
		else
		{
			Datum		values[] = {JsonbPGetDatum(sagaz_record_to_json(&record))};
			bool		nulls[] = {false};

			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		}
		MemoryContextReset(part);
	}
	MemoryContextSwitchTo(outer);
	sagaz_store_read_end(reader);
	return (Datum) 0;
}

SAGAZ_SQL_FUNCTION(sagaz_export_all, sagaz_secrets_hide_storage, export_all_records);

/* A record that is to be put must have no problem. */
static void
refuse_problem_record(const SagazRecord *record)
{
	const char *key = sagaz_record_key(record);

	if (record->problem)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_SERIALIZATION),
				 errmsg("record \"%s\" is refused", key ? key : ""),
				 errdetail("%s.", record->problem)));
}

/* import_record(record, type, storage): was anything written? */
static Datum
import_record(FunctionCallInfo fcinfo)
{
	SagazKind	kind;
	SagazStore *store = sagaz_records_store(fcinfo, 1, &kind);
	SagazRecord record;

	sagaz_record_from_new(kind, DatumGetJsonbP(sagaz_argument(fcinfo, 0, "record")), &record);
	refuse_problem_record(&record);
	PG_RETURN_BOOL(sagaz_put(store, &record, 1, SAGAZ_PUT_ALWAYS) > 0);
}

SAGAZ_SQL_FUNCTION(sagaz_import_record, sagaz_secrets_hide_storage, import_record);

static SagazPutMode
record_mode_argument(FunctionCallInfo fcinfo, int argno)
{
	const char *word = sagaz_text_argument(fcinfo, argno, "if_exists");

	if (strcmp(word, "error") == 0)
		return SAGAZ_PUT_NEW;
	if (strcmp(word, "skip") == 0)
		return SAGAZ_PUT_MISSING;
	if (strcmp(word, "replace") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("if_exists \"%s\" is unknown", word),
				 errhint("Say 'replace', 'skip' or 'error'.")));
	return SAGAZ_PUT_ALWAYS;
}

static int
compare_record_keys(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* Which of two is to be kept, nobody could say. */
static void
refuse_twin_records(const SagazRecord *records, int count)
{
	const char **keys = palloc((count + 1) * sizeof(char *));

	for (int i = 0; i < count; i++)
		keys[i] = sagaz_record_key(&records[i]);
	qsort(keys, count, sizeof(char *), compare_record_keys);
	for (int i = 1; i < count; i++)
		if (strcmp(keys[i - 1], keys[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_SAGAZ_INPUT),
					 errmsg("records has \"%s\" twice", keys[i])));
}

/* The records of an array; read is sagaz_record_from_any_new() or like it. */
SagazRecord *
sagaz_read_records(FunctionCallInfo fcinfo, int argno, SagazKind kind,
				   void (*read) (SagazKind, Jsonb *, SagazRecord *), int *count)
{
	Jsonb	   *json = PG_ARGISNULL(argno) ? NULL : PG_GETARG_JSONB_P(argno);
	SagazRecord *records;

	if (json == NULL || !JB_ROOT_IS_ARRAY(json) || JB_ROOT_IS_SCALAR(json))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("records must be a JSON array")));
	*count = JB_ROOT_COUNT(json);
	records = palloc0((*count + 1) * sizeof(SagazRecord));
	for (int i = 0; i < *count; i++)
	{
		Jsonb	   *element =
			JsonbValueToJsonb(getIthJsonbValueFromContainer(&json->root, i));

		read(kind, element, &records[i]);
		refuse_problem_record(&records[i]);
		pfree(element);
	}
	refuse_twin_records(records, *count);
	return records;
}

/* import_records(records, type, if_exists, storage): how many were written? */
static Datum
import_records(FunctionCallInfo fcinfo)
{
	SagazKind	kind;
	SagazStore *store = sagaz_records_store(fcinfo, 1, &kind);
	SagazPutMode mode = record_mode_argument(fcinfo, 2);
	int			count;
	SagazRecord *records = sagaz_read_records(fcinfo, 0, kind,
											  sagaz_record_from_any_new, &count);

	PG_RETURN_INT64(sagaz_put(store, records, count, mode));
}

SAGAZ_SQL_FUNCTION(sagaz_import_records, sagaz_secrets_hide_storage, import_records);

/* count_records(type, storage) */
static Datum
count_records(FunctionCallInfo fcinfo)
{
	SagazFilter filter = {0};
	SagazKind	kind;
	SagazStore *store = sagaz_records_store(fcinfo, 0, &kind);

	PG_RETURN_INT64(sagaz_count(store, kind, &filter));
}

SAGAZ_SQL_FUNCTION(sagaz_count_records, sagaz_secrets_hide_storage, count_records);

/* checksum(type, storage) */
static Datum
checksum_of_records(FunctionCallInfo fcinfo)
{
	SagazFilter filter = {0};
	SagazKind	kind;
	SagazStore *store = sagaz_records_store(fcinfo, 0, &kind);
	SagazReader *reader;
	MemoryContext part = AllocSetContextCreate(CurrentMemoryContext,
											   "sagaz checksum", ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer;
	SagazDigest sum = {0};
	SagazRecord record;
	Datum		value;

	if (sagaz_remote_call(fcinfo, store, &value))
		return value;
	reader = sagaz_store_read_begin(store, kind, &filter);
	outer = MemoryContextSwitchTo(part);
	while (sagaz_store_read_next(reader, &record))
	{
		if (record.problem)
			sagaz_records_warn(store, &record);
		else
		{
			SagazDigest digest;

			sagaz_digest(&record, &digest);
			sagaz_digest_add(&sum, &digest);
		}
		MemoryContextReset(part);
	}
	MemoryContextSwitchTo(outer);
	sagaz_store_read_end(reader);
	PG_RETURN_TEXT_P(cstring_to_text(sagaz_digest_text(&sum)));
}

SAGAZ_SQL_FUNCTION(sagaz_checksum, sagaz_secrets_hide_storage, checksum_of_records);
