/*
 * delivery.c
 *		sagaz delivery list, pause and resume.
 */
#include "cli.h"

int
cli_delivery_list(int argc, char **argv)
{
	cli_show(cli_connect(),
			 "SELECT name, consumer_group, target, state, delivered, failed, dead,"
			 " lag_events, round(lag_seconds::numeric, 1) AS lag_seconds,"
			 " last_delivery_at, last_error FROM sagaz.stat_delivery ORDER BY name",
			 0, NULL);
	return CLI_OK;
}

/* All that are named, or none if one of them cannot be. */
static int
change(int n, char **names, const char *sql, const char *done)
{
	PGconn	   *conn = cli_connect();

	PQclear(cli_query(conn, "BEGIN", 0, NULL));
	for (int i = 0; i < n; i++)
	{
		const char *name = names[i];

		PQclear(cli_query(conn, sql, 1, &name));
	}
	PQclear(cli_query(conn, "COMMIT", 0, NULL));
	cli_done("delivery", n, names, done);
	return CLI_OK;
}

int
cli_delivery_pause(int argc, char **argv)
{
	return change(argc, argv, "SELECT sagaz.pause_delivery($1)", "paused");
}

int
cli_delivery_resume(int argc, char **argv)
{
	return change(argc, argv, "SELECT sagaz.resume_delivery($1)", "resumed");
}
