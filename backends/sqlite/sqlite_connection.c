/*
 * sqlite_connection.c
 *		An open SQLite file: what it holds, statements and transactions.
 *
 * Nothing may jump out of SQLite's frames: the busy and progress handlers
 * only tell it to give up, and whatever there is to raise is raised when
 * SQLite has returned.  Statements are prepared once a store and finalized
 * when it is closed, by a callback of its memory context.
 */
#include "backends/sqlite/sqlite.h"

#include <errno.h>
#include <limits.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "backends/sqlite/sqlite_file.h"

#ifdef SQLITE_OPEN_NOFOLLOW
#define NO_LINKS SQLITE_OPEN_NOFOLLOW
#else
#define NO_LINKS 0
#endif

#define BUSY_WAIT_MS 5
#define PROGRESS_STEPS 10000

typedef struct Statement
{
	char	   *sql;
	sqlite3_stmt *handle;
} Statement;

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
/* Errors */

static int
sqlstate_of_sqlite(int code)
{
	switch (code & 0xff)
	{
		case SQLITE_FULL:
		case SQLITE_NOMEM:
		case SQLITE_TOOBIG:
			return ERRCODE_SAGAZ_CAPACITY;
		case SQLITE_CANTOPEN:
			return ERRCODE_SAGAZ_CONNECTION;
		case SQLITE_BUSY:
		case SQLITE_LOCKED:
			return ERRCODE_SAGAZ_CONCURRENCY;
		default:
			return ERRCODE_SAGAZ_STORAGE;
	}
}

static const char *
sqlite_hint_for(int code)
{
	switch (code & 0xff)
	{
		case SQLITE_BUSY:
		case SQLITE_LOCKED:
			return "Another process writes to the file. Try again, or increase sagaz.command_timeout.";
		case SQLITE_READONLY:
			return "The server's user may not write to the file, or to its directory.";
		case SQLITE_CANTOPEN:
			return "The path must lie in a directory that the server's user may read.";
		case SQLITE_NOTADB:
		case SQLITE_CORRUPT:
			return "The file was left as it is. Name another one, or repair it.";
		case SQLITE_FULL:
			return "Make room on the disk, or raise the limit on the file's size.";
		default:
			return NULL;
	}
}

/*
 * SQLite tells a full disk, but a quota or a limit on the file's size only as
 * a write that failed.  Of a write at COMMIT it does not keep the errno.
 */
static bool
sqlite_is_out_of_room(const SqliteStore *store, int code, int last_errno)
{
	int			error = store->db ? sqlite3_system_errno(store->db) : 0;

	if (error == 0)
		error = last_errno;
	return code == SQLITE_IOERR_WRITE && (error == EFBIG || error == EDQUOT);
}

/* Raise what SQLite complains of; errno is as SQLite left it. */
void
sqlite_complain_of(SqliteStore *store, int code)
{
	bool		out_of_room = sqlite_is_out_of_room(store, code, errno);
	const char *message = store->db ? sqlite3_errmsg(store->db) : sqlite3_errstr(code);
	char	   *copy = pstrdup(message);
	const char *hint = sqlite_hint_for(out_of_room ? SQLITE_FULL : code);

	CHECK_FOR_INTERRUPTS();
	ereport(ERROR,
			(errcode(sqlstate_of_sqlite(out_of_room ? SQLITE_FULL : code)),
			 errmsg("storage \"%s\" failed", store->base.name),
			 errdetail("SQLite says: %s.", copy),
			 hint ? errhint("%s", hint) : 0));
}

void
sqlite_check(SqliteStore *store, int code)
{
	if (code != SQLITE_OK && code != SQLITE_DONE && code != SQLITE_ROW)
		sqlite_complain_of(store, code);
}

/* ---------------------------------------------------------------------- */
/* Waiting */

static bool
sqlite_must_stop(void)
{
	return InterruptPending && (QueryCancelPending || ProcDiePending);
}

/* The file is locked: wait a little and try again, or give up. */
static int
on_sqlite_busy(void *arg, int times)
{
	SqliteStore *store = arg;
	TimestampTz now = GetCurrentTimestamp();

	if (times == 0)
		store->busy_since = now;
	if (sqlite_must_stop() ||
		TimestampDifferenceExceeds(store->busy_since, now, sagaz_command_timeout))
		return 0;
	if (WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
				  BUSY_WAIT_MS, PG_WAIT_EXTENSION) & WL_LATCH_SET)
		ResetLatch(MyLatch);
	return 1;
}

static int
on_sqlite_progress(void *arg)
{
	return sqlite_must_stop();
}

/* ---------------------------------------------------------------------- */
/* Statements */

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
	Statement  *statement;
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
	statement = palloc0(sizeof(Statement));
	statement->sql = pstrdup(sql);
	statement->handle = handle;
	store->statements = lappend(store->statements, statement);
	MemoryContextSwitchTo(outer);
	return statement->handle;
}

/* ---------------------------------------------------------------------- */
/* Opening and closing */

static void
close_sqlite_database(SqliteStore *store)
{
	ListCell   *cell;

	foreach(cell, store->statements)
		sqlite3_finalize(((Statement *) lfirst(cell))->handle);
	sqlite3_close_v2(store->db);
	store->db = NULL;
	store->statements = NIL;
}

static void
close_sqlite_store(void *arg)
{
	SqliteStore *store = arg;

	close_sqlite_database(store);
	if (store->has_fd)
		ReleaseExternalFD();
	store->has_fd = false;
}

static void
open_sqlite_database(SqliteStore *store, const char *path, int flags)
{
	int			code = sqlite3_open_v2(path, &store->db,
									   flags | SQLITE_OPEN_EXRESCODE, NULL);

	sqlite_check(store, code);
	sqlite3_busy_handler(store->db, on_sqlite_busy, store);
	sqlite3_progress_handler(store->db, PROGRESS_STEPS, on_sqlite_progress, store);
	sqlite3_limit(store->db, SQLITE_LIMIT_LENGTH,
				  (int) Min((int64) sagaz_max_reply * 1024, INT_MAX));
	/* only what we say ourselves runs, whatever the file's schema holds */
	sqlite3_db_config(store->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(store->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
	sqlite3_db_config(store->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
}

static bool
sqlite_file_is_there(const char *path)
{
	return access(path, F_OK) == 0 || errno != ENOENT;
}

static bool
sqlite_may_be_made(const char *path)
{
	char	   *directory = pstrdup(path);

	get_parent_directory(directory);
	return access(directory[0] ? directory : "/", W_OK | X_OK) == 0;
}

/* Open the file itself; one that is written to is made if it is not there. */
static void
open_sqlite_file(SqliteStore *store)
{
	SqliteFile	file;

	sqlite_file_find(store->path, store->base.owner, &file);
	close_sqlite_database(store);
	store->base.broken = true;
	open_sqlite_database(store, file.path,
						 (file.may_write ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE :
						  SQLITE_OPEN_READONLY) | (file.no_links ? NO_LINKS : 0));
	store->may_write = file.may_write;
	store->base.broken = store->is_stand_in = false;
}

/* The rights to a file that is open may have gone since. */
static void
check_rights(SqliteStore *store)
{
	SqliteFile	file;

	sqlite_file_find(store->path, store->base.owner, &file);
	if (!store->is_stand_in && file.may_write != store->may_write &&
		sqlite3_get_autocommit(store->db))
		open_sqlite_file(store);
}

/* Who only reads makes no file. */
void
sqlite_open(SagazStore *base)
{
	SqliteStore *store = (SqliteStore *) base;
	SqliteFile	file;

	store->path = sagaz_store_option(base, "path");
	if (store->path == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("storage \"%s\" has no option \"path\"", base->name)));
	sqlite_file_find(store->path, base->owner, &file);
	store->close.func = close_sqlite_store;
	store->close.arg = store;
	MemoryContextRegisterResetCallback(base->context, &store->close);
	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CAPACITY),
				 errmsg("too many files are open for another storage")));
	store->has_fd = true;
	store->is_stand_in = file.may_write && !sqlite_file_is_there(store->path) &&
		sqlite_may_be_made(store->path);
	if (store->is_stand_in)
		open_sqlite_database(store, ":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
	else
		open_sqlite_file(store);
}

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

	if (store->is_stand_in && sqlite3_get_autocommit(store->db) &&
		sqlite_file_is_there(store->path))
		open_sqlite_file(store);
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
	store->looked = store->has[SAGAZ_SAGA] && store->has[SAGAZ_EVENT] &&
		store->has_side[SAGAZ_SAGA] && store->has_side[SAGAZ_EVENT];
}

/* Before each operation. */
void
sqlite_look_once(SqliteStore *store)
{
	check_rights(store);
	if (!store->looked)
		sqlite_look(store);
}

/* ---------------------------------------------------------------------- */
/* Transactions */

/* Begin to write; the tables are there afterwards. */
void
sqlite_begin(SqliteStore *store, SagazKind kind)
{
	sqlite_look_once(store);
	if (store->is_stand_in && !store->base.only_looks)
		open_sqlite_file(store);
	if (store->empty && !store->base.only_looks)
		sqlite_run(store, "PRAGMA journal_mode = WAL");
	sqlite_run(store, "BEGIN IMMEDIATE");
	if (store->has[kind] && store->has_side[kind])
		return;
	sqlite_run(store, make_tables[kind]);
}

void
sqlite_commit(SqliteStore *store)
{
	sqlite_run(store, "COMMIT");
	if (!store->looked)
		sqlite_look(store);
}

/* In a PG_CATCH block. */
void
sqlite_roll_back(SqliteStore *store)
{
	ListCell   *cell;

	foreach(cell, store->statements)
		sqlite3_reset(((Statement *) lfirst(cell))->handle);
	if (!sqlite3_get_autocommit(store->db))
		(void) sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
	if (!sqlite3_get_autocommit(store->db))
		store->base.broken = true;
	store->looked = false;
}
