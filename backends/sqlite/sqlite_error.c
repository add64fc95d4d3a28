/*
 * sqlite_error.c
 *		What SQLite complains of, and how long is waited for others.
 *
 * Nothing may jump out of SQLite's frames: the busy and progress handlers
 * only tell it to give up, and whatever there is to raise is raised when
 * SQLite has returned.
 */
#include "backends/sqlite/sqlite.h"

#include <errno.h>

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define BUSY_WAIT_MS 5

/*
 * Who waits for a file looks now and then whether it is free, SQLite's own
 * handler each 100 ms, so a program that writes without a pause may be all that
 * ever has it.  Therefore all of us who have just written leave the file alone
 * at the same times, so long and so often that who looks each 100 ms has met
 * one within 31 times, 3 s.
 */
#define PAUSE_EACH_MS 310
#define PAUSE_MS 20
#define LONG_PAUSE_MS 60		/* without a log: it takes longer to write */

/* ---------------------------------------------------------------------- */
/* Errors */

static int
sqlstate_of_sqlite(int code)
{
	if (code == SQLITE_READONLY_DBMOVED)
		return ERRCODE_SAGAZ_CONNECTION;
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
	if (code == SQLITE_READONLY_DBMOVED)
		return "The next call opens the file that is there then.";
	switch (code & 0xff)
	{
		case SQLITE_BUSY:
		case SQLITE_LOCKED:
			return "Another process writes to the file. Try again, or increase sagaz.command_timeout.";
		case SQLITE_READONLY:
			return "The server's user may not write to the file, or to its directory, or the storage has mode 'ro'.";
		case SQLITE_CANTOPEN:
			return "The path must lie in a directory that the server's user may read, and write to as long as the file has a write-ahead log.";
		case SQLITE_NOTADB:
		case SQLITE_CORRUPT:
			return "The file was left as it is. Name another one, or repair it.";
		case SQLITE_FULL:
			return "Make room on the disk, or raise the limit on the file's size.";
		default:
			return NULL;
	}
}

/* May it be over when the file is opened anew? */
static bool
sqlite_ends_with_handle(int code)
{
	switch (code & 0xff)
	{
		case SQLITE_READONLY:
		case SQLITE_IOERR:
		case SQLITE_CORRUPT:
		case SQLITE_NOTADB:
		case SQLITE_CANTOPEN:
		case SQLITE_PROTOCOL:
		case SQLITE_NOMEM:
			return true;
		default:
			return false;
	}
}

/*
 * SQLite tells a full disk, but a quota or a limit on the file's size only as
 * a write that failed.  Of a write at COMMIT it does not keep the errno.
 */
static bool
sqlite_is_out_of_room(sqlite3 *db, int code, int last_errno)
{
	int			error = db ? sqlite3_system_errno(db) : 0;

	if (error == 0)
		error = last_errno;
	return code == SQLITE_IOERR_WRITE && (error == EFBIG || error == EDQUOT);
}

/* Raise what SQLite complains of by that handle; errno is as SQLite left it. */
void
sqlite_complain(SqliteStore *store, sqlite3 *db, int code)
{
	bool		out_of_room = sqlite_is_out_of_room(db, code, errno);
	const char *message = code == SQLITE_READONLY_DBMOVED ?
		"the file was moved, removed or replaced meanwhile" :
		db ? sqlite3_errmsg(db) : sqlite3_errstr(code);
	char	   *copy = pstrdup(message);
	const char *hint = sqlite_hint_for(out_of_room ? SQLITE_FULL : code);

	if (db == store->db && sqlite_ends_with_handle(code))
		store->is_worn = true;
	CHECK_FOR_INTERRUPTS();
	ereport(ERROR,
			(errcode(sqlstate_of_sqlite(out_of_room ? SQLITE_FULL : code)),
			 errmsg("storage \"%s\" failed", store->base.name),
			 errdetail("SQLite says: %s.", copy),
			 hint ? errhint("%s", hint) : 0));
}

/* Raise what SQLite has just complained of by the store's own handle. */
void
sqlite_complain_of(SqliteStore *store, int code)
{
	sqlite_complain(store, store->db, code);
}

/* To be called at once: what it raises is the handle's last error. */
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

static void
wait_for_sqlite(int ms)
{
	if (WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
				  ms, PG_WAIT_EXTENSION) & WL_LATCH_SET)
		ResetLatch(MyLatch);
}

/* For how long is the file left to others? */
static int
rest_of_pause(const SqliteStore *store, TimestampTz now)
{
	int			since = now / 1000 % PAUSE_EACH_MS;
	int			pause = store->has_log ? PAUSE_MS : LONG_PAUSE_MS;

	return now - store->wrote_at < PAUSE_EACH_MS * INT64CONST(1000) ? Max(pause - since, 0) : 0;
}

/* Before a transaction that writes. */
void
sqlite_let_others_write(SqliteStore *store)
{
	int			ms;

	while ((ms = rest_of_pause(store, GetCurrentTimestamp())) > 0)
	{
		wait_for_sqlite(ms);
		CHECK_FOR_INTERRUPTS();
	}
}

/* The file is locked: wait a little and try again, or give up. */
int
sqlite_on_busy(void *arg, int times)
{
	SqliteStore *store = arg;
	TimestampTz now = GetCurrentTimestamp();

	if (times == 0)
		store->busy_since = now;
	if (sqlite_must_stop() ||
		TimestampDifferenceExceeds(store->busy_since, now, sagaz_command_timeout))
		return 0;
	wait_for_sqlite(Max(BUSY_WAIT_MS, rest_of_pause(store, now)));
	return 1;
}

/*
 * Called by SQLite in the middle of a statement, and so raises nothing: it
 * makes the statement end, and the caller raises why.
 */
int
sqlite_on_progress(void *arg)
{
	return sqlite_must_stop();
}
