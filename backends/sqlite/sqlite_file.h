/*
 * sqlite_file.h
 *		Who may use which file as a SQLite storage.
 */
#ifndef SAGAZ_SQLITE_FILE_H
#define SAGAZ_SQLITE_FILE_H

extern bool sagaz_sqlite_may_write(const char *path, Oid role);

#endif							/* SAGAZ_SQLITE_FILE_H */
