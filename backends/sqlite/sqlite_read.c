/*
 * sqlite_read.c
 *		Reading records out of a SQLite file.
 *
 * Who reads keeps others from writing where the file has a rollback journal,
 * and a cursor may stay open for long.  So what is read of such a file, but
 * for a record by its key, is copied to SQLite's temporary storage first.
 */
#include "backends/sqlite/sqlite.h"

#include "miscadmin.h"
#include "storage/fd.h"

#include "backends/record/record.h"

/* Whoever changes the schema all the time is not waited for. */
#define SCHEMA_ATTEMPTS 10

#define READ_ROWS "sagaz_rows"
#define DROP_ROWS "DROP TABLE IF EXISTS temp." READ_ROWS

static const char *const side_tables[] = {"sagaz_saga", "sagaz_event"};

/* ---------------------------------------------------------------------- */
/* Rows to records */

static void
read_sqlite_saga(sqlite3_stmt *row, SagazRecord *record)
{
	SagazSaga  *saga = &record->saga;
	char	   *seen;
	char	   *updated;

	saga->saga_id = sqlite_column_string(row, 0, "saga_id", record);
	saga->saga_name = sqlite_column_string(row, 1, "saga_name", record);
	saga->status = sqlite_column_string(row, 2, "status", record);
	saga->steps = sqlite_column_json(row, 3, "steps", record);
	saga->context = sqlite_column_json(row, 4, "context", record);
	saga->metadata = sqlite_column_json(row, 5, "metadata", record);
	saga->created_at = sqlite_column_time(row, 6, "created_at", record);
	saga->updated_at = sqlite_column_time(row, 7, "updated_at", record);
	saga->version = Max(sqlite_column_count(row, 8, PG_INT64_MAX - 1, "version", record), 1);
	/* the library changed it since, and knows no versions */
	seen = sqlite_column_string(row, 9, "updated_at", record);
	updated = sqlite_column_string(row, 7, "updated_at", record);
	if (seen && updated && strcmp(seen, updated) != 0)
		saga->version++;
}

static void
read_sqlite_event(sqlite3_stmt *row, SagazRecord *record)
{
	SagazEvent *event = &record->event;

	event->event_id = sqlite_column_string(row, 0, "event_id", record);
	event->saga_id = sqlite_column_string(row, 1, "saga_id", record);
	event->event_type = sqlite_column_string(row, 2, "event_type", record);
	event->payload = sqlite_column_json(row, 3, "payload", record);
	event->status = sqlite_column_string(row, 4, "status", record);
	event->created_at = sqlite_column_time(row, 5, "created_at", record);
	event->claimed_at = sqlite_column_time(row, 6, "claimed_at", record);
	event->sent_at = sqlite_column_time(row, 7, "sent_at", record);
	event->worker_id = sqlite_column_string(row, 8, "worker_id", record);
	event->retry_count = sqlite_column_count(row, 9, PG_INT32_MAX, "retry_count", record);
	event->last_error = sqlite_column_string(row, 10, "last_error", record);
	event->aggregate_type = sqlite_column_string(row, 11, "aggregate_type", record);
	event->aggregate_id = sqlite_column_string(row, 12, "aggregate_id", record);
	event->headers = sqlite_column_json(row, 13, "headers", record);
	event->routing_key = sqlite_column_string(row, 14, "routing_key", record);
	event->partition_key = sqlite_column_string(row, 15, "partition_key", record);
	event->batch_id = sqlite_column_count(row, 16, PG_INT64_MAX, "batch_id", record);
	event->lease_until = sqlite_column_instant(row, 17, "lease_until", record);
	event->next_attempt_at = sqlite_column_instant(row, 18, "next_attempt_at", record);
}

/* Fill a record from a row; false where the filter, asked again, says no. */
static bool
read_sqlite_row(sqlite3_stmt *row, SagazKind kind, const SagazFilter *filter,
				SagazRecord *record)
{
	memset(record, 0, sizeof(SagazRecord));
	record->kind = kind;
	if (kind == SAGAZ_SAGA)
		read_sqlite_saga(row, record);
	else
		read_sqlite_event(row, record);
	sagaz_record_check(record);
	return sagaz_filter_matches(filter, record);
}

/* ---------------------------------------------------------------------- */
/* Queries */

static void
append_sqlite_columns(StringInfo sql, const SqliteStore *store, SagazKind kind)
{
	bool		has_side = store->has_side[kind];

	if (kind == SAGAZ_SAGA)
		appendStringInfo(sql, "SELECT m.saga_id, saga_name, status, steps,"
						 " context, metadata, created_at, m.updated_at, %s FROM sagas m",
						 has_side ? "s.version, s.updated_at" : "1, NULL");
	else
		appendStringInfo(sql, "SELECT m.event_id, saga_id, event_type,"
						 " payload, status, created_at, claimed_at, sent_at,"
						 " worker_id, retry_count, last_error, aggregate_type,"
						 " aggregate_id, headers, routing_key, partition_key, %s"
						 " FROM outbox_events m",
						 has_side ? "s.batch_id, s.lease_until, s.next_attempt_at" :
						 "NULL, NULL, NULL");
}

/* Times are texts of any offset and precision. */
static void
append_sqlite_order(StringInfo sql, SagazKind kind, SagazOrder order, const char *key)
{
	if (order == SAGAZ_BY_KEY)
		appendStringInfo(sql, " ORDER BY m.%s", key);
	else if (order != SAGAZ_ANY_ORDER && (order != SAGAZ_FOR_COPY || kind == SAGAZ_EVENT))
		appendStringInfo(sql, " ORDER BY " SQLITE_INSTANT "(created_at)%s, m.%s",
						 order == SAGAZ_NEWEST_FIRST ? " DESC" : "", key);
}

static void
append_sqlite_list(StringInfo sql, const char *column, int count)
{
	for (int i = 0; i < count; i++)
	{
		if (i == 0)
			appendStringInfo(sql, " AND %s IN (?", column);
		else
			appendStringInfoString(sql, ", ?");
	}
	if (count > 0)
		appendStringInfoChar(sql, ')');
}

/* The SELECT for a filter; what it leaves out read_sqlite_row() asks again. */
static char *
sqlite_select_for(const SqliteStore *store, SagazKind kind, const SagazFilter *filter)
{
	StringInfoData sql;
	const char *key = kind == SAGAZ_SAGA ? "saga_id" : "event_id";

	initStringInfo(&sql);
	append_sqlite_columns(&sql, store, kind);
	if (store->has_side[kind])
		appendStringInfo(&sql, " LEFT JOIN %s s ON s.%s = m.%s",
						 side_tables[kind], key, key);
	appendStringInfoString(&sql, " WHERE 1");
	if (filter->key)
		appendStringInfo(&sql, " AND m.%s = ?", key);
	append_sqlite_list(&sql, psprintf("m.%s", key), filter->nkeys);
	if (filter->saga_id && kind == SAGAZ_EVENT)
		appendStringInfoString(&sql, " AND saga_id = ?");
	if (filter->batch_id != 0)
		appendStringInfoString(&sql, store->has_side[kind] ?
							   " AND s.batch_id = ?" : " AND ? IS NULL");
	append_sqlite_list(&sql, "status", filter->nstatuses);
	if (filter->claimable_at != 0)
		appendStringInfoString(&sql, " AND status IN ('pending', 'failed', 'claimed')");
	append_sqlite_order(&sql, kind, filter->order, key);
	return sql.data;
}

static void
bind_sqlite_filter(sqlite3_stmt *statement, SagazKind kind, const SagazFilter *filter)
{
	int			position = 1;

	if (filter->key)
		sqlite_bind_text(statement, position++, filter->key);
	for (int i = 0; i < filter->nkeys; i++)
		sqlite_bind_text(statement, position++, filter->keys[i]);
	if (filter->saga_id && kind == SAGAZ_EVENT)
		sqlite_bind_text(statement, position++, filter->saga_id);
	if (filter->batch_id != 0)
		sqlite_bind_int(statement, position++, filter->batch_id);
	for (int i = 0; i < filter->nstatuses; i++)
		sqlite_bind_text(statement, position++, filter->statuses[i]);
}

/* ---------------------------------------------------------------------- */
/* Steps of a reader */

static void
close_sqlite_statement(SqliteReader *reader)
{
	if (reader->statement)
		sqlite3_finalize(reader->statement);
	reader->statement = NULL;
}

/* In a callback, too. */
static void
close_sqlite_reader(void *arg)
{
	SqliteReader *reader = arg;
	SqliteStore *store = (SqliteStore *) reader->base.store;

	close_sqlite_statement(reader);
	if (reader->copies && !reader->owns_db)
		(void) sqlite3_exec(reader->db, DROP_ROWS, NULL, NULL, NULL);
	if (reader->owns_db)
	{
		sqlite_close_handle(reader->db);
		ReleaseExternalFD();
	}
	reader->owns_db = reader->copies = false;
	reader->db = NULL;
	if (store->reader == reader)
		store->reader = NULL;
}

/* What the next step gives. */
static void
step_sqlite_statement(SqliteReader *reader)
{
	SqliteStore *store = (SqliteStore *) reader->base.store;

	reader->code = sqlite3_step(reader->statement);
	CHECK_FOR_INTERRUPTS();
	if (reader->code != SQLITE_ROW && reader->code != SQLITE_DONE)
		sqlite_complain(store, reader->db, reader->code);
	if (reader->still)
		sqlite_check_still(store, reader->still, &reader->file);
}

static void
prepare_sqlite_reader(SqliteReader *reader, const char *sql)
{
	int			code;

	close_sqlite_statement(reader);
	code = sqlite3_prepare_v2(reader->db, sql, -1, &reader->statement, NULL);
	if (code != SQLITE_OK)
		sqlite_complain((SqliteStore *) reader->base.store, reader->db, code);
}

/* Would a reader that is left open keep others from writing? */
static bool
sqlite_reader_locks(SqliteStore *store, const SagazFilter *filter)
{
	return filter->key == NULL && sqlite3_get_autocommit(store->db) &&
		!store->is_still && !sqlite_has_log(store);
}

/*
 * Ask, and step to the first row.  False if meanwhile somebody has made or
 * changed tables, on which the question depends; after that step the reader's
 * stay as they are.
 */
static bool
start_sqlite_reader(SqliteReader *reader)
{
	SqliteStore *store = (SqliteStore *) reader->base.store;
	char	   *sql = sqlite_select_for(store, reader->base.kind, &reader->base.filter);

	reader->copies = sqlite_reader_locks(store, &reader->base.filter);
	if (reader->copies)
	{
		sqlite_run(store, DROP_ROWS);
		sql = psprintf("CREATE TEMP TABLE " READ_ROWS " AS %s", sql);
	}
	prepare_sqlite_reader(reader, sql);
	bind_sqlite_filter(reader->statement, reader->base.kind, &reader->base.filter);
	step_sqlite_statement(reader);
	if (!sqlite_schema_is_known(store))
		return false;
	if (reader->copies)
	{
		/* from here on nothing of the file itself is asked, and so locked */
		prepare_sqlite_reader(reader, "SELECT * FROM temp." READ_ROWS " ORDER BY rowid");
		step_sqlite_statement(reader);
	}
	return true;
}

void
sqlite_read_begin(SagazReader *base)
{
	SqliteReader *reader = (SqliteReader *) base;
	SqliteStore *store = (SqliteStore *) base->store;

	reader->close.func = close_sqlite_reader;
	reader->close.arg = reader;
	MemoryContextRegisterResetCallback(base->context, &reader->close);
	for (int i = 0; i < SCHEMA_ATTEMPTS; i++)
	{
		sqlite_be_ready(store, false);
		if (!store->has[base->kind])
			return;
		reader->db = store->db;
		store->reader = reader;
		reader->still = store->is_still ? pstrdup(store->opened) : NULL;
		reader->file = store->file;
		if (start_sqlite_reader(reader))
			return;
		close_sqlite_reader(reader);
	}
	sqlite_complain_of(store, SQLITE_SCHEMA);
}

/*
 * The row after the one that is returned has been looked for: so the last one
 * locks nothing.
 */
bool
sqlite_read_next(SagazReader *base, SagazRecord *record)
{
	SqliteReader *reader = (SqliteReader *) base;
	bool		found = false;

	while (!found && reader->code == SQLITE_ROW)
	{
		found = read_sqlite_row(reader->statement, base->kind, &base->filter, record);
		if (found && ++reader->count == base->filter.limit)
			reader->code = SQLITE_DONE;
		else
			step_sqlite_statement(reader);
		if (reader->code == SQLITE_DONE)
			close_sqlite_reader(reader);
	}
	return found;
}

void
sqlite_read_end(SagazReader *base)
{
	close_sqlite_reader(base);
}
