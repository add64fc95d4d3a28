/*
 * harmless.c
 *		What was in data and would move a terminal: the control characters of
 *		ASCII and Latin-1, and those that turn the direction of text.
 */
#include "cli.h"

#include "mb/pg_wchar.h"
#include "pqexpbuffer.h"

/*
 * Bytes of the character here if a terminal must not get it, or 0.  What is
 * below 0x20 is not looked at: tables and JSON have spellings of their own.
 */
static int
harmful(const unsigned char *c, unsigned int *code)
{
	*code = c[0];
	if (c[0] == 0x7F)
		return 1;
	if (cli.encoding != PG_UTF8 || c[0] < 0xC2)
		return 0;
	*code = (c[0] & 0x1F) << 6 | (c[1] & 0x3F);
	if (c[0] < 0xE0)
		return *code < 0xA0 || *code == 0x061C ? 2 : 0;
	if (c[0] != 0xE2)
		return 0;
	*code = 0x2000 | (c[1] & 0x3F) << 6 | (c[2] & 0x3F);
	return *code == 0x200E || *code == 0x200F ||
		(*code >= 0x202A && *code <= 0x202E) ||
		(*code >= 0x2066 && *code <= 0x2069) ? 3 : 0;
}

/* A copy, to be freed, with \uXXXX for what does harm, as JSON writes it. */
static char *
harmless_copy(const char *text)
{
	PQExpBufferData copy;
	const unsigned char *c = (const unsigned char *) text;
	unsigned int code;

	initPQExpBuffer(&copy);
	while (*c)
	{
		int			length = harmful(c, &code);

		if (length > 0)
			appendPQExpBuffer(&copy, "\\u%04X", code);
		else
			appendPQExpBufferChar(&copy, *c);
		c += Max(length, 1);
	}
	return copy.data;
}

static bool
is_harmful(const char *text)
{
	unsigned int code;

	for (const unsigned char *c = (const unsigned char *) text; *c; c++)
		if (harmful(c, &code))
			return true;
	return false;
}

/* The same of all values of a result, which is kept where it has none. */
PGresult *
cli_harmless_result(PGresult *result)
{
	PGresult   *copy = NULL;

	for (int row = 0; row < PQntuples(result); row++)
		for (int column = 0; column < PQnfields(result); column++)
		{
			char	   *value;

			if (!is_harmful(PQgetvalue(result, row, column)))
				continue;
			if (copy == NULL)
				copy = PQcopyResult(result, PG_COPYRES_ATTRS | PG_COPYRES_TUPLES);
			value = harmless_copy(PQgetvalue(result, row, column));
			if (copy == NULL ||
				!PQsetvalue(copy, row, column, value, (int) strlen(value)))
			{
				fputs("sagaz: error: out of memory\n", stderr);
				exit(CLI_FAILED);
			}
			free(value);
		}
	if (copy == NULL)
		return result;
	PQclear(result);
	return copy;
}

static void
print_without(FILE *to, const char *text, const char *allowed)
{
	char	   *harmless = harmless_copy(text);

	for (const unsigned char *c = (const unsigned char *) harmless; *c; c++)
	{
		if (*c < 0x20 && strchr(allowed, *c) == NULL)
			fprintf(to, "\\x%02X", *c);
		else
			putc(*c, to);
	}
	free(harmless);
}

/* Print text from the server on one line, as psql does in a table. */
void
cli_print_safely(FILE *to, const char *text)
{
	print_without(to, text, "");
}

/* Print a message, which has lines. */
void
cli_print_message(FILE *to, const char *text)
{
	print_without(to, text, "\n\t");
}
