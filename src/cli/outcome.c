/*
 * outcome.c
 *		What came of a transfer: the figures, the verification, what was
 *		refused, how to go on, and the exit status.
 */
#include "cli.h"

#include "outcome.h"

#define OUTCOME \
	"SELECT state, source, target," \
	" " WATCH_DONE_OF_TOTAL ", total," \
	" transferred, unchanged, kept, skipped, failed, removed," \
	" extract(epoch FROM elapsed) AS seconds, records_per_second, operation," \
	" row_to_json(t), coalesce((SELECT sum((v.value->>'missing')::bigint" \
	"  + (v.value->>'different')::bigint) FROM jsonb_each(t.verification) AS v), 0)," \
	" t.verification, t.errors" \
	" FROM sagaz.transfers AS t WHERE transfer_id = $1::bigint"

enum
{
	OUTCOME_STATE, OUTCOME_SOURCE, OUTCOME_TARGET, OUTCOME_DONE, OUTCOME_TOTAL,
	OUTCOME_TRANSFERRED, OUTCOME_UNCHANGED, OUTCOME_KEPT, OUTCOME_SKIPPED,
	OUTCOME_FAILED, OUTCOME_REMOVED, OUTCOME_SECONDS, OUTCOME_RATE,
	OUTCOME_OPERATION, OUTCOME_JSON, OUTCOME_DIFFERING, OUTCOME_VERIFICATION,
	OUTCOME_ERRORS
};

static const char *
outcome_text(const PGresult *row, int column)
{
	return PQgetvalue(row, 0, column);
}

static bool
is_zero(const PGresult *row, int column)
{
	return strtoll(outcome_text(row, column), NULL, 10) == 0;
}

/* A transfer that failed before anybody saw its row may have one all the same. */
static void
find_transfer(PGconn *conn, CliCall *call)
{
	const char *values[2] = {call->pid, call->since};
	PGresult   *result;

	if (call->transfer_id != NULL)
		return;
	result = cli_query_try(conn, "SELECT transfer_id FROM sagaz.transfers"
						   " WHERE pid = $1::integer AND started_at >= $2::timestamptz"
						   " ORDER BY transfer_id DESC LIMIT 1", 2, values);
	if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) > 0)
		call->transfer_id = pg_strdup(PQgetvalue(result, 0, 0));
	PQclear(result);
}

/* The transfer's row as it is now; NULL if there is none to be seen. */
static PGresult *
fetch_outcome(PGconn *conn, CliCall *call)
{
	const char *values[1];
	PGresult   *result;

	find_transfer(conn, call);
	if (call->transfer_id == NULL)
		return NULL;
	values[0] = call->transfer_id;
	result = cli_query_try(conn, OUTCOME, 1, values);
	if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) > 0)
		return result;
	PQclear(result);
	return NULL;
}

static void
print_figures(const char *id, const PGresult *row)
{
	char		duration[32];

	cli_progress_duration(duration, sizeof(duration), atof(outcome_text(row, OUTCOME_SECONDS)));
	printf("%s %s from %s to %s: %s after %s\n", outcome_text(row, OUTCOME_OPERATION), id,
		   outcome_text(row, OUTCOME_SOURCE), outcome_text(row, OUTCOME_TARGET),
		   outcome_text(row, OUTCOME_STATE), duration);
	printf("  %s of %s records: %s transferred, %s unchanged, %s kept, %s skipped, %s failed",
		   outcome_text(row, OUTCOME_DONE),
		   outcome_text(row, OUTCOME_TOTAL),
		   outcome_text(row, OUTCOME_TRANSFERRED), outcome_text(row, OUTCOME_UNCHANGED),
		   outcome_text(row, OUTCOME_KEPT), outcome_text(row, OUTCOME_SKIPPED),
		   outcome_text(row, OUTCOME_FAILED));
	if (!is_zero(row, OUTCOME_REMOVED))
		printf(", %s removed", outcome_text(row, OUTCOME_REMOVED));
	if (!PQgetisnull(row, 0, OUTCOME_RATE))
		printf(" (%.0f records/s)", atof(outcome_text(row, OUTCOME_RATE)));
	putchar('\n');
}

/* Print the rows' only column, a line each. */
static void
print_lines(PGconn *conn, const char *sql, const char *json)
{
	PGresult   *result = cli_query_try(conn, sql, 1, &json);

	for (int row = 0; row < PQntuples(result); row++)
	{
		fputs("  ", stdout);
		cli_print_safely(stdout, PQgetvalue(result, row, 0));
		putchar('\n');
	}
	PQclear(result);
}

static void
print_verification(PGconn *conn, const PGresult *row)
{
	if (PQgetisnull(row, 0, OUTCOME_VERIFICATION))
		return;
	print_lines(conn,
				"SELECT format('%s: %s in the source, %s in the target, %s', key,"
				" value->>'source_count', value->>'target_count', CASE"
				" WHEN value->>'source_checksum' = value->>'target_checksum' THEN 'checksums equal'"
				" ELSE format('checksums differ: %s missing (%s refused), %s different, %s ahead, %s only in the target%s',"
				"  value->>'missing', coalesce(value->>'refused', '0'), value->>'different', value->>'ahead', value->>'only_in_target',"
				"  (SELECT ': ' || string_agg(k, ', ') FROM jsonb_array_elements_text(value->'keys') AS k))"
				" END) FROM jsonb_each($1::jsonb) ORDER BY key DESC",
				outcome_text(row, OUTCOME_VERIFICATION));
}

/* The options that must be given again since the server keeps no secrets. */
static void
print_place_again(FILE *to, const char *option, const CliPlace *place,
				  const char *value)
{
	if (value == NULL || !cli_place_has_secret(value))
		return;
	if (place->variable != NULL)
		fprintf(to, " --%s-env %s", option, place->variable);
	else if (place->file != NULL)
		fprintf(to, " --%s-file %s", option, place->file);
	else
		fprintf(to, " --%s URL", option);
}

static void
print_refused(PGconn *conn, const CliCall *call, const PGresult *row)
{
	print_lines(conn,
				"SELECT format('refused: %s %s: %s', e->>'record_type', e->>'record_key', e->>'message')"
				" FROM jsonb_array_elements($1::jsonb) AS e", outcome_text(row, OUTCOME_ERRORS));
	if (is_zero(row, OUTCOME_SKIPPED))
		return;
	printf("  all that was refused is in sagaz.transfer_error; to try it again:"
		   " sagaz storage transfer --retry-errors %s", call->transfer_id);
	print_place_again(stdout, "source", &cli.source, call->source);
	print_place_again(stdout, "target", &cli.target, call->target);
	putchar('\n');
}

static void
print_how_to_go_on(const CliCall *call)
{
	fprintf(stderr, "to go on: sagaz storage transfer --resume %s", call->transfer_id);
	print_place_again(stderr, "source", &cli.source, call->source);
	print_place_again(stderr, "target", &cli.target, call->target);
	fprintf(stderr, "\n      or: CALL sagaz.resume_transfer(%s", call->transfer_id);
	if (call->source != NULL && cli_place_has_secret(call->source))
		fputs(", source => 'URL'", stderr);
	if (call->target != NULL && cli_place_has_secret(call->target))
		fputs(", target => 'URL'", stderr);
	fputs(")\n", stderr);
}

/* Figures, comparison and refused records, for people. */
static void
print_outcome(PGconn *conn, const CliCall *call, const PGresult *row)
{
	print_figures(call->transfer_id, row);
	print_verification(conn, row);
	print_refused(conn, call, row);
}

static bool
is_completed(const PGresult *row)
{
	return strcmp(outcome_text(row, OUTCOME_STATE), "completed") == 0;
}

/*
 * Tell what came of it and return the exit status.  "result" is that of the
 * CALL.  The row of a completed transfer that was refused to be resumed tells
 * nothing of this call.
 */
int
cli_outcome(PGconn *conn, CliCall *call, const PGresult *result)
{
	bool		lost = PQstatus(conn) == CONNECTION_BAD;
	bool		done = PQresultStatus(result) == PGRES_TUPLES_OK ||
		PQresultStatus(result) == PGRES_COMMAND_OK;
	PGconn	   *look = lost ? cli_connect_again() : conn;
	PGresult   *row = NULL;
	int			status = lost ? CLI_NO_CONNECTION : CLI_FAILED;

	if (!done && (lost || !call->stopped))
		cli_server_error(result, conn);
	if (PQntuples(result) > 0)
		call->transfer_id = PQgetvalue(result, 0, 0);
	if (look != NULL)
		row = fetch_outcome(look, call);
	if (row != NULL && !done && is_completed(row))
	{
		PQclear(row);
		row = NULL;
		call->transfer_id = NULL;
	}
	if (cli.json && row != NULL)
		puts(outcome_text(row, OUTCOME_JSON));
	else if (cli.json)
		cli_json_error(result, conn);
	else if (row != NULL && !cli.quiet)
		print_outcome(look, call, row);
	fflush(stdout);
	if (!done && call->transfer_id != NULL && (lost || row != NULL) && !cli.retry_errors)
		print_how_to_go_on(call);
	if (done && row != NULL && is_zero(row, OUTCOME_SKIPPED) &&
		is_zero(row, OUTCOME_FAILED) && is_zero(row, OUTCOME_DIFFERING))
		status = CLI_OK;
	PQclear(row);
	return status;
}
