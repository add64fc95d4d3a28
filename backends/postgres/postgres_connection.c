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
#include "backends/postgres/postgres_libpq.h"

#include <sys/ioctl.h>
#include <sys/socket.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "lib/encoding.h"

/* of PostgreSQL 17, and fatal */
#define TRANSACTION_TIMEOUT MAKE_SQLSTATE('2', '5', 'P', '0', '4')

/* What the other server raised. */
typedef struct RemoteError
{
	int			sqlstate;
	char	   *message;
	char	   *detail;
	char	   *hint;
	bool		is_lost;		/* it said so and went away */
} RemoteError;

/* The one connection that has a request, NULL: none has. */
static PostgresConnection *requester = NULL;

/* ---------------------------------------------------------------------- */
/* Errors and waits */

/* Text from outside, without the end of its line; NULL where there is none. */
char *
postgres_peer_text(const char *text)
{
	size_t		length = text ? strlen(text) : 0;
	char	   *ours;

	while (length > 0 && text[length - 1] == '\n')
		length--;
	if (length == 0)
		return NULL;
	ours = sagaz_from_utf8(text, length);
	return ours ? ours : pstrdup("(The server's message is not in its encoding.)");
}

static void
end_postgres_request(PostgresConnection *connection)
{
	connection->requested = 0;
	if (requester == connection)
		requester = NULL;
}

/* Also a close callback: it neither throws nor waits. */
void
postgres_disconnect(PostgresConnection *connection)
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
		if ((connection->store->base.broken || connection->requested) &&
			PQsocket(connection->conn) >= 0)
			(void) shutdown(PQsocket(connection->conn), SHUT_RDWR);
		PQfinish(connection->conn);
	}
	connection->conn = NULL;
	connection->queued = 0;
	connection->rolling_back = false;
	end_postgres_request(connection);
	if (connection->has_fd)
		ReleaseExternalFD();
	connection->has_fd = false;
}

/* Raise that the server went away; why is a sentence, or NULL. */
static void
postgres_lost(PostgresStore *store, const char *why)
{
	char	   *detail = why ? pstrdup(why) :
		postgres_peer_text(PQerrorMessage(store->connection->conn));

	store->base.broken = true;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CONNECTION),
			 errmsg("lost the connection to storage \"%s\"", store->base.name),
			 detail ? errdetail_internal("%s", detail) : 0));
}

/* ---------------------------------------------------------------------- */
/* Exchanges */

static RemoteError *exchange_with_postgres(PostgresStore *store, PostgresResult **results,
										   int *count);

/* A statement was handed to libpq, or not. */
static void
count_postgres_queued(PostgresStore *store, int sent)
{
	if (!sent)
		postgres_lost(store, NULL);
	store->connection->queued++;
}

/* Read the results of a request that has to make way, and forget them. */
static void
drop_postgres_request(PostgresStore *store)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "sagaz postgres request",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(context);
	int			count;

	(void) exchange_with_postgres(store, NULL, &count);
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(context);
}

/* The connection, for a statement to be queued. */
static PGconn *
begin_postgres_queueing(PostgresStore *store)
{
	if (store->connection->requested)
		drop_postgres_request(store);
	store->base.broken = true;
	if (store->connection->conn == NULL)
		postgres_lost(store, NULL);
	return store->connection->conn;
}

/* Queue a statement for the next exchange, the parameters as they are. */
void
postgres_queue_bytes(PostgresStore *store, const char *sql, int nparams,
					 const Oid *types, const char *const *values)
{
	count_postgres_queued(store, PQsendQueryParams(begin_postgres_queueing(store), sagaz_to_utf8(sql),
												   nparams, types, values, NULL, NULL, 0));
}

/*
 * The same for values in the encoding of the database, which need not outlive
 * the call.
 */
void
postgres_queue(PostgresStore *store, const char *sql, int nparams,
			   const Oid *types, const char *const *values)
{
	const char **utf8 = palloc((nparams + 1) * sizeof(char *));

	for (int i = 0; i < nparams; i++)
		utf8[i] = values[i] ? sagaz_to_utf8(values[i]) : NULL;
	postgres_queue_bytes(store, sql, nparams, types, utf8);
	pfree(utf8);
}

/* Queue that a statement be prepared. */
void
postgres_prepare(PostgresStore *store, const char *sql, int nparams, const Oid *types)
{
	count_postgres_queued(store, PQsendPrepare(begin_postgres_queueing(store), "", sql, nparams, types));
}

/* Let the server begin with what is queued, as far as it takes it at once. */
void
postgres_send_ahead(PostgresStore *store)
{
	/* where sending fails, reading tells why */
	(void) PQflush(store->connection->conn);
}

/*
 * Queue the statement that was prepared last.  It is sent now if it can be,
 * so that the server works while we make the next one.
 */
void
postgres_queue_prepared(PostgresStore *store, int nparams,
						const char *const *values, const int *lengths)
{
	int		   *formats = palloc(nparams * sizeof(int));

	for (int i = 0; i < nparams; i++)
		formats[i] = 1;
	count_postgres_queued(store, PQsendQueryPrepared(begin_postgres_queueing(store), "", nparams, values,
													 lengths, formats, 0));
	postgres_send_ahead(store);
	pfree(formats);
}

/*
 * libpq holds a result in memory until it is whole, so what is there to be
 * read is counted before it reads.  What comes while it does is not, so the
 * limit is no exact one.
 */
static void
count_received(PostgresConnection *connection)
{
	int			waiting = 0;

	if (ioctl(PQsocket(connection->conn), FIONREAD, &waiting) == 0)
		connection->received += waiting;
	if (connection->received / 1024 > (size_t) sagaz_max_reply)
		postgres_lost(connection->store, "Its answer is larger than sagaz.max_reply.");
}

/* Wait until there is a result, sending what is not sent yet. */
static void
wait_for_postgres_result(PostgresConnection *connection)
{
	TimestampTz deadline = sagaz_wait_deadline(sagaz_command_timeout);

	while (PQisBusy(connection->conn))
	{
		int			unsent = PQflush(connection->conn);
		int			events;

		/* where sending fails, reading tells why */
		events = sagaz_wait_for_socket(PQsocket(connection->conn), WL_SOCKET_READABLE |
								 (unsent > 0 ? WL_SOCKET_WRITEABLE : 0), deadline);
		if (events == 0)
			postgres_lost(connection->store, "It did not answer within sagaz.command_timeout.");
		if (events & WL_SOCKET_READABLE)
			count_received(connection);
		if ((events & WL_SOCKET_READABLE) && !PQconsumeInput(connection->conn))
		{
			/* its last words may be lost */
			connection->met_limit = true;
			postgres_lost(connection->store, NULL);
		}
	}
}

static PostgresResult *
copy_postgres_result(PostgresStore *store, const PGresult *from)
{
	PostgresResult *to = palloc0(sizeof(PostgresResult));
	const char *affected = PQcmdTuples(unconstify(PGresult *, from));

	to->store = store;
	to->nrows = PQntuples(from);
	to->ncolumns = PQnfields(from);
	to->affected = affected[0] ? strtoll(affected, NULL, 10) : 0;
	to->values = MemoryContextAllocHuge(CurrentMemoryContext,
										sizeof(char *) * ((Size) to->nrows * to->ncolumns + 1));
	for (int row = 0; row < to->nrows; row++)
		for (int column = 0; column < to->ncolumns; column++)
		{
			char	  **value = &to->values[(Size) row * to->ncolumns + column];

			*value = PQgetisnull(from, row, column) ? NULL :
				pnstrdup(PQgetvalue(from, row, column), PQgetlength(from, row, column));
		}
	return to;
}

static RemoteError *
copy_postgres_error(PostgresConnection *connection, const PGresult *result)
{
	RemoteError *error = palloc0(sizeof(RemoteError));
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	error->message = postgres_peer_text(PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
	if (error->message == NULL)
		error->message = postgres_peer_text(PQresultErrorMessage(result));
	error->detail = postgres_peer_text(PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL));
	error->hint = postgres_peer_text(PQresultErrorField(result, PG_DIAG_MESSAGE_HINT));
	error->sqlstate = ERRCODE_SAGAZ_STORAGE;
	/* no class of success, which would be no error here */
	if (state && strlen(state) == 5 && strspn(state, "0") != 5)
		error->sqlstate = MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]);
	/* operator intervention, but for a statement's end */
	connection->met_limit |= error->sqlstate == ERRCODE_QUERY_CANCELED ||
		error->sqlstate == ERRCODE_IDLE_SESSION_TIMEOUT ||
		error->sqlstate == TRANSACTION_TIMEOUT;
	error->is_lost = PQstatus(connection->conn) != CONNECTION_OK || state == NULL ||
		(strncmp(state, "57P", 3) == 0);
	return error;
}

/* Has each statement a result?  Where nobody wants them, nobody looks. */
static bool
all_answered(PostgresResult **results, int count)
{
	for (int i = 0; results && i < count; i++)
		if (results[i] == NULL)
			return false;
	return true;
}

/*
 * Read the results up to the end of a pipeline; returns the first error.
 * Where results is NULL nobody wants them.
 */
static RemoteError *
read_postgres_results(PostgresConnection *connection, PostgresResult **results, int count)
{
	RemoteError *error = NULL;
	int			read = 0;

	for (;;)
	{
		ExecStatusType status;

		wait_for_postgres_result(connection);
		connection->result = PQgetResult(connection->conn);
		if (connection->result == NULL)
		{
			if (++read > count)
				postgres_lost(connection->store, NULL);
			continue;
		}
		status = PQresultStatus(connection->result);
		if (status == PGRES_PIPELINE_SYNC && error == NULL &&
			(read < count || !all_answered(results, count)))
			postgres_lost(connection->store, "It left statements unanswered.");
		if (status == PGRES_FATAL_ERROR && error == NULL)
			error = copy_postgres_error(connection, connection->result);
		else if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
		{
			if (results && read < count)
				results[read] = copy_postgres_result(connection->store, connection->result);
		}
		else if (status != PGRES_FATAL_ERROR && status != PGRES_PIPELINE_ABORTED &&
				 status != PGRES_PIPELINE_SYNC)
			postgres_lost(connection->store, "It sent what was not asked for.");
		PQclear(connection->result);
		connection->result = NULL;
		if (status == PGRES_PIPELINE_SYNC || (error && error->is_lost))
			return error;
	}
}

/*
 * Is it over on another connection, for which all is looked at anew?  So it may
 * be where tables or functions have gone, or a primary has become a standby.
 */
static bool
ends_with_postgres_connection(int sqlstate)
{
	switch (sqlstate)
	{
		case ERRCODE_UNDEFINED_TABLE:
		case ERRCODE_UNDEFINED_COLUMN:
		case ERRCODE_UNDEFINED_FUNCTION:
		case ERRCODE_UNDEFINED_OBJECT:
		case ERRCODE_UNDEFINED_SCHEMA:
		case ERRCODE_READ_ONLY_SQL_TRANSACTION:
			return true;
		default:
			return false;
	}
}

/* Raise what the other server raised. */
static void
raise_postgres_error(PostgresStore *store, const RemoteError *error)
{
	if (ends_with_postgres_connection(error->sqlstate))
		store->base.broken = true;
	if (error->is_lost)
		postgres_lost(store, error->message ? error->message : "The server closed it.");
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
start_postgres_roll_back(PostgresConnection *connection)
{
	if (PQsendQueryParams(connection->conn, "ROLLBACK", 0, NULL, NULL, NULL, NULL, 0) &&
		PQpipelineSync(connection->conn) && PQflush(connection->conn) == 0)
	{
		connection->rolling_back = true;
		return;
	}
	connection->store->base.broken = true;
	postgres_disconnect(connection);
}

/*
 * Send what is queued, unless a request did, and read all results.  The
 * server may take sagaz.command_timeout for each.  Returns its error, with no
 * transaction left open.
 */
static RemoteError *
exchange_with_postgres(PostgresStore *store, PostgresResult **results, int *count)
{
	PostgresConnection *connection = store->connection;
	RemoteError *volatile error = NULL;
	bool		is_sent = connection->requested != 0;

	store->base.broken = true;
	connection->received = 0;
	end_postgres_request(connection);
	PG_TRY();
	{
		if (!is_sent && !PQpipelineSync(connection->conn))
			postgres_lost(store, NULL);
		if (connection->rolling_back)
			(void) read_postgres_results(connection, NULL, 1);
		connection->rolling_back = false;
		error = read_postgres_results(connection, results, connection->queued);
		if (error && error->is_lost)
			raise_postgres_error(store, error);
	}
	PG_CATCH();
	{
		store->base.broken = true;
		postgres_disconnect(connection);
		PG_RE_THROW();
	}
	PG_END_TRY();
	*count = connection->queued;
	connection->queued = 0;
	store->base.broken = false;
	if (error && PQtransactionStatus(connection->conn) != PQTRANS_IDLE)
		start_postgres_roll_back(connection);
	return error;
}

static PostgresResult **
postgres_results_of_queued(const PostgresStore *store)
{
	return palloc0((store->connection->queued + 1) * sizeof(PostgresResult *));
}

/*
 * Send what is queued and read the results of all statements, in the present
 * memory context.  The first error is raised, with the server's own
 * SQLSTATE, hint and detail, and its transaction is rolled back; the store
 * is broken only where the connection was lost.
 */
PostgresResult **
postgres_exchange(PostgresStore *store, int *count)
{
	PostgresResult **results = postgres_results_of_queued(store);
	RemoteError *error = exchange_with_postgres(store, results, count);

	if (error)
		raise_postgres_error(store, error);
	return results;
}

/* The same, but NULL where the server raised that. */
PostgresResult **
postgres_exchange_unless(PostgresStore *store, int sqlstate, int *count)
{
	PostgresResult **results = postgres_results_of_queued(store);
	RemoteError *error = exchange_with_postgres(store, results, count);

	if (error && error->sqlstate != sqlstate)
		raise_postgres_error(store, error);
	return error ? NULL : results;
}

/*
 * Have the server begin with what the caller has queued, to read the results
 * later.  Returns the number to ask for them.
 */
uint64
postgres_request(PostgresStore *store)
{
	static uint64 requests = 0;
	PostgresConnection *connection = store->connection;

	Assert(requester == NULL);
	if (!PQpipelineSync(connection->conn))
		postgres_lost(store, NULL);
	postgres_send_ahead(store);
	connection->requested = ++requests;
	requester = connection;
	store->base.broken = false;
	return requests;
}

/*
 * Can a request be made?  There is one at a time, so that whoever gives it up
 * finds it.
 */
bool
postgres_can_request(void)
{
	return requester == NULL;
}

/*
 * Read the results of a request; NULL if something else was exchanged
 * meanwhile, for which they had to make way.
 */
PostgresResult **
postgres_collect(PostgresStore *store, uint64 request, int *count)
{
	if (request == 0 || store->connection->requested != request)
		return NULL;
	return postgres_exchange(store, count);
}

/*
 * Nobody will ask for the results of a request, if it is still there.  The
 * server must not go on trying to send them, with a snapshot held: so the
 * connection is closed.
 */
void
postgres_give_up_request(uint64 request)
{
	if (requester && requester->requested == request)
		postgres_disconnect(requester);
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
 * neither waits nor raises an error; how it went is read with the next
 * results.
 */
void
postgres_roll_back(PostgresStore *store)
{
	PostgresConnection *connection = store->connection;

	if (connection->conn == NULL || connection->rolling_back || connection->requested)
		return;
	if (store->base.broken)
		postgres_disconnect(connection);
	else if (PQtransactionStatus(connection->conn) != PQTRANS_IDLE)
		start_postgres_roll_back(connection);
}
