/*
 * outcome.c
 *		What came of a transfer: the figures, the verification, what was
 *		refused, how to go on, and the exit status.
 */
#include "cli.h"

#include "outcome.h"

#define OUTCOME \
	"SELECT state, source, target," \
	" transferred + unchanged + kept + skipped + failed AS done, total," \
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
text_of(const PGresult *row, int column)
{
	return PQgetvalue(row, 0, column);
}

static bool
is_zero(const PGresult *row, int column)
{
	return strtoll(text_of(row, column), NULL, 10) == 0;
}

/* A transfer that failed before anybody saw its row may have one all the same. */
static void
find_transfer(PGconn *conn, CliCall *call)
{
	const char *values[2] = {call->pid, call->since};
	PGresult   *result;

	if (call->transfer_id != NULL)
		return;
	result = cli_try(conn, "SELECT transfer_id FROM sagaz.transfers"
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
	result = cli_try(conn, OUTCOME, 1, values);
	if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) > 0)
		return result;
	PQclear(result);
	return NULL;
}

static void
print_figures(const char *id, const PGresult *row)
{
	char		duration[32];

	cli_duration(duration, sizeof(duration), atof(text_of(row, OUTCOME_SECONDS)));
	printf("%s %s from %s to %s: %s after %s\n", text_of(row, OUTCOME_OPERATION), id,
		   text_of(row, OUTCOME_SOURCE), text_of(row, OUTCOME_TARGET),
		   text_of(row, OUTCOME_STATE), duration);
	printf("  %s of %s records: %s transferred, %s unchanged, %s kept, %s skipped, %s failed",
		   text_of(row, OUTCOME_DONE),
		   PQgetisnull(row, 0, OUTCOME_TOTAL) ? "?" : text_of(row, OUTCOME_TOTAL),
		   text_of(row, OUTCOME_TRANSFERRED), text_of(row, OUTCOME_UNCHANGED),
		   text_of(row, OUTCOME_KEPT), text_of(row, OUTCOME_SKIPPED),
		   text_of(row, OUTCOME_FAILED));
	if (!is_zero(row, OUTCOME_REMOVED))
		printf(", %s removed", text_of(row, OUTCOME_REMOVED));
	if (!PQgetisnull(row, 0, OUTCOME_RATE))
		printf(" (%.0f records/s)", atof(text_of(row, OUTCOME_RATE)));
	putchar('\n');
}

/* Print the rows' only column, a line each. */
static void
print_lines(PGconn *conn, const char *sql, const char *json)
{
	PGresult   *result = cli_try(conn, sql, 1, &json);

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
				" ELSE format('checksums differ: %s missing, %s different, %s ahead, %s only in the target%s',"
				"  value->>'missing', value->>'different', value->>'ahead', value->>'only_in_target',"
				"  (SELECT ': ' || string_agg(k, ', ') FROM jsonb_array_elements_text(value->'keys') AS k))"
				" END) FROM jsonb_each($1::jsonb) ORDER BY key DESC",
				text_of(row, OUTCOME_VERIFICATION));
}

static void
print_refused(PGconn *conn, const char *id, const PGresult *row)
{
	print_lines(conn,
				"SELECT format('refused: %s %s: %s', e->>'record_type', e->>'record_key', e->>'message')"
				" FROM jsonb_array_elements($1::jsonb) AS e", text_of(row, OUTCOME_ERRORS));
	if (!is_zero(row, OUTCOME_SKIPPED))
		printf("  all that was refused is in sagaz.transfer_error; to try it again:"
			   " sagaz storage transfer --retry-errors %s\n", id);
}

/* The option that must be given again since the server keeps no secrets. */
static void
print_place_again(const char *option, const CliPlace *place, const char *value)
{
	if (value == NULL || !cli_has_secret(value))
		return;
	if (place->variable != NULL)
		fprintf(stderr, " --%s-env %s", option, place->variable);
	else if (place->file != NULL)
		fprintf(stderr, " --%s-file %s", option, place->file);
	else
		fprintf(stderr, " --%s URL", option);
}

static void
print_how_to_go_on(const char *id, const char *source, const char *target)
{
	fprintf(stderr, "to go on: sagaz storage transfer --resume %s", id);
	print_place_again("source", &cli.source, source);
	print_place_again("target", &cli.target, target);
	fprintf(stderr, "\n      or: CALL sagaz.resume_transfer(%s", id);
	if (source != NULL && cli_has_secret(source))
		fputs(", source => 'URL'", stderr);
	if (target != NULL && cli_has_secret(target))
		fputs(", target => 'URL'", stderr);
	fputs(")\n", stderr);
}

/*
 * Tell what came of it and return the exit status.  "result" is that of the
 * CALL; source and target are as the user gave them.
 */
int
cli_outcome(PGconn *conn, CliCall *call, const PGresult *result,
			const char *source, const char *target)
{
	bool		lost = PQstatus(conn) == CONNECTION_BAD;
	bool		completed = PQresultStatus(result) == PGRES_TUPLES_OK ||
		PQresultStatus(result) == PGRES_COMMAND_OK;
	bool		arrived = completed;
	PGconn	   *look;
	PGresult   *row;

	if (!completed && (lost || !call->stopped))
		cli_server_error(result, conn);
	if (call->transfer_id == NULL && PQntuples(result) > 0)
		call->transfer_id = PQgetvalue(result, 0, 0);
	look = lost ? cli_connect_again() : conn;
	row = look ? fetch_outcome(look, call) : NULL;
	if (row != NULL)
	{
		if (!cli.json && !cli.quiet)
		{
			print_figures(call->transfer_id, row);
			print_verification(look, row);
			print_refused(look, call->transfer_id, row);
		}
		arrived = completed && is_zero(row, OUTCOME_SKIPPED) &&
			is_zero(row, OUTCOME_FAILED) && is_zero(row, OUTCOME_DIFFERING);
	}
	if (cli.json && row != NULL)
		puts(text_of(row, OUTCOME_JSON));
	else if (cli.json && !completed)
		cli_json_error(result, conn);
	fflush(stdout);
	if (!completed && call->transfer_id != NULL &&
		(lost || (row != NULL && strcmp(text_of(row, OUTCOME_STATE), "completed") != 0)))
		print_how_to_go_on(call->transfer_id, source, target);
	PQclear(row);
	return lost ? CLI_NO_CONNECTION : arrived ? CLI_OK : CLI_FAILED;
}
