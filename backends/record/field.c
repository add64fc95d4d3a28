/*
 * field.c
 *		Fields of foreign stores, which are UTF-8 or should be.
 *
 * What cannot be read becomes the record's problem; the first one counts.
 */
#include "backends/record/record.h"

#include "mb/pg_wchar.h"
#include "utils/fmgrprotos.h"

#include "lib/encoding.h"
#include "lib/times.h"

/* The first problem stays; it must last as long as the record. */
void
sagaz_field_complain(SagazRecord *record, char *problem)
{
	if (record->problem == NULL)
		record->problem = problem;
}

/* In ASCII, as in a URL, so that two that differ still do, also within JSON. */
static char *
visible_field_bytes(const char *bytes, size_t length)
{
	StringInfoData text;

	initStringInfo(&text);
	for (size_t i = 0; i < length; i++)
		if (IS_HIGHBIT_SET(bytes[i]))
			appendStringInfo(&text, "%%%02X", (unsigned char) bytes[i]);
		else
			appendStringInfoChar(&text, bytes[i]);
	return text.data;
}

/*
 * Text in the database's encoding; NULL for NULL.  What is wrong is shown as
 * far as it can be.
 */
char *
sagaz_field_text(const char *bytes, size_t length, const char *field,
				 SagazRecord *record)
{
	char	   *text;

	if (bytes == NULL)
		return NULL;
	if (memchr(bytes, '\0', length) != NULL)
	{
		char	   *visible = palloc(length + 1);

		sagaz_field_complain(record, psprintf("%s contains a NUL character", field));
		for (size_t i = 0; i < length; i++)
			visible[i] = bytes[i] ? bytes[i] : '?';
		visible[length] = '\0';
		bytes = visible;
	}
	text = sagaz_from_utf8(bytes, length);
	if (text)
		return text;
	sagaz_field_complain(record, pg_verify_mbstr(PG_UTF8, bytes, length, true) ?
						 psprintf("%s has a character that %s does not have", field,
								  GetDatabaseEncodingName()) :
						 psprintf("%s is not UTF-8", field));
	return visible_field_bytes(bytes, length);
}

/*
 * JSON text of a foreign store; NULL, with the problem, where a jsonb cannot
 * hold it.  Parsing allocates memory and nothing else, so its error can be
 * caught without a subtransaction.
 */
Jsonb *
sagaz_field_parse_json(const char *text, int length, char **problem)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *copy = pnstrdup(text, length);
	Jsonb	   *volatile json = NULL;

	*problem = NULL;
	PG_TRY();
	{
		(void) pg_verifymbstr(copy, length, false);
		json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(copy)));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION ||
			error->sqlerrcode == ERRCODE_OUT_OF_MEMORY)
			PG_RE_THROW();
		FlushErrorState();
		/* whoever shows it ends the sentence */
		if (error->detail && error->detail[strlen(error->detail) - 1] == '.')
			error->detail[strlen(error->detail) - 1] = '\0';
		*problem = psprintf("%s%s%s", error->message,
							error->detail ? ": " : "",
							error->detail ? error->detail : "");
	}
	PG_END_TRY();
	return json;
}

/* A document, from such a text. */
Jsonb *
sagaz_field_json(const char *text, const char *field, SagazRecord *record)
{
	char	   *problem;
	Jsonb	   *json;

	if (text == NULL || record->problem)
		return NULL;
	json = sagaz_field_parse_json(text, strlen(text), &problem);
	if (json == NULL)
		sagaz_field_complain(record, psprintf("%s: %s", field, problem));
	return json;
}

/* A time, or a typed object of the library that is one. */
TimestampTz
sagaz_field_time(const char *text, const char *field, SagazRecord *record)
{
	TimestampTz time;

	if (text == NULL || record->problem)
		return 0;
	if (sagaz_parse_time(text, strlen(text), &time) ||
		sagaz_parse_typed_time(text, &time))
		return sagaz_record_time(time);
	sagaz_field_complain(record, psprintf("%s is not a time", field));
	return 0;
}
