/*
 * postgres_sagaz.c
 *		Storages in another database that has this extension.
 *
 * Functions that take a storage are run there, by the function of the same
 * name on the native tables, with the rights of the user there.  Copies go
 * over export_all(), import_records() and count_records().
 */
#include "postgres_store.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "record.h"

static const char *
type_word(SagazKind kind)
{
	return kind == SAGAZ_SAGA ? "saga" : "outbox";
}

/* The function's rows go to the call's receiver, one by one. */
bool
postgres_sagaz_call(PostgresStore *store, const SagazCall *call)
{
	PostgresResult *result;
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT * FROM sagaz.%s(", quote_identifier(call->function));
	for (int i = 0; i < call->nargs; i++)
		appendStringInfo(&sql, "$%d, ", i + 1);
	appendStringInfoString(&sql, "'native')");
	result = postgres_query(store, sql.data, call->nargs, call->types, call->values);
	for (int row = 0; row < result->nrows; row++)
		call->row(call->arg, &result->values[(Size) row * result->ncolumns],
				  result->ncolumns);
	return true;
}

static int64
sagaz_layout_put(PostgresStore *store, SagazRecord *records, int count,
				 SagazPutMode mode)
{
	static const Oid types[] = {JSONBOID, TEXTOID, TEXTOID};
	Jsonb	   *json = sagaz_records_to_json(records, count);
	const char *values[] = {
		JsonbToCString(NULL, &json->root, VARSIZE(json)),
		type_word(records[0].kind),
		mode == SAGAZ_PUT_NEW ? "error" : mode == SAGAZ_PUT_MISSING ? "skip" : "replace"
	};
	PostgresResult *result;

	result = postgres_query(store, "SELECT sagaz.import_records($1, $2, $3, 'native')",
							lengthof(values), types, values);
	return strtoll(postgres_value(result, 0, 0), NULL, 10);
}

static int64
sagaz_layout_edit(PostgresStore *store, SagazKind kind, const SagazFilter *filter,
				  bool create, SagazEdit edit, void *arg)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_STORAGE),
			 errmsg("storage \"%s\" is edited by the sagaz at its end", store->base.name)));
	return 0;
}

static int64
sagaz_layout_count(PostgresStore *store, SagazKind kind, const SagazFilter *filter)
{
	const char *type = type_word(kind);
	PostgresResult *result;

	result = postgres_query(store, "SELECT sagaz.count_records($1, 'native')", 1, NULL, &type);
	return strtoll(postgres_value(result, 0, 0), NULL, 10);
}

/* ---------------------------------------------------------------------- */
/* Reading */

/*
 * A cursor that outlasts its transaction, so that everything is read as of
 * one moment and no transaction is open meanwhile.  Those of readers that an
 * error has ended are closed by the first reader of a later transaction.
 */
static void
open_cursor(PostgresReader *reader)
{
	static uint32 number = 0;
	PostgresStore *store = (PostgresStore *) reader->base.store;
	TimestampTz transaction = GetCurrentTransactionStartTimestamp();

	if (store->cursors_since != transaction)
		postgres_queue(store, "CLOSE ALL", 0, NULL, NULL);
	store->cursors_since = transaction;
	reader->cursor = MemoryContextAlloc(reader->base.context, NAMEDATALEN);
	snprintf(reader->cursor, NAMEDATALEN, "sagaz_%u", ++number);
	postgres_queue(store,
				   psprintf("DECLARE %s NO SCROLL CURSOR WITH HOLD FOR"
							" SELECT e FROM sagaz.export_all('%s', 'native') AS e%s",
							reader->cursor, type_word(reader->base.kind),
							reader->base.filter.order == SAGAZ_ANY_ORDER ? "" :
							reader->base.kind == SAGAZ_SAGA ?
							" ORDER BY e->>'saga_id' COLLATE \"C\"" :
							" ORDER BY e->>'event_id' COLLATE \"C\""),
				   0, NULL, NULL);
}

/* The next records that match, none at the end. */
List *
postgres_sagaz_fetch(PostgresReader *reader, int count)
{
	PostgresStore *store = (PostgresStore *) reader->base.store;
	List	   *records = NIL;
	PostgresResult *result;

	do
	{
		if (reader->cursor == NULL)
			open_cursor(reader);
		result = postgres_query(store, psprintf("FETCH %d FROM %s", count, reader->cursor),
								0, NULL, NULL);
		reader->at_end = result->nrows < count;
		for (int row = 0; row < result->nrows; row++)
		{
			SagazRecord *record = palloc(sizeof(SagazRecord));
			Datum		json = DirectFunctionCall1(jsonb_in,
												   CStringGetDatum(postgres_value(result, row, 0)));

			sagaz_record_from_json(reader->base.kind, DatumGetJsonbP(json), record);
			if (sagaz_filter_matches(&reader->base.filter, record))
				records = lappend(records, record);
		}
	} while (records == NIL && !reader->at_end);
	return records;
}

void
postgres_sagaz_close(PostgresReader *reader)
{
	PostgresStore *store = (PostgresStore *) reader->base.store;

	if (!store->base.broken)
		(void) postgres_query(store, psprintf("CLOSE %s", reader->cursor), 0, NULL, NULL);
	reader->cursor = NULL;
}

const PostgresOperations postgres_sagaz_operations = {
	.put = sagaz_layout_put,
	.edit = sagaz_layout_edit,
	.count = sagaz_layout_count
};
