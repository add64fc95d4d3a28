/*
 * sqlite_file.c
 *		Who may use which file as a SQLite storage.
 *
 * The file is the server's user's, so the rule is that of server-side file
 * access.  Under sagaz.sqlite_directory everybody may who may use the storage,
 * but for the server's own data.  What was found to be there is opened by its
 * path without links, and SQLite follows none, neither to the file nor to its
 * journals: so nobody who can make links there has one opened after the look.
 */
#include "backends/common/backend.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/file_utils.h"
#include "miscadmin.h"

#include "backends/sqlite/sqlite_file.h"

/* The directory of a path without links, or NULL. */
static char *
real_file_directory(const char *path)
{
	char	   *directory = pstrdup(path);
	char		real[PATH_MAX];

	get_parent_directory(directory);
	return realpath(directory[0] ? directory : "/", real) ? pstrdup(real) : NULL;
}

static bool
file_is_link(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

/* Is the directory, which has no links, the other one or below it? */
static bool
is_below(const char *directory, const char *other)
{
	char		real[PATH_MAX];
	size_t		length;

	if (realpath(other, real) == NULL)
		return false;
	length = strlen(real);
	return strncmp(directory, real, length) == 0 &&
		(directory[length] == '\0' || directory[length] == '/' || length == 1);
}

/* The path without links of a file that is free to use, else NULL. */
static char *
free_path(const char *path)
{
	char	   *directory;

	if (sagaz_sqlite_directory == NULL || sagaz_sqlite_directory[0] == '\0' ||
		file_is_link(path))
		return NULL;
	directory = real_file_directory(path);
	if (directory == NULL || !is_below(directory, sagaz_sqlite_directory) ||
		is_below(directory, DataDir))
		return NULL;
	return psprintf("%s/%s", directory, last_dir_separator(path) + 1);
}

/*
 * How may the store use the file?  An error if it may not even read it.  Called
 * before each operation, as rights and links change.
 */
void
sqlite_file_find(const SagazStore *store, const char *path, SqliteFile *file)
{
	char	   *real;

	if (!is_absolute_path(path))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("path of a SQLite storage must be absolute")));
	real = free_path(path);
	file->no_links = real != NULL;
	file->path = real ? real : path;
	file->may_write = file->may_make = real || store->writes_files;
	if (real == NULL && !store->reads_files)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for a SQLite file outside of sagaz.sqlite_directory"),
				 errhint("The role needs the privileges of pg_read_server_files and, to write, pg_write_server_files.")));
}
