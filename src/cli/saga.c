/*
 * saga.c
 *		sagaz saga list, show and stuck.
 */
#include "cli.h"

int
cli_saga_list(int argc, char **argv)
{
	const char *values[5];

	values[0] = cli.status;
	values[1] = cli.name;
	values[2] = cli.limit ? cli.limit : "100";
	values[3] = cli.skip ? cli.skip : "0";
	values[4] = cli.storage;
	cli_show(cli_connect(),
			 "SELECT * FROM sagaz.list_sagas($1, $2, $3::integer, $4::integer, $5)",
			 5, values);
	return CLI_OK;
}

int
cli_saga_stuck(int argc, char **argv)
{
	const char *values[2];

	values[0] = cli.older_than ? cli.older_than : "1 hour";
	values[1] = cli.storage;
	cli_show(cli_connect(), "SELECT * FROM sagaz.stuck_sagas($1::interval, $2)",
			 2, values);
	return CLI_OK;
}

/* Its fields one below the other, then the steps as a table. */
static void
print_saga(PGconn *conn, const char *saga)
{
	PGresult   *result;

	result = cli_query(conn,
					   "SELECT s->>'saga_id' AS saga_id, s->>'saga_name' AS saga_name,"
					   " s->>'status' AS status, s->>'version' AS version,"
					   " s->>'created_at' AS created_at, s->>'updated_at' AS updated_at,"
					   " jsonb_pretty(s->'context') AS context,"
					   " jsonb_pretty(s->'metadata') AS metadata"
					   " FROM (SELECT $1::jsonb) AS v (s)", 1, &saga);
	cli_print(result, NULL, true);
	PQclear(result);
	result = cli_query(conn,
					   "SELECT s->>'name' AS step, s->>'status' AS status,"
					   " (s->>'retry_count')::integer AS retries,"
					   " s->>'executed_at' AS executed_at, s->>'compensated_at' AS compensated_at,"
					   " s->>'error' AS error, nullif(s->'result', 'null') AS result"
					   " FROM jsonb_array_elements($1::jsonb->'steps') WITH ORDINALITY AS e (s, n)"
					   " ORDER BY n", 1, &saga);
	cli_print(result, "Steps", false);
	PQclear(result);
}

int
cli_saga_show(int argc, char **argv)
{
	const char *values[2] = {argv[0], cli.storage};
	PGconn	   *conn = cli_connect();
	PGresult   *result = cli_query(conn, "SELECT sagaz.load_saga_state($1, $2)",
								   2, values);

	if (PQgetisnull(result, 0, 0))
		cli_fail(CLI_FAILED, "there is no saga \"%s\"", argv[0]);
	if (cli.json)
		puts(PQgetvalue(result, 0, 0));
	else
		print_saga(conn, PQgetvalue(result, 0, 0));
	return CLI_OK;
}
