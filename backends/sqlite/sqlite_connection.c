/*
 * sqlite_connection.c
 *		An open SQLite file: what it holds, statements and transactions.
 *
 * Statements are prepared once a store and finalized when it is closed, by a
 * callback of its memory context.
 */
#include "backends/sqlite/sqlite.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

static const char *const main_table[] = {"sagas", "outbox_events"};
static const char *const side_table[] = {"sagaz_saga", "sagaz_event"};

static const char *const make_tables[] = {
	"CREATE TABLE IF NOT EXISTS sagas (saga_id TEXT PRIMARY KEY,"
	" saga_name TEXT NOT NULL, status TEXT NOT NULL, steps TEXT NOT NULL,"
	" context TEXT NOT NULL, metadata TEXT, created_at TEXT NOT NULL,"
	" updated_at TEXT NOT NULL);"
	"CREATE INDEX IF NOT EXISTS idx_sagas_status ON sagas(status);"
	"CREATE INDEX IF NOT EXISTS idx_sagas_name ON sagas(saga_name);"
	"CREATE INDEX IF NOT EXISTS idx_sagas_updated_at ON sagas(updated_at);"
	"CREATE TABLE IF NOT EXISTS sagaz_saga (saga_id TEXT PRIMARY KEY,"
	" version INTEGER NOT NULL, updated_at TEXT NOT NULL) WITHOUT ROWID;",
	"CREATE TABLE IF NOT EXISTS outbox_events (event_id TEXT PRIMARY KEY,"
	" saga_id TEXT NOT NULL, event_type TEXT NOT NULL, payload TEXT NOT NULL,"
	" status TEXT NOT NULL DEFAULT 'pending', created_at TEXT NOT NULL,"
	" claimed_at TEXT, sent_at TEXT, worker_id TEXT,"
	" retry_count INTEGER DEFAULT 0, last_error TEXT, aggregate_type TEXT,"
	" aggregate_id TEXT, headers TEXT, routing_key TEXT, partition_key TEXT);"
	"CREATE INDEX IF NOT EXISTS idx_outbox_status ON outbox_events(status);"
	"CREATE INDEX IF NOT EXISTS idx_outbox_saga_id ON outbox_events(saga_id);"
	"CREATE INDEX IF NOT EXISTS idx_outbox_claimed_at ON outbox_events(claimed_at);"
	"CREATE TABLE IF NOT EXISTS sagaz_event (event_id TEXT PRIMARY KEY,"
	" batch_id INTEGER, lease_until INTEGER, next_attempt_at INTEGER) WITHOUT ROWID;"
	"CREATE INDEX IF NOT EXISTS sagaz_event_batch ON sagaz_event(batch_id)"
	" WHERE batch_id IS NOT NULL;"
};

/* ---------------------------------------------------------------------- */
/* Statements */

/* Statements that return no rows; what goes wrong is raised. */
void
sqlite_run(SqliteStore *store, const char *sql)
{
	sqlite_check(store, sqlite3_exec(store->db, sql, NULL, NULL, NULL));
}

/* A prepared statement of this text, ready to be bound. */
sqlite3_stmt *
sqlite_prepare(SqliteStore *store, const char *sql)
{
	MemoryContext outer;
	sqlite3_stmt *handle = NULL;
	SqliteStatement *statement;
	ListCell   *cell;

	foreach(cell, store->statements)
	{
		statement = lfirst(cell);
		if (strcmp(statement->sql, sql) == 0)
		{
			sqlite3_reset(statement->handle);
			sqlite3_clear_bindings(statement->handle);
			return statement->handle;
		}
	}
	if (sqlite3_prepare_v3(store->db, sql, -1, SQLITE_PREPARE_PERSISTENT,
						   &handle, NULL) != SQLITE_OK)
		sqlite_complain_of(store, sqlite3_extended_errcode(store->db));
	outer = MemoryContextSwitchTo(store->base.context);
	statement = palloc0(sizeof(SqliteStatement));
	statement->sql = pstrdup(sql);
	statement->handle = handle;
	store->statements = lappend(store->statements, statement);
	MemoryContextSwitchTo(outer);
	return statement->handle;
}

/* ---------------------------------------------------------------------- */
/* What the file holds */

/* The tables of which we know what columns they must have. */
static bool
sqlite_has_columns(SqliteStore *store, const char *table, const char *columns)
{
	char	   *sql = psprintf("SELECT %s FROM %s LIMIT 0", columns, table);
	sqlite3_stmt *statement = NULL;
	int			code = sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL);

	sqlite3_finalize(statement);
	return code == SQLITE_OK;
}

static const char *const needed_columns[] = {
	"saga_id, saga_name, status, steps, context, metadata, created_at, updated_at",
	"event_id, saga_id, event_type, payload, status, created_at, claimed_at,"
	" sent_at, worker_id, retry_count, last_error, aggregate_type,"
	" aggregate_id, headers, routing_key, partition_key"
};

static void
refuse_sqlite_file(SqliteStore *store, const char *table)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_STORAGE),
			 errmsg("the file of storage \"%s\" is not one of sagas or events",
					store->base.name),
			 table ? errdetail("Its table \"%s\" has other columns.", table) :
			 errdetail("It is a SQLite database with other tables."),
			 errhint("The file was left as it is. Name another one.")));
}

/* Find out what the file holds; refuse one that is something else. */
void
sqlite_look(SqliteStore *store)
{
	sqlite3_stmt *statement;
	int			code;
	bool		any = false;

	statement = sqlite_prepare(store, "SELECT name FROM sqlite_master WHERE type = 'table'");
	memset(store->has, 0, sizeof(store->has));
	memset(store->has_side, 0, sizeof(store->has_side));
	while ((code = sqlite3_step(statement)) == SQLITE_ROW)
	{
		const char *name = (const char *) sqlite3_column_text(statement, 0);

		any = true;
		for (int kind = SAGAZ_SAGA; name && kind <= SAGAZ_EVENT; kind++)
		{
			store->has[kind] |= strcmp(name, main_table[kind]) == 0;
			store->has_side[kind] |= strcmp(name, side_table[kind]) == 0;
		}
	}
	if (code != SQLITE_DONE)
		sqlite_complain_of(store, code);
	sqlite3_reset(statement);
	store->empty = !any;
	if (any && !store->has[SAGAZ_SAGA] && !store->has[SAGAZ_EVENT])
		refuse_sqlite_file(store, NULL);
	for (int kind = SAGAZ_SAGA; kind <= SAGAZ_EVENT; kind++)
		if (store->has[kind] &&
			!sqlite_has_columns(store, main_table[kind], needed_columns[kind]))
			refuse_sqlite_file(store, main_table[kind]);
	store->looked = true;
}

/* It changes when anybody makes, drops or alters a table. */
static int64
sqlite_schema_version(SqliteStore *store)
{
	sqlite3_stmt *statement = sqlite_prepare(store, "PRAGMA schema_version");
	int64		version;

	if (sqlite3_step(statement) != SQLITE_ROW)
		sqlite_complain_of(store, sqlite3_extended_errcode(store->db));
	version = sqlite3_column_int64(statement, 0);
	sqlite3_reset(statement);
	return version;
}

/* Does the file hold, as of now, what we know of it? */
bool
sqlite_schema_is_known(SqliteStore *store)
{
	return sqlite_schema_version(store) == store->schema_version;
}

/* Has it a write-ahead log, beside which one writes while others read? */
bool
sqlite_has_log(SqliteStore *store)
{
	sqlite3_stmt *statement = sqlite_prepare(store, "PRAGMA journal_mode");
	bool		has_log;

	if (sqlite3_step(statement) != SQLITE_ROW)
		sqlite_complain_of(store, sqlite3_extended_errcode(store->db));
	has_log = strcmp((const char *) sqlite3_column_text(statement, 0), "wal") == 0;
	sqlite3_reset(statement);
	return has_log;
}

/*
 * Before each operation, in a transaction or not: have the file open, and know
 * what it holds.  Who writes makes one that is not there.
 */
void
sqlite_be_ready(SqliteStore *store, bool writes)
{
	int64		version;

	sqlite_open_for(store, writes);
	version = sqlite_schema_version(store);
	if (!store->looked || version != store->schema_version)
		sqlite_look(store);
	store->schema_version = version;
}

/* ---------------------------------------------------------------------- */
/* Transactions */

/* Begin to write; the tables are there afterwards. */
void
sqlite_begin(SqliteStore *store, SagazKind kind)
{
	sqlite_be_ready(store, true);
	if (store->empty && !store->base.only_looks)
		sqlite_run(store, "PRAGMA journal_mode = WAL");
	store->has_log = sqlite_has_log(store);
	sqlite_let_others_write(store);
	sqlite_run(store, "BEGIN IMMEDIATE");
	if (store->has[kind] && store->has_side[kind])
		return;
	sqlite_run(store, make_tables[kind]);
}

/* What is committed to a file that nobody finds by its path is lost. */
void
sqlite_commit(SqliteStore *store)
{
	if (!sqlite_is_in_place(store))
		sqlite_complain_of(store, SQLITE_READONLY_DBMOVED);
	sqlite_run(store, "COMMIT");
	store->wrote_at = GetCurrentTimestamp();
}

/* In a PG_CATCH block. */
void
sqlite_roll_back(SqliteStore *store)
{
	ListCell   *cell;

	foreach(cell, store->statements)
		sqlite3_reset(((SqliteStatement *) lfirst(cell))->handle);
	if (store->db && !sqlite3_get_autocommit(store->db))
		(void) sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
	if (store->db && !sqlite3_get_autocommit(store->db))
		store->base.broken = true;
	store->looked = false;
}
