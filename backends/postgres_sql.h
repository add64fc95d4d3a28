/*
 * postgres_sql.h
 *		Statements over the Python library's tables, with their parameters.
 */
#ifndef SAGAZ_POSTGRES_SQL_H
#define SAGAZ_POSTGRES_SQL_H

#include "postgres_store.h"

#include "lib/stringinfo.h"

#define POSTGRES_MAX_PARAMETERS 20

/* A statement being put together. */
typedef struct PostgresSql
{
	StringInfoData text;
	int			nparameters;
	const char *parameters[POSTGRES_MAX_PARAMETERS];
} PostgresSql;

extern void postgres_sql_begin(PostgresSql *sql);
extern void postgres_sql_add(PostgresSql *sql, const char *text,
							 const char *parameter);
extern void postgres_sql_queue(PostgresStore *store, const PostgresSql *sql);

/* postgres_library_read.c */
extern void postgres_library_select(PostgresStore *store, PostgresSql *sql,
									SagazKind kind, const SagazFilter *filter,
									const char *after_key, int64 count,
									bool for_update);
extern List *postgres_library_records(const PostgresResult *rows, SagazKind kind);
extern char *postgres_json_strings(const char *const *words, int count);

#endif							/* SAGAZ_POSTGRES_SQL_H */
