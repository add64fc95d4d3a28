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

#include <sqlite3.h>

typedef struct SqliteStore
{
	SagazStore	base;
	const char *path;
	sqlite3    *db;
	bool		may_write;
	bool		is_stand_in;	/* which is empty, for a file not made as yet */
	List	   *statements;		/* prepared ones */
	bool		has_fd;			/* counted as one of our descriptors */
	bool		looked;			/* what follows is known */
	bool		empty;			/* the file has no table at all */
	bool		has[SAGAZ_EVENT + 1];
	bool		has_side[SAGAZ_EVENT + 1];
	TimestampTz busy_since;
	MemoryContextCallback close;
} SqliteStore;

/* sqlite_connection.c */
extern void sqlite_complain_of(SqliteStore *store, int code);
extern void sqlite_check(SqliteStore *store, int code);
extern void sqlite_run(SqliteStore *store, const char *sql);
extern sqlite3_stmt *sqlite_prepare(SqliteStore *store, const char *sql);
extern void sqlite_open(SagazStore *base);
extern void sqlite_look(SqliteStore *store);
extern void sqlite_look_once(SqliteStore *store);
extern void sqlite_begin(SqliteStore *store, SagazKind kind);
extern void sqlite_commit(SqliteStore *store);
extern void sqlite_roll_back(SqliteStore *store);

#endif							/* SAGAZ_SQLITE_H */
