/*
 * place.c
 *		Where a storage is: a name or a URL out of an argument, an environment
 *		variable or a file, and passwords in URLs.
 */
#include "cli.h"

#include <errno.h>

#include "common/string.h"
#include "lib/stringinfo.h"

/*
 * The part of a URL that is a password, and its length: that of the user
 * information, else that of a parameter whose name ends with "password".
 */
static char *
find_secret(char *url, size_t *length)
{
	char	   *host = strstr(url, "://");
	char	   *parameters;
	char	   *at = NULL;
	char	   *colon;

	if (host == NULL)
		return NULL;
	host += 3;
	parameters = host + strcspn(host, "?");
	for (char *c = host; *host != '/' && c < parameters; c++)
	{
		if (*c == '@')
			at = c;
	}
	colon = at ? memchr(host, ':', at - host) : NULL;
	if (colon != NULL && at > colon + 1)
	{
		*length = at - colon - 1;
		return colon + 1;
	}
	for (char *value = parameters; (value = strstr(value, "password=")) != NULL;)
	{
		value += strlen("password=");
		*length = strcspn(value, "&#");
		if (*length > 0)
			return value;
	}
	return NULL;
}

/* Of a URL, or of a name, which has none. */
bool
cli_place_has_secret(const char *url)
{
	size_t		length;

	return find_secret(unconstify(char *, url), &length) != NULL;
}

/* Make the passwords of a URL unreadable, in place. */
static void
blot_secrets(char *url)
{
	size_t		length;
	char	   *secret;

	while ((secret = find_secret(url, &length)) != NULL &&
		   strspn(secret, "*") < length)
		memset(secret, '*', length);
}

/* A copy to be shown. */
char *
cli_place_without_secret(const char *url)
{
	char	   *copy = pg_strdup(url);

	blot_secrets(copy);
	return copy;
}

/*
 * A copy of an argument.  A password in it draws a warning, and is made
 * unreadable where the system shows the arguments of processes.
 */
char *
cli_place_keep_secret(char *argument)
{
	char	   *copy = pg_strdup(argument);

	if (!cli_place_has_secret(argument))
		return copy;
	cli_warn("a password among the arguments can be seen by others; keep it in the environment, in a file or in the storage's user mapping");
	blot_secrets(argument);
	return copy;
}

static char *
first_line(const char *path)
{
	FILE	   *file = fopen(path, "r");
	StringInfoData line;

	if (file == NULL)
		cli_fail(CLI_USAGE, "could not open file \"%s\": %s", path, strerror(errno));
	initStringInfo(&line);
	if (!pg_get_line_buf(file, &line) && ferror(file))
		cli_fail(CLI_USAGE, "could not read file \"%s\": %s", path, strerror(errno));
	fclose(file);
	(void) pg_strip_crlf(line.data);
	if (line.data[0] == '\0')
		cli_fail(CLI_USAGE, "the first line of file \"%s\" is empty", path);
	return line.data;
}

/*
 * What the options --OPTION, --OPTION-env and --OPTION-file say, of which at
 * most one may be given; NULL if none is.
 */
char *
cli_place(const CliPlace *place, const char *option)
{
	const char *value;

	if ((place->text != NULL) + (place->variable != NULL) + (place->file != NULL) > 1)
		cli_usage_error("of --%s, --%s-env and --%s-file only one can be given",
						option, option, option);
	if (place->file != NULL)
		return first_line(place->file);
	if (place->variable == NULL)
		return place->text;
	value = getenv(place->variable);
	if (value == NULL || value[0] == '\0')
		cli_usage_error("environment variable \"%s\" is not set", place->variable);
	return pg_strdup(value);
}
