/*
 * sqlite_file.c
 *		Who may use which file as a SQLite storage.
 *
 * The file is the server's user's, so the rule is that of server-side file
 * access: pg_read_server_files to read, and pg_write_server_files to write.
 * Under sagaz.sqlite_directory everybody may who may use the storage; links
 * out of it do not count as being in it.
 */
#include "backends/common/backend.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "catalog/pg_authid.h"
#include "common/file_utils.h"
#include "miscadmin.h"
#include "utils/acl.h"

#include "backends/sqlite/sqlite_file.h"

/* The directory of a path without links, in malloc'd memory; or NULL. */
static char *
real_directory(const char *path)
{
	char	   *directory = pstrdup(path);

	get_parent_directory(directory);
	return realpath(directory[0] ? directory : "/", NULL);
}

static bool
is_link(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

/* Is the file in the directory that is free to use? */
static bool
is_in_free_directory(const char *path)
{
	char	   *free_directory;
	char	   *directory;
	bool		inside = false;

	if (sagaz_sqlite_directory == NULL || sagaz_sqlite_directory[0] == '\0' ||
		is_link(path))
		return false;
	free_directory = realpath(sagaz_sqlite_directory, NULL);
	directory = real_directory(path);
	if (free_directory && directory)
	{
		size_t		length = strlen(free_directory);

		inside = strncmp(directory, free_directory, length) == 0 &&
			(directory[length] == '\0' || directory[length] == '/');
	}
	free(free_directory);
	free(directory);
	return inside;
}

/*
 * May the role read the file, and write it, too?  An error if it may not even
 * read it.
 */
bool
sagaz_sqlite_may_write(const char *path, Oid role)
{
	if (!is_absolute_path(path))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("path of a SQLite storage must be absolute")));
	if (is_in_free_directory(path))
		return true;
	if (!has_privs_of_role(role, ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for a SQLite file outside of sagaz.sqlite_directory"),
				 errhint("The role needs the privileges of pg_read_server_files and, to write, pg_write_server_files.")));
	return has_privs_of_role(role, ROLE_PG_WRITE_SERVER_FILES);
}
