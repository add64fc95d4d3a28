/*
 * postgres_connect.c
 *		Connecting to another PostgreSQL server.
 */
#include "backends/postgres/postgres_libpq.h"

#include <sys/socket.h>

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "backends/common/server_file.h"
#include "backends/common/url.h"

const char *
postgres_client_version(void)
{
	int			version = PQlibVersion();

	return psprintf("%d.%d", version / 10000, version % 10000);
}

static void
cannot_connect_postgres(PostgresStore *store, const char *why)
{
	char	   *detail = why ? pstrdup(why) :
		postgres_peer_text(PQerrorMessage(store->connection->conn));

	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CONNECTION),
			 errmsg("could not connect to storage \"%s\"", store->base.name),
			 detail ? errdetail_internal("%s", detail) : 0,
			 errhint("See its options, and whether the server runs there.")));
}

static void
close_postgres_connection(void *arg)
{
	postgres_disconnect(arg);
}

/* An empty one is none: libpq would look for another. */
static const char *
own_password(const PostgresStore *store)
{
	const char *password = sagaz_store_option(&store->base, "password");

	return password && password[0] ? password : NULL;
}

/*
 * What keeps this server's own logins from those who are not superusers: the
 * certificate and the Kerberos tickets in the home of the server's user.  The
 * path is in no directory, so that libpq goes on as if there were no file;
 * releases of it that know require_auth do not even try another login.
 */
static const char *
no_login_of_ours(const char *option)
{
	static const char *const values[][2] = {
		{"sslcert", "/dev/null/none"},
		{"sslkey", "/dev/null/none"},
		{"sslcertmode", "disable"},
		{"require_auth", "password,md5,scram-sha-256"},
		{"gssdelegation", "0"}
	};

	for (int i = 0; i < (int) lengthof(values); i++)
		if (strcmp(values[i][0], option) == 0)
			return values[i][1];
	return NULL;
}

/*
 * The value of an option that the storage does not have; NULL leaves it to
 * libpq.  This server's environment is not for those who are not superusers,
 * and in no case does it say where to connect to.
 */
static const char *
default_value(const PostgresStore *store, const PQconninfoOption *option)
{
	const char *name = option->keyword;
	const char *user = sagaz_store_option(&store->base, "user");

	if (strcmp(name, "client_encoding") == 0)
		return "UTF8";
	if (strcmp(name, "application_name") == 0)
		return "sagaz";
	if (strcmp(name, "gssencmode") == 0)
		return "disable";
	if (strcmp(name, "host") == 0 && !sagaz_store_option(&store->base, "hostaddr"))
		return DEFAULT_PGSOCKET_DIR;
	if (strcmp(name, "port") == 0)
		return DEF_PGPORT_STR;
	if (strcmp(name, "user") == 0 || strcmp(name, "dbname") == 0)
		return user ? user : store->base.user;
	if (!store->base.is_superusers && no_login_of_ours(name))
		return no_login_of_ours(name);
	if (option->envvar == NULL || getenv(option->envvar) == NULL)
		return NULL;
	/* libpq takes an empty value for none; options of spaces are no options */
	if (strcmp(name, "options") == 0)
		return " ";
	/* those of a password make no difference, as they have one */
	if (option->compiled == NULL && !store->base.is_superusers &&
		strncmp(name, "pass", 4) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CONNECTION),
				 errmsg("could not connect to storage \"%s\"", store->base.name),
				 errdetail("%s is set in this server's environment.", option->envvar)));
	return option->compiled;
}

/*
 * Only superusers may reach what asks for no password, as there it is this
 * server's own user who is let in; of others both who owns the storage and
 * who uses it could misuse that, and so could who calls a superuser's function.
 */
static void
require_postgres_password(PostgresStore *store, bool is_there)
{
	if (is_there || store->base.is_superusers)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("password is required for storage \"%s\"", store->base.name),
			 errdetail("Without one, only a superuser may use it, in a session of his own and outside of functions with their definer's rights, and one that a superuser owns."),
			 errhint("Give a password to the user mapping, and let the other server ask for it.")));
}

/* The password that let us in must be the one of the user mapping. */
static bool
used_own_password(const PostgresStore *store)
{
	const char *password = own_password(store);
	const char *used = PQpass(store->connection->conn);

	return PQconnectionUsedPassword(store->connection->conn) &&
		password && used && strcmp(password, used) == 0;
}

/* The files that an option names are read as the server's user. */
static void
check_files(PostgresStore *store)
{
	static const char *const options[] = {"sslrootcert", "sslcrl"};

	for (int i = 0; i < (int) lengthof(options); i++)
	{
		const char *path = sagaz_store_option(&store->base, options[i]);

		if (path && path[0] && strcmp(path, "system") != 0)
			sagaz_check_server_file(&store->base, options[i], false);
	}
}

static void
start_connecting(PostgresConnection *connection)
{
	PostgresStore *store = connection->store;
	const char **names;
	const char **values;
	int			count = 0;

	require_postgres_password(store, own_password(store) != NULL);
	check_files(store);
	connection->known = PQconninfoParse("", NULL);
	if (connection->known == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	while (connection->known[count].keyword)
		count++;
	names = palloc0((count + 1) * sizeof(char *));
	values = palloc0((count + 1) * sizeof(char *));
	for (int i = 0; i < count; i++)
	{
		names[i] = connection->known[i].keyword;
		values[i] = sagaz_store_option(&store->base, names[i]);
		if (values[i] == NULL || values[i][0] == '\0')
			values[i] = default_value(store, &connection->known[i]);
		if (connection->met_limit && strcmp(names[i], "options") == 0)
			values[i] = postgres_unlimited_options(values[i], connection->server_version);
	}
	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CAPACITY),
				 errmsg("too many files are open for another storage")));
	connection->has_fd = true;
	connection->conn = PQconnectStartParams(names, values, 0);
	PQconninfoFree(connection->known);
	connection->known = NULL;
	pfree(names);
	pfree(values);
	if (connection->conn == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	if (PQstatus(connection->conn) == CONNECTION_BAD)
		cannot_connect_postgres(store, NULL);
}

/* In milliseconds. */
static int
connect_timeout_of(const PostgresStore *store)
{
	const char *seconds = sagaz_store_option(&store->base, "connect_timeout");

	return seconds && atoi(seconds) > 0 ? atoi(seconds) * 1000 : sagaz_connect_timeout;
}

static void
wait_until_postgres_connected(PostgresConnection *connection)
{
	TimestampTz deadline = sagaz_wait_deadline(connect_timeout_of(connection->store));
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;

	while (status != PGRES_POLLING_OK)
	{
		if (sagaz_wait_for_socket(PQsocket(connection->conn), status == PGRES_POLLING_READING ?
							WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE, deadline) == 0)
			cannot_connect_postgres(connection->store, "It did not answer within its connect_timeout, or else sagaz.connect_timeout.");
		status = PQconnectPoll(connection->conn);
		if (status == PGRES_POLLING_FAILED)
			cannot_connect_postgres(connection->store, NULL);
	}
}

static void
ignore_postgres_notice(void *arg, const PGresult *result)
{
}

/*
 * Open a session, without a limit on its time that was set over there if the
 * last one met such a limit.
 */
static void
open_postgres_session(PostgresStore *store)
{
	PostgresConnection *connection = store->connection;

	start_connecting(connection);
	wait_until_postgres_connected(connection);
	require_postgres_password(store, used_own_password(store));
	(void) PQsetNoticeReceiver(connection->conn, ignore_postgres_notice, NULL);
	if (PQsetnonblocking(connection->conn, 1) != 0 ||
		!PQenterPipelineMode(connection->conn))
		cannot_connect_postgres(store, NULL);
	connection->server_version = PQserverVersion(connection->conn);
}

/* Connect, or connect anew; the store is broken until that has worked. */
static void
connect_postgres_anew(PostgresStore *store)
{
	PostgresConnection *connection = store->connection;

	postgres_disconnect(connection);
	store->layout = LAYOUT_UNKNOWN;
	store->base.broken = true;
	connection->met_limit = false;
	open_postgres_session(store);
	if (postgres_pin_first(store))
		return;
	postgres_disconnect(connection);
	open_postgres_session(store);
	postgres_pin_settings(store);
}

/* Of the database there; one that has none gets UTF-8. */
int
postgres_encoding(const PostgresStore *store)
{
	const char *name = PQparameterStatus(store->connection->conn, "server_encoding");
	int			encoding = name ? pg_char_to_encoding(name) : -1;

	return PG_VALID_BE_ENCODING(encoding) && encoding != PG_SQL_ASCII ? encoding : PG_UTF8;
}

/* The connection of a new store. */
void
postgres_connect(PostgresStore *store)
{
	PostgresConnection *connection = palloc0(sizeof(PostgresConnection));

	connection->store = store;
	connection->close.func = close_postgres_connection;
	connection->close.arg = connection;
	MemoryContextRegisterResetCallback(store->base.context, &connection->close);
	store->connection = connection;
	connect_postgres_anew(store);
}

/*
 * Has the server closed the idle connection?  What it sends unasked, such as
 * settings and notices, is read on the way.
 */
static bool
postgres_is_alive(PostgresConnection *connection)
{
	char		byte;
	ssize_t		got;

	for (;;)
	{
		got = recv(PQsocket(connection->conn), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK;
		if (got == 0 || !PQconsumeInput(connection->conn))
			return false;
		(void) PQisBusy(connection->conn);
		if (PQstatus(connection->conn) != CONNECTION_OK)
			return false;
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Before each operation: connect anew where the connection is of no use any
 * more, be it that the server closed it or that a transaction was left open.
 */
void
postgres_ready(PostgresStore *store)
{
	PostgresConnection *connection = store->connection;

	if (connection->conn == NULL || store->base.broken ||
		(!connection->rolling_back && !connection->requested &&
		 PQtransactionStatus(connection->conn) != PQTRANS_IDLE) ||
		!postgres_is_alive(connection))
		connect_postgres_anew(store);
	else if (connection->statement_timeout != sagaz_command_timeout)
		postgres_pin_settings(store);
}

/* ---------------------------------------------------------------------- */
/* URLs */

/*
 * What libpq finds in a URL, as DefElems, with its names of options; NIL where
 * it understands nothing.  What it says then may quote a secret.
 */
List *
postgres_url_options(const char *url)
{
	char	   *error = NULL;
	PQconninfoOption *found = PQconninfoParse(url, &error);
	List	   *options = NIL;

	if (error)
		PQfreemem(error);
	if (found == NULL)
		return NIL;
	PG_TRY();
	{
		for (PQconninfoOption *option = found; option->keyword; option++)
			if (option->val && option->val[0])
				options = sagaz_url_add_option(options, option->keyword,
											   pstrdup(option->val));
	}
	PG_FINALLY();
	{
		PQconninfoFree(found);
	}
	PG_END_TRY();
	return options;
}
