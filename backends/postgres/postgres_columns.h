/*
 * postgres_columns.h
 *		Rows for a statement, as an array for each column.
 *
 * The other end makes rows of them with unnest(), in a statement's target
 * list, which costs it no more than COPY.  The arrays are in binary form.
 */
#ifndef SAGAZ_POSTGRES_COLUMNS_H
#define SAGAZ_POSTGRES_COLUMNS_H

#include "backends/postgres/postgres_store.h"

#include "lib/stringinfo.h"

typedef struct PostgresColumn
{
	Oid			element;		/* type of the values */
	int			count;
	StringInfoData values;
} PostgresColumn;

/* A column for each of these types, uuid, text, jsonb, timestamptz, integers. */
extern PostgresColumn *postgres_columns(const Oid *elements, int count);

/* Take the values out again. */
extern void postgres_clear_columns(PostgresColumn *columns, int count);

/* Add a value; null for NULL, for a time of 0, and where it says so. */
extern void postgres_add_text(PostgresColumn *column, const char *text);
extern void postgres_add_bytes(PostgresColumn *column, const char *bytes, int length);
extern void postgres_add_uuid(PostgresColumn *column, const char *text);
extern void postgres_add_json(PostgresColumn *column, const Jsonb *json);
extern void postgres_add_json_value(PostgresColumn *column, JsonbValue *value);
extern void postgres_add_time(PostgresColumn *column, TimestampTz time);
extern void postgres_add_number(PostgresColumn *column, int64 number);
extern void postgres_add_number_or_null(PostgresColumn *column, int64 number);

/*
 * Prepare a statement whose parameters are such columns, and queue it with
 * these, each with one result.
 */
extern void postgres_prepare_columns(PostgresStore *store, const char *sql,
									 const PostgresColumn *columns, int count);
extern void postgres_queue_columns(PostgresStore *store, PostgresColumn *columns,
								   int count);

/* An array of text, as its type spells it. */
extern char *postgres_text_array(const char *const *texts, int count);

#endif							/* SAGAZ_POSTGRES_COLUMNS_H */
