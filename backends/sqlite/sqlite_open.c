/*
 * sqlite_open.c
 *		Opening a SQLite file, and noticing that its path leads elsewhere.
 *
 * A file that is open stays so when it is removed, renamed or replaced, and
 * what is written then goes where nobody finds it.  So what stands at the path
 * is looked at before each operation and before each commit.  A file that is
 * not there is not an empty one: reading it is an error, and only who writes
 * makes it.
 */
#include "backends/sqlite/sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "storage/fd.h"
#include "utils/memutils.h"

#include "backends/sqlite/sqlite_file.h"

#ifdef SQLITE_OPEN_NOFOLLOW
#define NO_LINKS SQLITE_OPEN_NOFOLLOW
#else
#define NO_LINKS 0
#endif

/* Whoever replaces the file all the time is not waited for. */
#define OPEN_ATTEMPTS 10

static void
refuse_another_file(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CAPACITY),
			 errmsg("too many files are open for another storage")));
}

static void
forget_sqlite_handle(SqliteStore *store)
{
	ListCell   *cell;

	foreach(cell, store->statements)
	{
		SqliteStatement *statement = lfirst(cell);

		sqlite3_finalize(statement->handle);
		pfree(statement->sql);
	}
	list_free_deep(store->statements);
	store->statements = NIL;
	store->db = NULL;
	store->is_open = store->is_worn = store->looked = false;
}

/*
 * Close a handle whose statements are finalized.  A write-ahead log goes by the
 * path: where nothing is left there, have what it holds in the renamed file.
 */
void
sqlite_close_handle(sqlite3 *db)
{
	const char *path = db ? sqlite3_db_filename(db, "main") : NULL;

	if (path && path[0] && access(path, F_OK) != 0)
		(void) sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	sqlite3_close_v2(db);
}

static void
close_sqlite_database(SqliteStore *store)
{
	sqlite3    *db = store->db;

	forget_sqlite_handle(store);
	sqlite_close_handle(db);
}

/* A reader goes on by the handle that the store had. */
static void
leave_handle_to_reader(SqliteStore *store)
{
	if (!AcquireExternalFD())
		refuse_another_file();
	store->reader->owns_db = true;
	store->reader = NULL;
	forget_sqlite_handle(store);
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

/* The option "mode" takes away, and gives no rights. */
static void
find_sqlite_file(SqliteStore *store, SqliteFile *file)
{
	const char *mode = sagaz_store_option(&store->base, "mode");

	sqlite_file_find(&store->base, store->path, file);
	file->may_write &= mode == NULL || strcmp(mode, "ro") != 0;
	file->may_make = file->may_write && (mode == NULL || strcmp(mode, "rwc") == 0);
}

/* Nothing is opened as yet. */
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
	find_sqlite_file(store, &file);
	store->close.func = close_sqlite_store;
	store->close.arg = store;
	MemoryContextRegisterResetCallback(base->context, &store->close);
	if (!AcquireExternalFD())
		refuse_another_file();
	store->has_fd = true;
}

/* What stands at the path?  False if nothing does, for certain. */
static bool
sqlite_stat(SqliteStore *store, const char *path, struct stat *st)
{
	if (stat(path, st) == 0)
		return true;
	if (errno != ENOENT && errno != ENOTDIR)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CONNECTION),
				 errmsg("file \"%s\" of storage \"%s\" cannot be looked at: %m",
						path, store->base.name)));
	return false;
}

static bool
is_sqlite_file(const SqliteStore *store, const struct stat *st)
{
	return st->st_dev == store->device && st->st_ino == store->inode;
}

/* Is the file that is open the one that its path leads to? */
bool
sqlite_is_in_place(SqliteStore *store)
{
	struct stat st;

	return sqlite_stat(store, store->opened, &st) && is_sqlite_file(store, &st);
}

static void
refuse_missing_file(SqliteStore *store)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CONNECTION),
			 errmsg("file \"%s\" of storage \"%s\" does not exist",
					store->path, store->base.name),
			 errhint("See that the path is right, and that what should hold it is mounted. The first write makes it, if it may.")));
}

/*
 * Only for now is the store looked at, its file is not there, and so is not
 * made: could it be?  An error if not.
 */
bool
sqlite_would_be_made(SqliteStore *store)
{
	char	   *directory = pstrdup(store->path);
	SqliteFile	file;
	struct stat st;

	find_sqlite_file(store, &file);
	if (!store->base.only_looks || sqlite_stat(store, file.path, &st))
		return false;
	get_parent_directory(directory);
	if (!file.may_make || access(directory[0] ? directory : "/", W_OK | X_OK) != 0)
		sqlite_complain_of(store, SQLITE_CANTOPEN);
	return true;
}

static void
open_sqlite_database(SqliteStore *store, const char *path, int flags)
{
	int			code = sqlite3_open_v2(path, &store->db,
									   flags | SQLITE_OPEN_EXRESCODE, NULL);

	sqlite_check(store, code);
	sqlite_check(store, sqlite_add_functions(store->db));
	sqlite3_busy_handler(store->db, sqlite_on_busy, store);
	sqlite3_progress_handler(store->db, SQLITE_PROGRESS_STEPS, sqlite_on_progress, store);
	sqlite3_limit(store->db, SQLITE_LIMIT_LENGTH,
				  (int) Min((int64) sagaz_max_reply * 1024, INT_MAX));
	/* only what we say ourselves runs, whatever the file's schema holds */
	sqlite3_db_config(store->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(store->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
	sqlite3_db_config(store->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
}

/* What has been opened is what is there now, and it is known what that is. */
static bool
note_sqlite_place(SqliteStore *store, const SqliteFile *file)
{
	struct stat st;
	int			has_moved = 1;

	if (!sqlite_stat(store, file->path, &st) ||
		sqlite3_file_control(store->db, NULL, SQLITE_FCNTL_HAS_MOVED, &has_moved) != SQLITE_OK ||
		has_moved)
		return false;
	store->device = st.st_dev;
	store->inode = st.st_ino;
	if (store->opened)
		pfree(store->opened);
	store->opened = MemoryContextStrdup(store->base.context, file->path);
	store->may_write = file->may_write;
	return true;
}

/* A new file gets the rights that the option says, as its journals do then. */
static void
make_sqlite_file(SqliteStore *store, const SqliteFile *file)
{
	const char *mode = sagaz_store_option(&store->base, "file_mode");
	int			fd;

	if (mode == NULL)
		return;
	fd = open(file->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	if (fchmod(fd, (mode_t) strtol(mode, NULL, 8)) != 0)
	{
		int			error = errno;

		close(fd);
		(void) unlink(file->path);
		errno = error;
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_STORAGE),
				 errmsg("could not set the mode of file \"%s\" of storage \"%s\": %m",
						file->path, store->base.name)));
	}
	close(fd);
}

static void
open_sqlite_file(SqliteStore *store, const SqliteFile *file, bool makes)
{
	int			flags = file->may_write ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY;

	if (file->no_links)
		flags |= NO_LINKS;
	if (makes)
	{
		make_sqlite_file(store, file);
		flags |= SQLITE_OPEN_CREATE;
	}
	if (store->is_still)
		flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | (flags & NO_LINKS);
	for (int i = 0; i < OPEN_ATTEMPTS; i++)
	{
		open_sqlite_database(store, store->is_still ? sqlite_still_name(file->path) :
							 file->path, flags);
		store->is_open = note_sqlite_place(store, file);
		if (store->is_open)
			return;
		close_sqlite_database(store);
	}
	sqlite_complain_of(store, SQLITE_READONLY_DBMOVED);
}

/*
 * Have the file open that the path leads to now, as the rights to it are now.
 * In a transaction it is the one with which that began.
 */
void
sqlite_open_for(SqliteStore *store, bool writes)
{
	SqliteFile	file;
	struct stat st = {0};
	bool		is_there;

	if (store->is_open && !sqlite3_get_autocommit(store->db))
		return;
	find_sqlite_file(store, &file);
	is_there = sqlite_stat(store, file.path, &st);
	if (store->is_open && !store->is_worn && store->reader == NULL && !store->is_still &&
		is_there && is_sqlite_file(store, &st) &&
		file.may_write == store->may_write && strcmp(file.path, store->opened) == 0)
		return;
	if (store->reader)
		leave_handle_to_reader(store);
	else
		close_sqlite_database(store);
	if (!is_there && !(writes && file.may_make))
		refuse_missing_file(store);
	store->is_still = !writes && sqlite_needs_stillness(file.path);
	store->file = st;
	open_sqlite_file(store, &file, !is_there);
}
