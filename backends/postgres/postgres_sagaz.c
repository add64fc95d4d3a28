/*
 * postgres_sagaz.c
 *		Storages in another database that has this extension.
 *
 * Functions that take a storage are run there, by the function of the same
 * name on the native tables, with the rights of the user there.  Copies are
 * read by export_page() and written by merge_records().
 */
#include "backends/postgres/postgres_store.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "backends/postgres/postgres_columns.h"
#include "backends/record/record.h"

/* Records of a call, where a batch can have several. */
#define MERGE_PART 125

static const char *
sagaz_type_word(SagazKind kind)
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
	appendStringInfo(&sql, "SELECT * FROM %s(",
					 quote_qualified_identifier(call->schema, call->function));
	for (int i = 0; i < call->nargs; i++)
		appendStringInfo(&sql, "$%d, ", i + 1);
	appendStringInfoString(&sql, "'native')");
	result = postgres_query(store, sql.data, call->nargs, call->types, call->values);
	for (int row = 0; row < result->nrows; row++)
	{
		char	  **columns = palloc((result->ncolumns + 1) * sizeof(char *));

		for (int column = 0; column < result->ncolumns; column++)
			columns[column] = postgres_value(result, row, column);
		call->row(call->arg, columns, result->ncolumns);
	}
	return true;
}

static char *
sagaz_records_text(const SagazRecord *records, int count)
{
	StringInfoData text;

	initStringInfo(&text);
	sagaz_records_to_wire(records, count, &text);
	return text.data;
}

static int64
sagaz_layout_put(PostgresStore *store, SagazRecord *records, int count,
				 SagazPutMode mode)
{
	static const Oid types[] = {JSONBOID, TEXTOID, TEXTOID};
	const char *values[] = {
		sagaz_records_text(records, count),
		sagaz_type_word(records[0].kind),
		mode == SAGAZ_PUT_NEW ? "error" : mode == SAGAZ_PUT_MISSING ? "skip" : "replace"
	};
	PostgresResult *result;

	result = postgres_query(store, "SELECT sagaz.import_records($1, $2, $3, 'native')",
							lengthof(values), types, values);
	return postgres_number(result, 0, 0);
}

static void
queue_sagaz_merge(PostgresStore *store, const SagazRecord *records, int count,
				  bool over_claims)
{
	static const Oid types[] = {JSONBOID, TEXTOID, BOOLOID};
	const char *values[] = {
		sagaz_records_text(records, count), sagaz_type_word(records[0].kind),
		over_claims ? "t" : "f"
	};

	postgres_queue(store, "SELECT added, changed, unchanged, kept"
				   " FROM sagaz_internal.merge_records($1, $2, $3, 'native')",
				   lengthof(values), types, values);
	postgres_send_ahead(store);
	pfree(unconstify(char *, values[0]));
}

/* In parts of one transaction: the server works on one while we make the next. */
static void
sagaz_layout_merge(PostgresStore *store, SagazRecord *records, int count,
				   bool over_claims, SagazMerged *merged)
{
	PostgresResult **results;
	int			nresults;

	for (int i = 0; i < count; i += MERGE_PART)
		queue_sagaz_merge(store, records + i, Min(MERGE_PART, count - i), over_claims);
	results = postgres_exchange(store, &nresults);
	for (int i = 0; i < nresults; i++)
	{
		merged->added += postgres_number(results[i], 0, 0);
		merged->changed += postgres_number(results[i], 0, 1);
		merged->unchanged += postgres_number(results[i], 0, 2);
		merged->kept += postgres_number(results[i], 0, 3);
	}
}

static int64
sagaz_layout_remove(PostgresStore *store, SagazKind kind,
					const char *const *keys, int nkeys)
{
	static const Oid types[] = {TEXTARRAYOID, TEXTOID};
	const char *values[] = {postgres_text_array(keys, nkeys), sagaz_type_word(kind)};

	return postgres_number(postgres_query(store, "SELECT sagaz_internal.remove_records($1, $2, 'native')",
								 lengthof(values), types, values), 0, 0);
}

static char *
sagaz_layout_unfit(PostgresStore *store, const SagazRecord *record)
{
	return sagaz_fit_problem(record);
}

static int64
sagaz_layout_edit(PostgresStore *store, SagazKind kind, const SagazFilter *filter,
				  bool create, SagazEdit edit, void *arg)
{
	return sagaz_store_no_edit(&store->base, kind, filter, create, edit, arg);
}

static int64
sagaz_layout_count(PostgresStore *store, SagazKind kind, const SagazFilter *filter)
{
	const char *type = sagaz_type_word(kind);
	PostgresResult *result;

	result = postgres_query(store, "SELECT sagaz.count_records($1, 'native')", 1, NULL, &type);
	return postgres_number(result, 0, 0);
}

/* ---------------------------------------------------------------------- */
/* Reading */

/*
 * A cursor that outlasts its transaction, so that everything is read as of
 * one moment and no transaction is open meanwhile.  Those of readers that an
 * error has ended are closed by the first reader of a later transaction.
 */
static void
open_sagaz_cursor(PostgresReader *reader)
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
							reader->cursor, sagaz_type_word(reader->base.kind),
							reader->base.filter.order == SAGAZ_ANY_ORDER ? "" :
							reader->base.kind == SAGAZ_SAGA ?
							" ORDER BY e->>'saga_id' COLLATE \"C\"" :
							" ORDER BY e->>'event_id' COLLATE \"C\""),
				   0, NULL, NULL);
}

/* Was there room for more records? */
static bool
sagaz_page_has_room(const PostgresResult *result)
{
	Size		bytes = 0;

	for (int row = 0; row < result->nrows; row++)
	{
		const char *value = postgres_bytes(result, row, 0);

		bytes += value ? strlen(value) : 0;
	}
	return bytes < SAGAZ_PAGE_BYTES;
}

/* The last row's key is the last one that needs not be asked for again. */
static void
skip_keys(PostgresReader *reader, const char *const *keys, int nkeys,
		  const PostgresResult *result)
{
	const char *last = postgres_text(result, result->nrows - 1, 1);

	while (reader->next_key < nkeys)
		if (strcmp(keys[reader->next_key++], last) == 0)
			return;
	postgres_refuse_result(result, "It has a record that was not asked for");
}

/* Those of the filter's keys, which come in their order. */
static PostgresResult *
fetch_sagaz_keys(PostgresReader *reader)
{
	static const Oid types[] = {TEXTOID, TEXTARRAYOID};
	const SagazFilter *filter = &reader->base.filter;
	const char *const *keys = filter->key ? &filter->key : filter->keys;
	int			nkeys = filter->key ? 1 : filter->nkeys;
	const char *values[] = {
		sagaz_type_word(reader->base.kind),
		postgres_text_array(keys + reader->next_key, nkeys - reader->next_key)
	};
	PostgresResult *result;

	result = postgres_query((PostgresStore *) reader->base.store,
							"SELECT record, \"position\""
							" FROM sagaz_internal.export_page($1, max_rows => 2147483647, keys => $2)",
							lengthof(values), types, values);
	postgres_expect_rows(result, nkeys - reader->next_key);
	reader->at_end = sagaz_page_has_room(result);
	if (!reader->at_end)
		skip_keys(reader, keys, nkeys, result);
	return result;
}

static void
queue_sagaz_page(PostgresReader *reader, int count)
{
	static const Oid types[] = {TEXTOID, TEXTOID, INT4OID};
	const char *after = reader->page_end ? reader->page_end : reader->base.filter.position;
	const char *values[] = {
		sagaz_type_word(reader->base.kind), after, psprintf("%d", count)
	};

	postgres_queue((PostgresStore *) reader->base.store,
				   "SELECT record, \"position\" FROM sagaz_internal.export_page($1, $2, $3)",
				   lengthof(values), types, values);
	reader->page_size = count;
}

static void
note_sagaz_positions(PostgresReader *reader, const PostgresResult *page)
{
	const char *end;

	postgres_expect_rows(page, reader->page_size);
	reader->positions = NIL;
	for (int row = 0; row < page->nrows; row++)
		reader->positions = lappend(reader->positions, postgres_text(page, row, 1));
	if (page->nrows == 0)
		return;
	end = postgres_text(page, page->nrows - 1, 1);
	if (reader->page_end && strcmp(reader->page_end, end) == 0)
		postgres_refuse_result(page, "A page ends where the one before it did");
	if (reader->page_end)
		pfree(reader->page_end);
	reader->page_end = MemoryContextStrdup(reader->base.context, end);
}

/*
 * Those behind the position.  While they are used the server works on the
 * page after them.
 */
static PostgresResult *
fetch_sagaz_page(PostgresReader *reader, int count)
{
	PostgresStore *store = (PostgresStore *) reader->base.store;
	PostgresResult **results;
	PostgresResult *page;
	int			nresults;

	results = postgres_collect(store, reader->request, &nresults);
	reader->request = 0;
	if (results == NULL)
	{
		queue_sagaz_page(reader, count);
		results = postgres_exchange(store, &nresults);
	}
	page = results[nresults - 1];
	reader->at_end = page->nrows < reader->page_size && sagaz_page_has_room(page);
	note_sagaz_positions(reader, page);
	if (!reader->at_end && postgres_can_request())
	{
		queue_sagaz_page(reader, count);
		reader->request = postgres_request(store);
	}
	return page;
}

static PostgresResult *
fetch_sagaz_from_cursor(PostgresReader *reader, int count)
{
	PostgresResult *result;

	if (reader->cursor == NULL)
		open_sagaz_cursor(reader);
	result = postgres_query((PostgresStore *) reader->base.store,
							psprintf("FETCH %d FROM %s", count, reader->cursor),
							0, NULL, NULL);
	postgres_expect_rows(result, count);
	reader->at_end = result->nrows < count;
	return result;
}

/* A row; text that does not convert is shown as far as it can be. */
static SagazRecord *
read_sagaz_record(SagazKind kind, const PostgresResult *result, int row)
{
	SagazRecord *record = palloc(sizeof(SagazRecord));
	SagazRecord text_of = {0};
	const char *bytes = postgres_bytes(result, row, 0);
	char	   *text;

	if (bytes == NULL)
		postgres_refuse_result(result, "A record is null");
	text = sagaz_field_text(bytes, strlen(bytes), "its text", &text_of);
	sagaz_record_from_wire(kind, DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
																	CStringGetDatum(text))), record);
	if (text_of.problem)
		record->problem = text_of.problem;
	return record;
}

/* The next records that match, none at the end. */
static List *
sagaz_layout_fetch(PostgresReader *reader)
{
	const SagazFilter *filter = &reader->base.filter;
	List	   *records = NIL;

	do
	{
		PostgresResult *result =
			filter->key || filter->nkeys > 0 ? fetch_sagaz_keys(reader) :
			filter->order == SAGAZ_FOR_COPY ? fetch_sagaz_page(reader, reader->fetch_size) :
			fetch_sagaz_from_cursor(reader, reader->fetch_size);

		for (int row = 0; row < result->nrows; row++)
		{
			SagazRecord *record = read_sagaz_record(reader->base.kind, result, row);

			if (sagaz_filter_matches(filter, record))
				records = lappend(records, record);
		}
	} while (records == NIL && !reader->at_end);
	return records;
}

/*
 * The cursor is one WITH HOLD at the other end: it would stay until the
 * session ends.
 */
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
	.fetch = sagaz_layout_fetch,
	.count = sagaz_layout_count,
	.merge = sagaz_layout_merge,
	.remove = sagaz_layout_remove,
	.unfit = sagaz_layout_unfit
};
