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

/* In queries: the instant that a text means, in microseconds. */
#define SQLITE_INSTANT "sagaz_instant"

typedef struct SqliteReader SqliteReader;

typedef struct SqliteStore
{
	SagazStore	base;
	const char *path;
	sqlite3    *db;
	SqliteReader *reader;		/* that reads by db, or NULL */
	bool		is_open;
	bool		is_worn;		/* to be opened anew by the next operation */
	bool		may_write;
	char	   *opened;			/* the path by which it was found */
	dev_t		device;			/* and what was there */
	ino_t		inode;
	bool		is_still;		/* read as a file that nobody changes */
	struct stat file;			/* as it was before it was opened */
	List	   *statements;		/* prepared ones: SqliteStatement */
	bool		has_fd;			/* counted as one of our descriptors */
	bool		looked;			/* what follows is known */
	int64		schema_version; /* as of which */
	bool		empty;			/* the file has no table at all */
	bool		has[SAGAZ_EVENT + 1];
	bool		has_side[SAGAZ_EVENT + 1];
	TimestampTz busy_since;
	TimestampTz wrote_at;
	bool		has_log;		/* did it, when we last began to write? */
	MemoryContextCallback close;
} SqliteStore;

/*
 * A reader has a statement of its own.  It reads by the store's handle until
 * somebody else uses the store, who gets a new one: so he sees what is in the
 * file now, and what he writes does not wait for the reader.
 */
struct SqliteReader
{
	SagazReader base;
	sqlite3_stmt *statement;
	sqlite3    *db;
	bool		owns_db;		/* the store has another one since */
	bool		copies;			/* reads a copy of the rows */
	int			code;			/* of the last step */
	int64		count;
	char	   *still;			/* the path, if the store is_still */
	struct stat file;			/* and what was there */
	MemoryContextCallback close;
};

/* sqlite_error.c */
extern void sqlite_complain(SqliteStore *store, sqlite3 *db, int code);
extern void sqlite_complain_of(SqliteStore *store, int code);
extern void sqlite_check(SqliteStore *store, int code);
extern void sqlite_let_others_write(SqliteStore *store);
extern int	sqlite_on_busy(void *arg, int times);
extern int	sqlite_on_progress(void *arg);

/* sqlite_value.c */
extern void sqlite_bind_text(sqlite3_stmt *statement, int position, const char *text);
extern void sqlite_bind_json(sqlite3_stmt *statement, int position, Jsonb *json);
extern void sqlite_bind_time(sqlite3_stmt *statement, int position, TimestampTz time);
extern void sqlite_bind_int(sqlite3_stmt *statement, int position, int64 value);
extern char *sqlite_column_string(sqlite3_stmt *row, int column, const char *field,
								  SagazRecord *record);
extern Jsonb *sqlite_column_json(sqlite3_stmt *row, int column, const char *field,
								 SagazRecord *record);
extern TimestampTz sqlite_column_time(sqlite3_stmt *row, int column, const char *field,
									  SagazRecord *record);
extern int64 sqlite_column_count(sqlite3_stmt *row, int column, int64 most,
								 const char *field, SagazRecord *record);
extern TimestampTz sqlite_column_instant(sqlite3_stmt *row, int column, const char *field,
										 SagazRecord *record);
extern int	sqlite_add_functions(sqlite3 *db);

/* sqlite_open.c */
extern void sqlite_open(SagazStore *base);
extern void sqlite_close_handle(sqlite3 *db);
extern void sqlite_open_for(SqliteStore *store, bool writes);
extern bool sqlite_is_in_place(SqliteStore *store);
extern bool sqlite_would_be_made(SqliteStore *store);

/* sqlite_still.c */
extern bool sqlite_needs_stillness(const char *path);
extern char *sqlite_still_name(const char *path);
extern void sqlite_check_still(SqliteStore *store, const char *path,
							   const struct stat *file);

/* sqlite_connection.c */
extern void sqlite_run(SqliteStore *store, const char *sql);
extern sqlite3_stmt *sqlite_prepare(SqliteStore *store, const char *sql);
extern void sqlite_look(SqliteStore *store);
extern void sqlite_be_ready(SqliteStore *store, bool writes);
extern void sqlite_begin(SqliteStore *store, SagazKind kind);
extern void sqlite_commit(SqliteStore *store);
extern void sqlite_roll_back(SqliteStore *store);
extern bool sqlite_schema_is_known(SqliteStore *store);
extern bool sqlite_has_log(SqliteStore *store);

/* sqlite_read.c */
extern void sqlite_read_begin(SagazReader *base);
extern bool sqlite_read_next(SagazReader *base, SagazRecord *record);
extern void sqlite_read_end(SagazReader *base);

#endif							/* SAGAZ_SQLITE_H */
