/*
 * postgres_columns.c
 *		Rows for a statement, as an array for each column.
 *
 * A value is its length, -1 for null, and its bytes; the array's head, which
 * has their number, is written when the array is whole.
 */
#include "backends/postgres/postgres_columns.h"

#include "catalog/pg_type.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "port/pg_bswap.h"

#include "lib/encoding.h"
#include "lib/times.h"

/* dimensions, whether there are nulls, type, length, lower bound */
#define HEAD_WORDS 5
#define JSONB_FORMAT 1

/*
 * The arrays grow in the present memory context, and are used page by page.
 */
PostgresColumn *
postgres_columns(const Oid *elements, int count)
{
	PostgresColumn *columns = palloc(count * sizeof(PostgresColumn));

	for (int i = 0; i < count; i++)
	{
		columns[i].element = elements[i];
		initStringInfo(&columns[i].values);
	}
	postgres_clear_columns(columns, count);
	return columns;
}

/*
 * For the next page of rows: the memory of the last one is kept and used
 * again.
 */
void
postgres_clear_columns(PostgresColumn *columns, int count)
{
	for (int i = 0; i < count; i++)
	{
		columns[i].count = 0;
		columns[i].values.len = HEAD_WORDS * sizeof(int32);
	}
}

/* ---------------------------------------------------------------------- */
/* Values */

static void
add_null_to_column(PostgresColumn *column)
{
	pq_sendint32(&column->values, (uint32) -1);
	column->count++;
}

/*
 * In the binary format of the column's type; text in UTF-8.  They are copied.
 */
void
postgres_add_bytes(PostgresColumn *column, const char *bytes, int length)
{
	pq_sendint32(&column->values, length);
	appendBinaryStringInfo(&column->values, bytes, length);
	column->count++;
}

void
postgres_add_text(PostgresColumn *column, const char *text)
{
	const char *utf8 = text ? sagaz_to_utf8(text) : NULL;

	if (utf8)
		postgres_add_bytes(column, utf8, strlen(utf8));
	else
		add_null_to_column(column);
}

static int
digit(char c)
{
	return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
}

/* The text is known to be a UUID. */
void
postgres_add_uuid(PostgresColumn *column, const char *text)
{
	char		bytes[16];

	for (int i = 0; i < (int) sizeof(bytes); i++, text += 2)
	{
		text += *text == '-';
		bytes[i] = (char) (digit(text[0]) << 4 | digit(text[1]));
	}
	postgres_add_bytes(column, bytes, sizeof(bytes));
}

/* The length goes before what has been appended since start. */
static void
end_column_json(PostgresColumn *column, int start)
{
	uint32		length = pg_hton32(column->values.len - start - sizeof(length));

	memcpy(column->values.data + start, &length, sizeof(length));
	column->count++;
}

static void
add_container_to_column(PostgresColumn *column, JsonbContainer *json, int length)
{
	int			start = column->values.len;

	pq_sendint32(&column->values, 0);
	pq_sendint8(&column->values, JSONB_FORMAT);
	if (GetDatabaseEncoding() == PG_UTF8)
		(void) JsonbToCString(&column->values, json, length);
	else
		appendStringInfoString(&column->values,
							   sagaz_to_utf8(JsonbToCString(NULL, json, length)));
	end_column_json(column, start);
}

/* NULL: null. */
void
postgres_add_json(PostgresColumn *column, const Jsonb *json)
{
	if (json)
		add_container_to_column(column, unconstify(JsonbContainer *, &json->root), VARSIZE(json));
	else
		add_null_to_column(column);
}

/* A part of a document; null for a null in it. */
void
postgres_add_json_value(PostgresColumn *column, JsonbValue *value)
{
	if (value == NULL || value->type == jbvNull)
		add_null_to_column(column);
	else if (value->type == jbvBinary)
		add_container_to_column(column, value->val.binary.data, value->val.binary.len);
	else
		postgres_add_json(column, JsonbValueToJsonb(value));
}

/* What no time of a record is, is before or after all times. */
void
postgres_add_time(PostgresColumn *column, TimestampTz time)
{
	if (time == 0)
	{
		add_null_to_column(column);
		return;
	}
	time = sagaz_real_time(time);
	if (!sagaz_time_in_range(time))
		time = time < 0 ? DT_NOBEGIN : DT_NOEND;
	pq_sendint32(&column->values, sizeof(int64));
	pq_sendint64(&column->values, time);
	column->count++;
}

/* As int8 or int4, whichever the column is of. */
void
postgres_add_number(PostgresColumn *column, int64 number)
{
	bool		is_long = column->element == INT8OID;

	pq_sendint32(&column->values, is_long ? sizeof(int64) : sizeof(int32));
	if (is_long)
		pq_sendint64(&column->values, number);
	else
		pq_sendint32(&column->values, (uint32) number);
	column->count++;
}

/* For fields of records in which 0 means none. */
void
postgres_add_number_or_null(PostgresColumn *column, int64 number)
{
	if (number != 0)
		postgres_add_number(column, number);
	else
		add_null_to_column(column);
}

/* ---------------------------------------------------------------------- */
/* Parameters */

static Oid
column_array_type(Oid element)
{
	switch (element)
	{
		case UUIDOID:
			return UUIDARRAYOID;
		case TEXTOID:
			return TEXTARRAYOID;
		case JSONBOID:
			return JSONBARRAYOID;
		case TIMESTAMPTZOID:
			return TIMESTAMPTZARRAYOID;
		case INT4OID:
			return INT4ARRAYOID;
		default:
			Assert(element == INT8OID);
			return INT8ARRAYOID;
	}
}

static void
write_column_head(PostgresColumn *column)
{
	const uint32 head[HEAD_WORDS] = {
		pg_hton32(1), pg_hton32(1), pg_hton32(column->element),
		pg_hton32(column->count), pg_hton32(1)
	};

	Assert(column->count > 0);
	memcpy(column->values.data, head, sizeof(head));
}

void
postgres_prepare_columns(PostgresStore *store, const char *sql,
						 const PostgresColumn *columns, int count)
{
	Oid		   *types = palloc(count * sizeof(Oid));

	for (int i = 0; i < count; i++)
		types[i] = column_array_type(columns[i].element);
	postgres_prepare(store, sql, count, types);
	pfree(types);
}

/*
 * As parameters of the statement that was prepared last; the bytes are
 * copied.
 */
void
postgres_queue_columns(PostgresStore *store, PostgresColumn *columns, int count)
{
	const char **values = palloc(count * sizeof(char *));
	int		   *lengths = palloc(count * sizeof(int));

	for (int i = 0; i < count; i++)
	{
		write_column_head(&columns[i]);
		values[i] = columns[i].values.data;
		lengths[i] = columns[i].values.len;
	}
	postgres_queue_prepared(store, count, values, lengths);
	pfree(values);
	pfree(lengths);
}

/* Without the type's own function: a worker has no transaction here. */
char *
postgres_text_array(const char *const *texts, int count)
{
	StringInfoData array;

	initStringInfo(&array);
	appendStringInfoChar(&array, '{');
	for (int i = 0; i < count; i++)
	{
		appendStringInfoString(&array, i > 0 ? ",\"" : "\"");
		for (const char *c = texts[i]; *c; c++)
		{
			if (*c == '"' || *c == '\\')
				appendStringInfoChar(&array, '\\');
			appendStringInfoChar(&array, *c);
		}
		appendStringInfoChar(&array, '"');
	}
	appendStringInfoChar(&array, '}');
	return array.data;
}
