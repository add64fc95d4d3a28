/*
 * validate.c
 *		sagaz storage validate, and what --dry-run tells.
 */
#include "cli.h"

static void
print_validate_issues(PGconn *conn, const char *issues)
{
	PGresult   *result;

	result = cli_query(conn,
					   "SELECT i->>'severity' AS severity, i->>'code' AS code,"
					   " i->>'message' AS message, i->>'record_type' AS type,"
					   " (i->>'count')::bigint AS count,"
					   " (SELECT string_agg(k, ', ') FROM jsonb_array_elements_text("
					   "  CASE jsonb_typeof(i->'samples') WHEN 'array' THEN i->'samples'"
					   "  ELSE '[]' END) AS k) AS samples"
					   " FROM jsonb_array_elements($1::jsonb) AS i", 1, &issues);
	if (PQntuples(result) > 0)
		cli_print(result, "Issues", false);
	PQclear(result);
}

static void
print_validated_counts(PGconn *conn, const char *counts)
{
	PGresult   *result;

	result = cli_query(conn,
					   "SELECT key AS type, (value->>'source')::bigint AS source,"
					   " (value->>'target')::bigint AS target"
					   " FROM jsonb_each($1::jsonb) ORDER BY key DESC", 1, &counts);
	cli_print(result, "Records", false);
	PQclear(result);
}

/* {"saga": {"source": 5, "target": 0}, ...}; NULL if one side cannot be reached. */
static char *
validated_records(PGconn *conn, const char *const *values)
{
	char	   *counts = NULL;
	PGresult   *result;

	result = cli_query_try(conn,
						   "SELECT json_object_agg(t, json_build_object("
						   " 'source', sagaz.count_records(t, $1), 'target', sagaz.count_records(t, $2)))"
						   " FROM unnest(CASE $3 WHEN 'both' THEN '{saga,outbox}' ELSE ARRAY[$3] END) AS t",
						   3, values);
	if (PQresultStatus(result) == PGRES_TUPLES_OK)
		counts = pg_strdup(PQgetvalue(result, 0, 0));
	PQclear(result);
	return counts;
}

/*
 * Tell whether a transfer can work and, with "count", how much there is to do;
 * returns the exit status.
 */
int
cli_check_transfer(PGconn *conn, const char *source, const char *target,
				   const char *type, bool count)
{
	const char *values[3] = {source, target, type};
	PGresult   *check;
	char	   *counts = NULL;
	bool		compatible;

	check = cli_query(conn, "SELECT compatible, coalesce(issues, '[]')"
					  " FROM sagaz.validate_transfer($1, $2, $3)", 3, values);
	compatible = strcmp(PQgetvalue(check, 0, 0), "t") == 0;
	if (count)
		counts = validated_records(conn, values);
	if (cli.json)
	{
		printf("{\"compatible\": %s, \"issues\": %s", compatible ? "true" : "false",
			   PQgetvalue(check, 0, 1));
		if (count)
			printf(", \"counts\": %s", counts ? counts : "null");
		puts("}");
	}
	else if (!cli.quiet || !compatible)
	{
		print_validate_issues(conn, PQgetvalue(check, 0, 1));
		if (counts != NULL)
			print_validated_counts(conn, counts);
		puts(compatible ? "The transfer can work." : "Not everything can be transferred.");
	}
	pg_free(counts);
	PQclear(check);
	return compatible ? CLI_OK : CLI_FAILED;
}

int
cli_storage_validate(int argc, char **argv)
{
	const char *source = cli_place(&cli.source, "source");
	const char *target = cli_place(&cli.target, "target");

	if (source == NULL || target == NULL)
		cli_usage_error("--source and --target are needed");
	return cli_check_transfer(cli_connect(), source, target,
							  cli.type ? cli.type : "both", false);
}
