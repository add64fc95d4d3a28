/*
 * sqlite_file.h
 *		Who may use which file as a SQLite storage.
 */
#ifndef SAGAZ_SQLITE_FILE_H
#define SAGAZ_SQLITE_FILE_H

typedef struct SqliteFile
{
	const char *path;
	bool		may_write;
	bool		may_make;		/* it, where it is not there */
	bool		no_links;		/* the path has none, and must not get any */
} SqliteFile;

extern void sqlite_file_find(const SagazStore *store, const char *path,
							 SqliteFile *file);

#endif							/* SAGAZ_SQLITE_FILE_H */
