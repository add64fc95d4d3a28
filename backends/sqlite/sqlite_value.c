/*
 * sqlite_value.c
 *		Values of SQLite and ours.
 *
 * A column may hold a value of any type and size, whatever it was declared as,
 * and SQLite converts whatever it is asked for.  So the type is looked at: a
 * value that is none of its field is the record's problem, and is not cut.
 */
#include "backends/sqlite/sqlite.h"

#include "utils/timestamp.h"

#include "backends/record/record.h"
#include "lib/encoding.h"
#include "lib/times.h"

#ifdef SQLITE_DIRECTONLY
#define DIRECTLY_ONLY SQLITE_DIRECTONLY
#else
#define DIRECTLY_ONLY 0
#endif

/* ---------------------------------------------------------------------- */
/* Bound to a statement */

/* Copied, in UTF-8; NULL: null. */
void
sqlite_bind_text(sqlite3_stmt *statement, int position, const char *text)
{
	char	   *utf8;

	if (text == NULL)
	{
		sqlite3_bind_null(statement, position);
		return;
	}
	utf8 = sagaz_to_utf8(text);
	sqlite3_bind_text(statement, position, utf8, strlen(utf8), SQLITE_TRANSIENT);
}

/* NULL: null. */
void
sqlite_bind_json(sqlite3_stmt *statement, int position, Jsonb *json)
{
	sqlite_bind_text(statement, position,
					 json ? JsonbToCString(NULL, &json->root, VARSIZE(json)) : NULL);
}

/* As the text that the library writes; 0: null. */
void
sqlite_bind_time(sqlite3_stmt *statement, int position, TimestampTz time)
{
	char		text[SAGAZ_TIME_SIZE];

	if (time != 0)
		(void) sagaz_format_time(sagaz_real_time(time), text);
	sqlite_bind_text(statement, position, time != 0 ? text : NULL);
}

/* For fields of records in which 0 means none: null. */
void
sqlite_bind_int(sqlite3_stmt *statement, int position, int64 value)
{
	if (value != 0)
		sqlite3_bind_int64(statement, position, value);
	else
		sqlite3_bind_null(statement, position);
}

/* ---------------------------------------------------------------------- */
/* Out of a row */

static char *
text_of_column(sqlite3_stmt *row, int column, const char *field, SagazRecord *record)
{
	const char *bytes = (const char *) sqlite3_column_text(row, column);

	return sagaz_field_text(bytes, sqlite3_column_bytes(row, column), field, record);
}

/* Bytes are no text: they are not found by the text that they look like. */
char *
sqlite_column_string(sqlite3_stmt *row, int column, const char *field,
					 SagazRecord *record)
{
	int			type = sqlite3_column_type(row, column);

	if (type != SQLITE_TEXT && type != SQLITE_NULL)
		sagaz_field_complain(record, psprintf("%s is not text", field));
	return text_of_column(row, column, field, record);
}

/* The library reads it out of bytes, too. */
Jsonb *
sqlite_column_json(sqlite3_stmt *row, int column, const char *field,
				   SagazRecord *record)
{
	return sagaz_field_json(text_of_column(row, column, field, record), field, record);
}

/* What is no time is the record's problem, not an error. */
TimestampTz
sqlite_column_time(sqlite3_stmt *row, int column, const char *field,
				   SagazRecord *record)
{
	return sagaz_field_time(sqlite_column_string(row, column, field, record), field,
							record);
}

/* 0 for NULL. */
int64
sqlite_column_count(sqlite3_stmt *row, int column, int64 most, const char *field,
					SagazRecord *record)
{
	int			type = sqlite3_column_type(row, column);
	int64		value = sqlite3_column_int64(row, column);

	if (type == SQLITE_NULL)
		return 0;
	if (type == SQLITE_INTEGER && value >= 0 && value <= most)
		return value;
	sagaz_field_complain(record, psprintf("%s is not a count", field));
	return 0;
}

/* A time as our own tables have it; 0 for NULL. */
TimestampTz
sqlite_column_instant(sqlite3_stmt *row, int column, const char *field,
					  SagazRecord *record)
{
	int			type = sqlite3_column_type(row, column);
	TimestampTz value = sqlite3_column_int64(row, column);

	if (type == SQLITE_NULL)
		return 0;
	if (type == SQLITE_INTEGER && sagaz_time_in_range(value))
		return value;
	sagaz_field_complain(record, psprintf("%s is not a time", field));
	return 0;
}

/* ---------------------------------------------------------------------- */
/* In a query */

/* The instant that a text means: texts of one instant differ. */
static void
instant_of_text(sqlite3_context *context, int nargs, sqlite3_value **args)
{
	const char *text = (const char *) sqlite3_value_text(args[0]);
	TimestampTz time;

	if (text && (sagaz_parse_time(text, strlen(text), &time) ||
				 sagaz_parse_typed_time(text, &time)))
		sqlite3_result_int64(context, time);
}

/* Make SQLITE_INSTANT known to a handle. */
int
sqlite_add_functions(sqlite3 *db)
{
	return sqlite3_create_function_v2(db, SQLITE_INSTANT, 1,
									  SQLITE_UTF8 | SQLITE_DETERMINISTIC | DIRECTLY_ONLY,
									  NULL, instant_of_text, NULL, NULL, NULL);
}
