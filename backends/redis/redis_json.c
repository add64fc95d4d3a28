/*
 * redis_json.c
 *		JSON as the Python library writes it into Redis: beyond ASCII all is
 *		escaped.
 */
#include "backends/redis/redis.h"

#include "mb/pg_wchar.h"
#include "utils/json.h"
#include "utils/jsonb.h"

#include "lib/times.h"

/*
 * UTF-8 text of JSON, escaped; but a database without an encoding could not
 * read that back.
 */
static void
redis_append_ascii(StringInfo out, const char *utf8)
{
	while (*utf8)
	{
		unsigned char byte = (unsigned char) *utf8;
		pg_wchar	code;

		if (byte < 0x7f || GetDatabaseEncoding() == PG_SQL_ASCII)
		{
			appendStringInfoCharMacro(out, *utf8++);
			continue;
		}
		code = utf8_to_unicode((const unsigned char *) utf8);
		if (code < 0x10000)
			appendStringInfo(out, "\\u%04x", (unsigned) code);
		else
			appendStringInfo(out, "\\u%04x\\u%04x",
							 (unsigned) (0xd800 + ((code - 0x10000) >> 10)),
							 (unsigned) (0xdc00 + ((code - 0x10000) & 0x3ff)));
		utf8 += pg_utf_mblen((const unsigned char *) utf8);
	}
}

/* A document; null where it is NULL. */
void
redis_append_json(StringInfo out, Jsonb *json)
{
	if (json == NULL)
		appendStringInfoString(out, "null");
	else
		redis_append_ascii(out, redis_utf8(JsonbToCString(NULL, &json->root,
														  VARSIZE(json))));
}

/* Text of the database as a string; null where it is NULL. */
void
redis_append_json_string(StringInfo out, const char *text)
{
	StringInfoData quoted;

	if (text == NULL)
	{
		appendStringInfoString(out, "null");
		return;
	}
	initStringInfo(&quoted);
	escape_json(&quoted, text);
	redis_append_ascii(out, redis_utf8(quoted.data));
	pfree(quoted.data);
}

/* Null where there is none. */
void
redis_append_json_time(StringInfo out, TimestampTz time)
{
	char		text[SAGAZ_TIME_SIZE];

	if (time == 0)
	{
		appendStringInfoString(out, "null");
		return;
	}
	(void) sagaz_format_time(sagaz_real_time(time), text);
	redis_append_json_string(out, text);
}
