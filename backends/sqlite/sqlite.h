/*
 * sqlite.h
 *		What the files of the SQLite backend share.
 *
 * The folder keeps sagas and events in a SQLite file, in tables as the Python
 * library makes them.  SQLite's own header is known here alone.  It knows no
 * other backend.
 */
#ifndef SAGAZ_SQLITE_H
#define SAGAZ_SQLITE_H

#include "backends/common/backend.h"

#include <sys/stat.h>

#include <sqlite3.h>

/* How often a statement looks whether it was cancelled. */
#define SQLITE_PROGRESS_STEPS 10000

typedef struct SqliteStatement
{
	char	   *sql;
	sqlite3_stmt *handle;
} SqliteStatement;

typedef struct SqliteStore
{
	SagazStore	base;
	const char *path;
	sqlite3    *db;
	bool		is_open;
	bool		is_worn;		/* to be opened anew by the next operation */
	bool		may_write;
	char	   *opened;			/* the path by which it was found */
	dev_t		device;			/* and what was there */
	ino_t		inode;
	List	   *statements;		/* prepared ones: SqliteStatement */
	bool		has_fd;			/* counted as one of our descriptors */
	bool		looked;			/* what follows is known */
	int64		schema_version; /* as of which */
	bool		empty;			/* the file has no table at all */
	bool		has[SAGAZ_EVENT + 1];
	bool		has_side[SAGAZ_EVENT + 1];
	TimestampTz busy_since;
	MemoryContextCallback close;
} SqliteStore;

/* sqlite_error.c */
extern void sqlite_complain_of(SqliteStore *store, int code);
extern void sqlite_check(SqliteStore *store, int code);
extern int	sqlite_on_busy(void *arg, int times);
extern int	sqlite_on_progress(void *arg);

/* sqlite_open.c */
extern void sqlite_open(SagazStore *base);
extern void sqlite_open_for(SqliteStore *store, bool writes);
extern bool sqlite_is_in_place(SqliteStore *store);
extern bool sqlite_would_be_made(SqliteStore *store);

/* sqlite_connection.c */
extern void sqlite_run(SqliteStore *store, const char *sql);
extern sqlite3_stmt *sqlite_prepare(SqliteStore *store, const char *sql);
extern void sqlite_look(SqliteStore *store);
extern void sqlite_be_ready(SqliteStore *store, bool writes);
extern void sqlite_begin(SqliteStore *store, SagazKind kind);
extern void sqlite_commit(SqliteStore *store);
extern void sqlite_roll_back(SqliteStore *store);

#endif							/* SAGAZ_SQLITE_H */
