/*
 * delivery.c
 *		sagaz delivery list, show, pause and resume.
 */
#include "cli.h"

#define ALL_COLUMNS \
	"name, consumer_group, target, owner, state, pid, started_at, delivered, failed, dead," \
	" lag_events, round(lag_seconds::numeric, 1) AS lag_seconds," \
	" last_delivery_at, last_error, last_error_at"

/* In a table as much as fits into 80 columns; JSON has all. */
int
cli_delivery_list(int argc, char **argv)
{
	cli_show(cli_connect(),
			 cli.json ? "SELECT " ALL_COLUMNS " FROM sagaz.stat_delivery ORDER BY name" :
			 "SELECT pg_catalog.left(name, 20) AS name, state, delivered, failed, dead,"
			 " lag_events AS lag, round(lag_seconds::numeric) AS seconds,"
			 " pg_catalog.left(pg_catalog.regexp_replace(last_error, '\\s+', ' ', 'g'), 16) AS error"
			 " FROM sagaz.stat_delivery ORDER BY sagaz.stat_delivery.name",
			 0, NULL);
	return CLI_OK;
}

/* One below the other. */
int
cli_delivery_show(int argc, char **argv)
{
	const char *name = argv[0];
	PGconn	   *conn = cli_connect();
	PGresult   *result =
		cli_query(conn, cli.json ?
				  "SELECT row_to_json(r) FROM (SELECT " ALL_COLUMNS
				  " FROM sagaz.stat_delivery WHERE name = $1) AS r" :
				  "SELECT " ALL_COLUMNS " FROM sagaz.stat_delivery WHERE name = $1",
				  1, &name);

	if (PQntuples(result) == 0)
		cli_fail(CLI_FAILED, "there is no delivery \"%s\"", name);
	if (cli.json)
		puts(PQgetvalue(result, 0, 0));
	else
		cli_print(result, NULL, true);
	PQclear(result);
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
