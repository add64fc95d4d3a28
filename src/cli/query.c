/*
 * query.c
 *		Short questions to the server.  Values always go as parameters, so
 *		that they appear in no statement text.
 */
#include "cli.h"

#include <errno.h>
#include <poll.h>

/*
 * Wait until the connection has something to read.  The first signal cancels
 * the query, the second ends the program.
 */
static void
wait_for_input(PGconn *conn, bool *cancelled)
{
	struct pollfd fds[2] = {
		{.fd = PQsocket(conn), .events = POLLIN},
		{.fd = cli_signal_socket(), .events = POLLIN}
	};

	if (poll(fds, 2, -1) < 0 && errno != EINTR)
		cli_fail(CLI_FAILED, "poll failed: %s", strerror(errno));
	if (!fds[1].revents)
		return;
	(void) cli_signal_interrupts();
	if (*cancelled)
		cli_fail(CLI_FAILED, "interrupted");
	cli_signal_cancel(conn);
	*cancelled = true;
}

/*
 * What a statement has given: the last result or, since a broken connection
 * adds one that says less, the first error.  NULL if nothing was sent.
 */
PGresult *
cli_query_collect(PGconn *conn)
{
	PGresult   *result = NULL;
	PGresult   *next;

	while ((next = PQgetResult(conn)) != NULL)
	{
		if (result != NULL && PQresultStatus(result) == PGRES_FATAL_ERROR)
			PQclear(next);
		else
		{
			PQclear(result);
			result = next;
		}
	}
	return result;
}

/* The result of one statement, an error too; NULL if the connection is gone. */
PGresult *
cli_query_try(PGconn *conn, const char *sql, int nvalues, const char *const *values)
{
	bool		cancelled = false;

	if (!PQsendQueryParams(conn, sql, nvalues, NULL, values, NULL, NULL, 0))
		return NULL;
	do
	{
		wait_for_input(conn, &cancelled);
	} while (PQconsumeInput(conn) && PQisBusy(conn));
	return cli_query_collect(conn);
}

/* An error was raised, or the connection has broken: say so and end. */
void
cli_query_failed(PGconn *conn, PGresult *result)
{
	cli_server_error(result, conn);
	if (cli.json)
		cli_json_error(result, conn);
	exit(PQstatus(conn) == CONNECTION_BAD ? CLI_NO_CONNECTION : CLI_FAILED);
}

/* The rows of one statement, fit to be shown; if it fails, the program ends. */
PGresult *
cli_query(PGconn *conn, const char *sql, int nvalues, const char *const *values)
{
	PGresult   *result = cli_query_try(conn, sql, nvalues, values);

	if (PQresultStatus(result) != PGRES_TUPLES_OK &&
		PQresultStatus(result) != PGRES_COMMAND_OK)
		cli_query_failed(conn, result);
	return cli_harmless_result(result);
}
