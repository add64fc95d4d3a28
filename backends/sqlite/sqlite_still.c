/*
 * sqlite_still.c
 *		Reading a file with a write-ahead log where none can be made.
 *
 * SQLite makes a log and an index of it beside such a file even to read it.
 * In a directory that we may not write to (a backup, a mount to read from) it
 * refuses, unless it is told that the file never changes; and then it looks at
 * no lock and no log.  That is true enough of a file without a log that holds
 * anything, as long as it has not changed when a row has been read: so that is
 * looked at, for each row.  What others commit meanwhile to a log of their own
 * came later.
 */
#include "backends/sqlite/sqlite.h"

#include <fcntl.h>
#include <unistd.h>

/* Of the header: the versions that say how the file is to be read. */
#define HEADER_LENGTH 20
#define READ_VERSION 19
#define WITH_LOG 2

static bool
file_wants_log(const char *path)
{
	unsigned char header[HEADER_LENGTH];
	int			fd = open(path, O_RDONLY | O_CLOEXEC);
	bool		whole;

	if (fd < 0)
		return false;
	whole = read(fd, header, sizeof(header)) == sizeof(header);
	close(fd);
	return whole && header[READ_VERSION] == WITH_LOG;
}

/* Is there something beside the file, and how large is it? -1: nothing. */
static int64
size_beside(const char *path, const char *suffix)
{
	struct stat st;

	return stat(psprintf("%s%s", path, suffix), &st) == 0 ? (int64) st.st_size : -1;
}

/* Can the file be read only as one that nobody changes, and is that sound? */
bool
sqlite_needs_stillness(const char *path)
{
	char	   *directory = pstrdup(path);
	int64		log;

	get_parent_directory(directory);
	if (access(directory[0] ? directory : "/", W_OK) == 0 || !file_wants_log(path))
		return false;
	log = size_beside(path, "-wal");
	return log < 0 || (log == 0 && size_beside(path, "-shm") < 0);
}

/* The name by which SQLite is told. */
char *
sqlite_still_name(const char *path)
{
	StringInfoData name;

	initStringInfo(&name);
	appendStringInfoString(&name, "file:");
	for (const char *next = path; *next; next++)
	{
		if (strchr("%?#", *next))
			appendStringInfo(&name, "%%%02X", (unsigned char) *next);
		else
			appendStringInfoChar(&name, *next);
	}
	appendStringInfoString(&name, "?immutable=1");
	return name.data;
}

static void
refuse_moving_file(SqliteStore *store)
{
	store->is_worn = true;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CONCURRENCY),
			 errmsg("storage \"%s\" failed", store->base.name),
			 errdetail("Its file was written to while it was read.")));
}

/* An error if the file is not as it was before it was opened. */
void
sqlite_check_still(SqliteStore *store, const char *path, const struct stat *file)
{
	struct stat st;

	if (stat(path, &st) != 0 || st.st_ino != file->st_ino || st.st_size != file->st_size ||
		st.st_mtim.tv_sec != file->st_mtim.tv_sec || st.st_mtim.tv_nsec != file->st_mtim.tv_nsec)
		refuse_moving_file(store);
}
