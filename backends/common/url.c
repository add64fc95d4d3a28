/*
 * url.c
 *		Parts of URLs.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"

#include "backends/common/url.h"

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = pg_tolower((unsigned char) c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/*
 * The part with %XX decoded.  Where a percent sign is not followed by two
 * hexadecimal digits, or stands for a zero byte, "refuse" raises an error.
 */
char *
sagaz_url_decode(const char *part, size_t length, void (*refuse) (const char *why))
{
	char	   *text = palloc(length + 1);
	char	   *to = text;

	for (size_t i = 0; i < length; i++)
	{
		int			high;
		int			low;

		if (part[i] != '%')
		{
			*to++ = part[i];
			continue;
		}
		high = i + 2 < length ? hex_value(part[i + 1]) : -1;
		low = i + 2 < length ? hex_value(part[i + 2]) : -1;
		if (high < 0 || low < 0 || (high == 0 && low == 0))
			refuse("A percent sign is not followed by two hexadecimal digits that are not 00");
		*to++ = (char) (high * 16 + low);
		i += 2;
	}
	*to = '\0';
	return text;
}

/* Add an option to those of a URL; the value is not copied. */
List *
sagaz_url_add_option(List *options, const char *name, char *value)
{
	return lappend(options, makeDefElem(pstrdup(name), (Node *) makeString(value), -1));
}
