/*
 * pages.c
 *		What another sagaz calls for copies: export_page(), merge_records()
 *		and remove_records(), one or a few calls a batch.
 */
#include "lib/sagaz.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "storage/records.h"
#include "backends/record/record.h"
#include "lib/rows.h"
#include "storage/secrets.h"
#include "storage/storage.h"

PG_FUNCTION_INFO_V1(sagaz_export_page);

static int
page_count_argument(FunctionCallInfo fcinfo, int argno, const char *field)
{
	if (PG_ARGISNULL(argno) || PG_GETARG_INT32(argno) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("%s must be positive", field)));
	return PG_GETARG_INT32(argno);
}

static void
put_page_row(ReturnSetInfo *result, SagazReader *reader, const SagazRecord *record,
			 StringInfo text)
{
	const char *position = reader->filter.order == SAGAZ_FOR_COPY ?
		reader->store->backend->read_position(reader) : sagaz_record_key(record);
	Datum		values[2];
	bool		nulls[2] = {false, false};

	resetStringInfo(text);
	sagaz_record_to_wire(record, text);
	values[0] = PointerGetDatum(cstring_to_text_with_len(text->data, text->len));
	values[1] = CStringGetTextDatum(position);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* Return records of the native tables until the page is full. */
static void
read_page_to_export(FunctionCallInfo fcinfo, SagazReader *reader, int max_rows)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext part = AllocSetContextCreate(CurrentMemoryContext,
											   "sagaz export", ALLOCSET_DEFAULT_SIZES);
	StringInfoData text;
	MemoryContext outer;
	SagazRecord record;
	Size		bytes = 0;

	initStringInfo(&text);
	outer = MemoryContextSwitchTo(part);
	for (int i = 0; i < max_rows && bytes < SAGAZ_PAGE_BYTES; i++)
	{
		if (!sagaz_store_read_next(reader, &record))
			break;
		put_page_row(result, reader, &record, &text);
		bytes += text.len;
		MemoryContextReset(part);
	}
	MemoryContextSwitchTo(outer);
}

/*
 * export_page(type, after, max_rows, keys): of the native tables.  The
 * position of a record that was asked for by key is its key.
 */
Datum
sagaz_export_page(PG_FUNCTION_ARGS)
{
	SagazFilter filter = {0};
	SagazKind	kind = sagaz_record_kind(sagaz_text_argument(fcinfo, 0, "type"));
	int			max_rows = page_count_argument(fcinfo, 2, "max_rows");
	SagazReader *reader;

	if (PG_ARGISNULL(3))
	{
		filter.order = SAGAZ_FOR_COPY;
		filter.position = sagaz_text_argument_or_null(fcinfo, 1);
	}
	else
		filter.keys = (const char *const *)
			sagaz_text_array_argument(fcinfo, 3, "keys", &filter.nkeys);
	sagaz_rows_begin(fcinfo);
	/* of no keys there are no records */
	if (!PG_ARGISNULL(3) && filter.nkeys == 0)
		return (Datum) 0;
	reader = sagaz_store_read_begin(sagaz_storage_native(), kind, &filter);
	read_page_to_export(fcinfo, reader, max_rows);
	sagaz_store_read_end(reader);
	return (Datum) 0;
}

/* merge_records(records, type, over_claims, storage): how it went */
static Datum
merge_records(FunctionCallInfo fcinfo)
{
	SagazKind	kind;
	SagazStore *store = sagaz_records_store(fcinfo, 1, &kind);
	SagazMerged merged = {0};
	int			count;
	SagazRecord *records = sagaz_read_records(fcinfo, 0, kind,
											  sagaz_record_from_wire, &count);
	TupleDesc	row_type;
	Datum		values[4];
	bool		nulls[4] = {0};
	bool		over_claims = DatumGetBool(sagaz_argument(fcinfo, 2, "over_claims"));

	if (get_call_result_type(fcinfo, NULL, &row_type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (count > 0)
		store->backend->merge(store, records, count, over_claims, &merged);
	values[0] = Int64GetDatum(merged.added);
	values[1] = Int64GetDatum(merged.changed);
	values[2] = Int64GetDatum(merged.unchanged);
	values[3] = Int64GetDatum(merged.kept);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(row_type),
													  values, nulls)));
}

SAGAZ_SQL_FUNCTION(sagaz_merge_records, sagaz_secrets_hide_storage, merge_records);

/* remove_records(keys, type, storage): how many were there? */
static Datum
remove_records(FunctionCallInfo fcinfo)
{
	SagazKind	kind;
	SagazStore *store = sagaz_records_store(fcinfo, 1, &kind);
	int			count;
	char	  **keys = sagaz_text_array_argument(fcinfo, 0, "keys", &count);

	PG_RETURN_INT64(count == 0 ? 0 :
					store->backend->remove(store, kind, (const char *const *) keys,
										   count));
}

SAGAZ_SQL_FUNCTION(sagaz_remove_records, sagaz_secrets_hide_storage, remove_records);
