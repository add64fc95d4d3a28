/*
 * redis_url.c
 *		URLs of Redis storages, taken apart into options.
 *
 * Errors quote nothing of a URL, as there may be a password in any part of
 * one that is written wrongly.
 */
#include "backends/redis/redis_url.h"

#include <limits.h>

#include "backends/common/url.h"
#include "backends/redis/redis_tls.h"

/* A whole number between the two, and nothing behind it. */
bool
redis_url_is_number(const char *value, int64 min, int64 max)
{
	char	   *end;
	int64		number;

	errno = 0;
	number = strtoll(value, &end, 10);
	return errno == 0 && end != value && *end == '\0' && number >= min && number <= max;
}

static void
refuse_redis_url(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_INPUT),
			 errmsg("URL of a Redis storage is not valid"),
			 errdetail_internal("%s.", why),
			 errhint("Write redis://[user:password@]host[:port][/database], redis+sentinel://[user:password@]host1[:port],host2[:port]/service[/database], rediss in place of redis for TLS, or unix://[user:password@]/path/of/the/socket[?db=database].")));
}

static List *
add_redis_option(List *options, const char *name, const char *part, size_t length)
{
	if (length == 0)
		return options;
	return sagaz_url_add_option(options, name,
								sagaz_url_decode(part, length, refuse_redis_url));
}

/* user:password@, of which either may be missing; *rest is what follows. */
static List *
read_redis_login(const char *url, const char **rest)
{
	const char *end = strrchr(url, '@');
	const char *colon;
	List	   *options;

	*rest = url;
	if (end == NULL)
		return NIL;
	*rest = end + 1;
	colon = memchr(url, ':', end - url);
	if (colon == NULL)
		return add_redis_option(NIL, "user", url, end - url);
	options = add_redis_option(NIL, "user", url, colon - url);
	return add_redis_option(options, "password", colon + 1, end - colon - 1);
}

/* host[:port], up to the end given */
static List *
read_redis_host(List *options, const char *host, const char *end)
{
	const char *port;

	if (host < end && host[0] == '[')
	{
		const char *bracket = memchr(host, ']', end - host);

		if (bracket == NULL)
			refuse_redis_url("A bracket is not closed");
		options = add_redis_option(options, "host", host + 1, bracket - host - 1);
		port = bracket + 1;
		if (port < end && *port != ':')
			refuse_redis_url("There is more behind the bracket");
	}
	else
	{
		port = memchr(host, ':', end - host);
		port = port ? port : end;
		options = add_redis_option(options, "host", host, port - host);
	}
	if (port == end)
		return options;
	if (!redis_url_is_number(pnstrdup(port + 1, end - port - 1), 1, 65535))
		refuse_redis_url("The port is not a number from 1 to 65535");
	return add_redis_option(options, "port", port + 1, end - port - 1);
}

/* A database's number, or nothing, up to the end given. */
static List *
read_redis_database(List *options, const char *number, const char *end)
{
	if (number < end && !redis_url_is_number(pnstrdup(number, end - number), 0, INT_MAX))
		refuse_redis_url("The database is not a number");
	return add_redis_option(options, "database", number, end - number);
}

/* name=value, one of those about TLS */
static List *
read_redis_parameter(List *options, const char *part, size_t length)
{
	static const char *const names[] = {"sslmode", "sslrootcert", "sslcert", "sslkey"};

	for (int i = 0; i < (int) lengthof(names); i++)
	{
		size_t		name = strlen(names[i]) + 1;

		if (length <= name || strncmp(part, names[i], name - 1) != 0 || part[name - 1] != '=')
			continue;
		options = add_redis_option(options, names[i], part + name, length - name);
		if (i == 0)
			redis_tls_check_mode(strVal(((DefElem *) llast(options))->arg));
		return options;
	}
	refuse_redis_url("Behind the question mark may stand sslmode, sslrootcert, sslcert and sslkey, each with a value");
	return NIL;					/* keep compiler quiet */
}

static List *
read_redis_query(List *options, const char *query)
{
	for (;;)
	{
		size_t		length = strcspn(query, "&");

		options = read_redis_parameter(options, query, length);
		if (query[length] == '\0')
			return options;
		query += length + 1;
	}
}

/* With rediss:// it is TLS, and verified unless the query says otherwise. */
static List *
want_redis_tls(List *options)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		const DefElem *option = lfirst(cell);

		if (strcmp(option->defname, "sslmode") != 0)
			continue;
		if (strcmp(strVal(option->arg), "disable") == 0)
			refuse_redis_url("It begins with rediss and disables TLS");
		return options;
	}
	return add_redis_option(options, "sslmode", "verify-full", strlen("verify-full"));
}

/* host[:port][,...]/service, up to the end given; *rest is what follows. */
static List *
read_redis_sentinels(List *options, const char *hosts, const char *end, const char **rest)
{
	const char *service = memchr(hosts, '/', end - hosts);
	const char *slash;

	if (service == NULL || service == hosts)
		refuse_redis_url("It does not name sentinels and the service that they know");
	service++;
	slash = memchr(service, '/', end - service);
	*rest = slash ? slash : end;
	if (*rest == service)
		refuse_redis_url("It names no service");
	options = add_redis_option(options, "sentinels", hosts, service - 1 - hosts);
	return add_redis_option(options, "service", service, *rest - service);
}

/*
 * redis://[user:password@]host[:port][/database][?name=value&...], and the
 * same with sentinels and a service in place of the host
 */
static List *
read_redis_tcp_url(const char *url, bool has_sentinels, bool has_tls)
{
	const char *host;
	List	   *options = read_redis_login(url, &host);
	const char *end = host + strcspn(host, "?#");
	const char *path = memchr(host, '/', end - host);

	/* a question mark before the login's end is no sign of a query */
	if (memchr(url, '?', host - url))
		refuse_redis_url("A question mark stands before the host");
	if (path == NULL)
		path = end;
	if (has_sentinels)
		options = read_redis_sentinels(options, host, end, &path);
	else
		options = read_redis_host(options, host, path);
	if (path < end)
		options = read_redis_database(options, path + 1, end);
	if (*end == '#')
		refuse_redis_url("It has more behind the database");
	if (*end == '?')
		options = read_redis_query(options, end + 1);
	return has_tls ? want_redis_tls(options) : options;
}

/* unix://[user:password@]/path[?db=database] */
static List *
read_redis_socket_url(const char *url)
{
	const char *path;
	List	   *options = read_redis_login(url, &path);
	const char *query = strchr(path, '?');

	if (path[0] != '/' || path[1] == '\0')
		refuse_redis_url("It names no socket");
	options = add_redis_option(options, "path", path, strcspn(path, "?"));
	if (query)
	{
		if (strncmp(query, "?db=", 4) != 0 || !redis_url_is_number(query + 4, 0, INT_MAX))
			refuse_redis_url("Behind the question mark stands something other than db and a number");
		options = add_redis_option(options, "database", query + 4, strlen(query + 4));
	}
	return options;
}

List *
redis_url_read(const char *scheme, const char *rest)
{
	return strcmp(scheme, "unix") == 0 ? read_redis_socket_url(rest) :
		read_redis_tcp_url(rest, strchr(scheme, '+') != NULL,
						   strncmp(scheme, "rediss", 6) == 0);
}
