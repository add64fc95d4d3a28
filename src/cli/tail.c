/*
 * tail.c
 *		sagaz outbox tail: the last events, then new ones.
 *
 * Events are committed in another order than they are created in, so neither
 * a time nor an id tells what is new.  The server tells by snapshots: each
 * look gives the one it was taken with, and the next asks for what that did
 * not see.
 */
#include "cli.h"

#include <errno.h>
#include <poll.h>

#define LOOK \
	"SELECT p.snapshot, e.created_at, e.event_type, e.saga_id, e.event_id," \
	" e.payload, to_json(e)" \
	" FROM (SELECT pg_current_snapshot() AS snapshot) AS p" \
	" LEFT JOIN LATERAL sagaz.new_events($1::pg_snapshot, $2::integer) AS e ON" \
	" ($3::text IS NULL OR e.event_type = $3) AND ($4::text IS NULL OR e.saga_id = $4)"

enum
{
	LOOK_SNAPSHOT, LOOK_CREATED_AT, LOOK_EVENT_TYPE, LOOK_SAGA_ID, LOOK_EVENT_ID,
	LOOK_PAYLOAD, LOOK_JSON
};

/* One line for each event; with --json its document. */
static void
print_events(const PGresult *events)
{
	for (int row = 0; row < PQntuples(events); row++)
	{
		if (PQgetisnull(events, row, LOOK_EVENT_ID))
			continue;
		if (cli.json)
		{
			puts(PQgetvalue(events, row, LOOK_JSON));
			continue;
		}
		for (int i = LOOK_CREATED_AT; i <= LOOK_PAYLOAD; i++)
		{
			cli_print_safely(stdout, PQgetvalue(events, row, i));
			fputs(i == LOOK_PAYLOAD ? "\n" : "  ", stdout);
		}
	}
	if (fflush(stdout) != 0)
		cli_fail(CLI_FAILED, "could not write: %s", strerror(errno));
}

/* Sleep until it is time to look again; true: a signal came meanwhile. */
static bool
interrupted_within(double seconds)
{
	struct pollfd fd = {.fd = cli_signal_socket(), .events = POLLIN};

	if (cli_signal_interrupts() == 0)
		(void) poll(&fd, 1, (int) (seconds * 1000));
	return cli_signal_interrupts() > 0;
}

/* Follow until Ctrl-C, which is the way to end this and no failure. */
int
cli_outbox_tail(int argc, char **argv)
{
	PGconn	   *conn = cli_connect();
	char	   *snapshot = NULL;
	const char *values[4];

	values[2] = cli.event_type;
	values[3] = cli.saga;
	do
	{
		PGresult   *events;

		values[0] = snapshot;
		values[1] = snapshot ? NULL : cli.limit ? cli.limit : "10";
		events = cli_query_try(conn, LOOK, 4, values);
		if (PQresultStatus(events) != PGRES_TUPLES_OK)
		{
			if (cli_signal_interrupts() > 0 && PQstatus(conn) == CONNECTION_OK)
				return CLI_OK;
			cli_query_failed(conn, events);
		}
		print_events(events);
		pg_free(snapshot);
		snapshot = pg_strdup(PQgetvalue(events, 0, LOOK_SNAPSHOT));
		PQclear(events);
	} while (!interrupted_within(cli.interval > 0 ? cli.interval : 0.5));
	return CLI_OK;
}
