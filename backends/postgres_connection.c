/*
 * postgres_connection.c
 *		A connection to another PostgreSQL server, over libpq.
 *
 * The socket never blocks: every wait is on the latch, too, has a deadline
 * and can be cancelled.  Only the name of the host is resolved without one.
 * From the first statement queued to the last result read the store counts as
 * broken, and whatever ends an exchange early closes the connection.  The
 * server then ends the statement: it looks after its clients, and it has a
 * timeout for statements.
 *
 * What libpq allocates is reachable from the connection, and goes with it.
 */
#include "postgres_store.h"

#include <sys/socket.h>
#include <libpq-fe.h>

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

struct PostgresConnection
{
	PostgresStore *store;
	PGconn	   *conn;
	PGresult   *result;			/* being copied */
	PQconninfoOption *known;	/* being looked through */
	bool		has_fd;			/* counted as one of our descriptors */
	int			queued;			/* statements whose results are to be read */
	bool		rolling_back;	/* nobody has read how a ROLLBACK went */
	int			statement_timeout;	/* that the server knows */
	MemoryContextCallback close;
};

/* What the other server raised. */
typedef struct RemoteError
{
	int			sqlstate;
	char	   *message;
	char	   *detail;
	char	   *hint;
	bool		is_lost;		/* it said so and went away */
} RemoteError;

const char *
postgres_client_version(void)
{
	int			version = PQlibVersion();

	return psprintf("%d.%d", version / 10000, version % 10000);
}

/* ---------------------------------------------------------------------- */
/* Errors and waits */

/* Text from outside, without the end of its line; NULL where there is none. */
static char *
foreign_text(const char *text)
{
	size_t		length = text ? strlen(text) : 0;

	while (length > 0 && text[length - 1] == '\n')
		length--;
	if (length == 0)
		return NULL;
	if (!pg_verifymbstr(text, length, true))
		return pstrdup("(The server's message is not in its encoding.)");
	return pnstrdup(text, length);
}

static void
disconnect(PostgresConnection *connection)
{
	if (connection->result)
		PQclear(connection->result);
	connection->result = NULL;
	if (connection->known)
		PQconninfoFree(connection->known);
	connection->known = NULL;
	if (connection->conn)
	{
		/* libpq would wait until the server takes what is not sent yet */
		if (connection->store->base.broken && PQsocket(connection->conn) >= 0)
			(void) shutdown(PQsocket(connection->conn), SHUT_RDWR);
		PQfinish(connection->conn);
	}
	connection->conn = NULL;
	connection->queued = 0;
	connection->rolling_back = false;
	if (connection->has_fd)
		ReleaseExternalFD();
	connection->has_fd = false;
}

static void
close_connection(void *arg)
{
	disconnect(arg);
}

/* Raise that the server went away; why is a sentence, or NULL. */
static void
lost_connection(PostgresStore *store, const char *why)
{
	char	   *detail = why ? pstrdup(why) :
		foreign_text(PQerrorMessage(store->connection->conn));

	store->base.broken = true;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CONNECTION),
			 errmsg("lost the connection to storage \"%s\"", store->base.name),
			 detail ? errdetail_internal("%s", detail) : 0));
}

static void
cannot_connect(PostgresStore *store, const char *why)
{
	char	   *detail = why ? pstrdup(why) :
		foreign_text(PQerrorMessage(store->connection->conn));

	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CONNECTION),
			 errmsg("could not connect to storage \"%s\"", store->base.name),
			 detail ? errdetail_internal("%s", detail) : 0,
			 errhint("See its options, and whether the server runs there.")));
}

/* Wait for the socket; returns the events, 0 when the time is over. */
static int
wait_for_socket(const PostgresConnection *connection, int events,
				TimestampTz deadline)
{
	for (;;)
	{
		long		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
														 deadline);
		int			got;

		if (ms <= 0)
			return 0;
		got = WaitLatchOrSocket(MyLatch,
								WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH | events,
								PQsocket(connection->conn), ms, PG_WAIT_EXTENSION);
		if (got & WL_LATCH_SET)
			ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (got & events)
			return got;
	}
}

static TimestampTz
deadline_in(int ms)
{
	return GetCurrentTimestamp() + ms * INT64CONST(1000);
}

/* ---------------------------------------------------------------------- */
/* Connecting */

/*
 * What libpq would take by itself: nothing from the environment of this
 * server.  A service there cannot be overruled, so it is refused.
 */
static const char *
default_value(const PostgresStore *store, const PQconninfoOption *option)
{
	const char *name = option->keyword;
	const char *user = sagaz_store_option(&store->base, "user");

	if (strcmp(name, "client_encoding") == 0)
		return GetDatabaseEncodingName();
	if (strcmp(name, "application_name") == 0)
		return "sagaz";
	if (strcmp(name, "gssencmode") == 0)
		return "disable";
	if (strcmp(name, "host") == 0 && !sagaz_store_option(&store->base, "hostaddr"))
		return DEFAULT_PGSOCKET_DIR;
	if (strcmp(name, "port") == 0)
		return DEF_PGPORT_STR;
	if (strcmp(name, "user") == 0 || strcmp(name, "dbname") == 0)
		return user ? user : GetUserNameFromId(store->base.owner, false);
	if (option->envvar == NULL || getenv(option->envvar) == NULL)
		return NULL;
	if (strcmp(name, "service") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CONNECTION),
				 errmsg("could not connect to storage \"%s\"", store->base.name),
				 errdetail("%s is set in this server's environment.", option->envvar)));
	/* libpq takes an empty value for none; options of spaces are no options */
	return strcmp(name, "options") == 0 ? " " : option->compiled;
}

/* Passwords of others are not given out, nor may the server's own be used. */
static void
require_password(PostgresStore *store, bool is_there)
{
	if (is_there || superuser_arg(store->base.owner))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("password is required for storage \"%s\"", store->base.name),
			 errdetail("Its owner is no superuser, and the storage could be reached without a password of a user mapping."),
			 errhint("Give a password to the user mapping, and let the other server ask for it.")));
}

static void
start_connecting(PostgresConnection *connection)
{
	PostgresStore *store = connection->store;
	const char **names;
	const char **values;
	int			count = 0;

	require_password(store, sagaz_store_option(&store->base, "password") != NULL);
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
		cannot_connect(store, NULL);
}

static void
wait_until_connected(PostgresConnection *connection)
{
	TimestampTz deadline = deadline_in(sagaz_connect_timeout);
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;

	while (status != PGRES_POLLING_OK)
	{
		if (wait_for_socket(connection, status == PGRES_POLLING_READING ?
							WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE, deadline) == 0)
			cannot_connect(connection->store, "It did not answer within sagaz.connect_timeout.");
		status = PQconnectPoll(connection->conn);
		if (status == PGRES_POLLING_FAILED)
			cannot_connect(connection->store, NULL);
	}
}

static void
ignore_notice(void *arg, const PGresult *result)
{
}

/*
 * What an administrator set for the user or the database there must not
 * change what we read and write.  Encoding and name are options already.
 */
static void
pin_settings(PostgresStore *store)
{
	static const char *const sql =
		"SELECT pg_catalog.set_config(name, value, false)"
		" FROM (VALUES ('search_path', 'pg_catalog, pg_temp'),"
		" ('TimeZone', 'UTC'), ('DateStyle', 'ISO, YMD'),"
		" ('IntervalStyle', 'postgres'), ('extra_float_digits', '3'),"
		" ('bytea_output', 'hex'), ('standard_conforming_strings', 'on'),"
		" ('default_transaction_isolation', 'read committed'),"
		" ('statement_timeout', $1), ('lock_timeout', $1),"
		" ('idle_in_transaction_session_timeout', $1),"
		" ('client_connection_check_interval', '1s'),"
		" ('synchronous_commit', CASE pg_catalog.current_setting('synchronous_commit')"
		" WHEN 'off' THEN 'on' ELSE pg_catalog.current_setting('synchronous_commit') END)"
		") AS pinned (name, value)"
		" WHERE pg_catalog.current_setting(name, true) IS NOT NULL";
	const char *timeout = psprintf("%d", sagaz_command_timeout);

	(void) postgres_query(store, sql, 1, NULL, &timeout);
	store->connection->statement_timeout = sagaz_command_timeout;
}

/* Connect, or connect anew; the store is broken until that has worked. */
static void
reconnect(PostgresStore *store)
{
	PostgresConnection *connection = store->connection;

	disconnect(connection);
	store->layout = LAYOUT_UNKNOWN;
	store->base.broken = true;
	start_connecting(connection);
	wait_until_connected(connection);
	require_password(store, PQconnectionUsedPassword(connection->conn));
	(void) PQsetNoticeReceiver(connection->conn, ignore_notice, NULL);
	if (PQsetnonblocking(connection->conn, 1) != 0 ||
		!PQenterPipelineMode(connection->conn))
		cannot_connect(store, NULL);
	pin_settings(store);
}

/* The connection of a new store. */
void
postgres_connect(PostgresStore *store)
{
	PostgresConnection *connection = palloc0(sizeof(PostgresConnection));

	connection->store = store;
	connection->close.func = close_connection;
	connection->close.arg = connection;
	MemoryContextRegisterResetCallback(store->base.context, &connection->close);
	store->connection = connection;
	reconnect(store);
}

/*
 * Has the server closed the idle connection?  What it sends unasked, such as
 * settings and notices, is read on the way.
 */
static bool
is_alive(PostgresConnection *connection)
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
		(!connection->rolling_back &&
		 PQtransactionStatus(connection->conn) != PQTRANS_IDLE) ||
		!is_alive(connection))
		reconnect(store);
	else if (connection->statement_timeout != sagaz_command_timeout)
		pin_settings(store);
}

/* ---------------------------------------------------------------------- */
/* Exchanges */

/* Queue a statement for the next exchange. */
void
postgres_queue(PostgresStore *store, const char *sql, int nparams,
			   const Oid *types, const char *const *values)
{
	PostgresConnection *connection = store->connection;

	store->base.broken = true;
	if (connection->conn == NULL ||
		!PQsendQueryParams(connection->conn, sql, nparams, types, values, NULL, NULL, 0))
		lost_connection(store, NULL);
	connection->queued++;
}

/* Wait until there is a result, sending what is not sent yet. */
static void
wait_for_result(PostgresConnection *connection)
{
	TimestampTz deadline = deadline_in(sagaz_command_timeout);

	while (PQisBusy(connection->conn))
	{
		int			unsent = PQflush(connection->conn);
		int			events;

		/* where sending fails, reading tells why */
		events = wait_for_socket(connection, WL_SOCKET_READABLE |
								 (unsent > 0 ? WL_SOCKET_WRITEABLE : 0), deadline);
		if (events == 0)
			lost_connection(connection->store, "It did not answer within sagaz.command_timeout.");
		if ((events & WL_SOCKET_READABLE) && !PQconsumeInput(connection->conn))
			lost_connection(connection->store, NULL);
	}
}

static PostgresResult *
copy_result(PostgresStore *store, const PGresult *from)
{
	PostgresResult *to = palloc0(sizeof(PostgresResult));
	const char *affected = PQcmdTuples(unconstify(PGresult *, from));

	to->nrows = PQntuples(from);
	to->ncolumns = PQnfields(from);
	to->affected = affected[0] ? strtoi64(affected, NULL, 10) : 0;
	to->values = MemoryContextAllocHuge(CurrentMemoryContext,
										sizeof(char *) * ((Size) to->nrows * to->ncolumns + 1));
	for (int row = 0; row < to->nrows; row++)
		for (int column = 0; column < to->ncolumns; column++)
		{
			char	  **value = &to->values[(Size) row * to->ncolumns + column];
			int			length = PQgetlength(from, row, column);

			*value = NULL;
			if (PQgetisnull(from, row, column))
				continue;
			if (!pg_verifymbstr(PQgetvalue(from, row, column), length, true))
				ereport(ERROR,
						(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
						 errmsg("storage \"%s\" answers in another encoding", store->base.name)));
			*value = pnstrdup(PQgetvalue(from, row, column), length);
		}
	return to;
}

static RemoteError *
copy_error(const PostgresConnection *connection, const PGresult *result)
{
	RemoteError *error = palloc0(sizeof(RemoteError));
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	error->message = foreign_text(PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
	if (error->message == NULL)
		error->message = foreign_text(PQresultErrorMessage(result));
	error->detail = foreign_text(PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL));
	error->hint = foreign_text(PQresultErrorField(result, PG_DIAG_MESSAGE_HINT));
	error->sqlstate = ERRCODE_SAGAZ_STORAGE;
	/* no class of success, which would be no error here */
	if (state && strlen(state) == 5 && strspn(state, "0") != 5)
		error->sqlstate = MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]);
	/* operator intervention, but for a statement's end */
	error->is_lost = PQstatus(connection->conn) != CONNECTION_OK || state == NULL ||
		(strncmp(state, "57P", 3) == 0);
	return error;
}

/*
 * Read the results up to the end of a pipeline; returns the first error.
 * Where results is NULL nobody wants them.
 */
static RemoteError *
read_results(PostgresConnection *connection, PostgresResult **results, int count)
{
	RemoteError *error = NULL;
	int			read = 0;

	for (;;)
	{
		ExecStatusType status;

		wait_for_result(connection);
		connection->result = PQgetResult(connection->conn);
		if (connection->result == NULL)
		{
			if (++read > count)
				lost_connection(connection->store, NULL);
			continue;
		}
		status = PQresultStatus(connection->result);
		if (status == PGRES_FATAL_ERROR && error == NULL)
			error = copy_error(connection, connection->result);
		else if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
		{
			if (results && read < count)
				results[read] = copy_result(connection->store, connection->result);
		}
		else if (status != PGRES_FATAL_ERROR && status != PGRES_PIPELINE_ABORTED &&
				 status != PGRES_PIPELINE_SYNC)
			lost_connection(connection->store, "It sent what was not asked for.");
		PQclear(connection->result);
		connection->result = NULL;
		if (status == PGRES_PIPELINE_SYNC || (error && error->is_lost))
			return error;
	}
}

/* Raise what the other server raised. */
static void
raise_error(PostgresStore *store, const RemoteError *error)
{
	if (error->is_lost)
		lost_connection(store, error->message ? error->message : "The server closed it.");
	/* not canceled by anybody here */
	if (error->sqlstate == ERRCODE_QUERY_CANCELED)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CONNECTION),
				 errmsg("storage \"%s\" gave up a statement", store->base.name),
				 error->message ? errdetail_internal("%s", error->message) : 0,
				 errhint("It may take sagaz.command_timeout.")));
	ereport(ERROR,
			(errcode(error->sqlstate),
			 errmsg_internal("%s", error->message ? error->message : "unknown error"),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0,
			 errcontext("storage \"%s\"", store->base.name)));
}

/* Tell the server to roll back; how that went is read before the next results. */
static void
start_roll_back(PostgresConnection *connection)
{
	if (PQsendQueryParams(connection->conn, "ROLLBACK", 0, NULL, NULL, NULL, NULL, 0) &&
		PQpipelineSync(connection->conn) && PQflush(connection->conn) == 0)
	{
		connection->rolling_back = true;
		return;
	}
	connection->store->base.broken = true;
	disconnect(connection);
}

/*
 * Send what is queued and read all results.  The server may take
 * sagaz.command_timeout for each.
 */
PostgresResult **
postgres_exchange(PostgresStore *store, int *count)
{
	PostgresConnection *connection = store->connection;
	PostgresResult **results = palloc0((connection->queued + 1) * sizeof(PostgresResult *));
	RemoteError *volatile error = NULL;

	PG_TRY();
	{
		if (!PQpipelineSync(connection->conn))
			lost_connection(store, NULL);
		if (connection->rolling_back)
			(void) read_results(connection, NULL, 1);
		connection->rolling_back = false;
		error = read_results(connection, results, connection->queued);
		if (error && error->is_lost)
			raise_error(store, error);
	}
	PG_CATCH();
	{
		store->base.broken = true;
		disconnect(connection);
		PG_RE_THROW();
	}
	PG_END_TRY();
	*count = connection->queued;
	connection->queued = 0;
	store->base.broken = false;
	if (error && PQtransactionStatus(connection->conn) != PQTRANS_IDLE)
		start_roll_back(connection);
	if (error)
		raise_error(store, error);
	return results;
}

/* Send one statement, after those that are queued; returns its result. */
PostgresResult *
postgres_query(PostgresStore *store, const char *sql, int nparams,
			   const Oid *types, const char *const *values)
{
	PostgresResult **results;
	int			count;

	postgres_queue(store, sql, nparams, types, values);
	results = postgres_exchange(store, &count);
	return results[count - 1];
}

/*
 * For a PG_CATCH block: leave no transaction open at the other end.  It
 * neither waits nor raises an error.
 */
void
postgres_roll_back(PostgresStore *store)
{
	PostgresConnection *connection = store->connection;

	if (connection->conn == NULL || connection->rolling_back)
		return;
	if (store->base.broken)
		disconnect(connection);
	else if (PQtransactionStatus(connection->conn) != PQTRANS_IDLE)
		start_roll_back(connection);
}
