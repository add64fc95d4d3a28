/*
 * transfer.c
 *		sagaz storage transfer and migrate: make the CALL, and tell in the end
 *		what came of it and how to go on where it did not come to the end.
 *
 * URLs go to the server as parameters, so that no view of its statements has
 * them, and never into what is printed: that has the names as the server
 * gives them, without secrets.
 */
#include "cli.h"

#include "outcome.h"
#include "watch.h"

/* Which of the four calls it is to be, and its values. */
static void
prepare_transfer_call(CliCall *call, const char *source, const char *target)
{
	const char *batch_size = cli.batch_size ? cli.batch_size : "500";
	const char *on_error = cli.on_error ? cli.on_error : "fail";
	const char *max_tries = cli.max_tries ? cli.max_tries : "10";
	const char *delay = cli.delay ? cli.delay : "200ms";
	const char *removals = cli.accept_removals ? "true" : "false";

	if (cli.resume)
		*call = (CliCall) {
			.sql = "CALL sagaz.resume_transfer($1::bigint, $2::text, $3::text, $4::boolean)",
			.nvalues = 4,
			.values = {cli.resume, source, target, removals},
			.transfer_id = cli.resume
		};
	else if (cli.retry_errors)
		*call = (CliCall) {
			.sql = "CALL sagaz.retry_transfer_errors($1::bigint, $2::text, $3::text)",
			.nvalues = 3,
			.values = {cli.retry_errors, source, target},
			.transfer_id = cli.retry_errors
		};
	else if (cli.command->bit == CLI_MIGRATE)
		*call = (CliCall) {
			.sql = "CALL sagaz.migrate($1::text, $2::text, $3::boolean, $4::integer, $5::text,"
			" $6::boolean, $7::integer, $8::interval, NULL)",
			.nvalues = 8,
			.values = {source, target, cli.switch_over ? "true" : "false", batch_size, on_error,
			removals, max_tries, delay}
		};
	else
		*call = (CliCall) {
			.sql = "CALL sagaz.transfer($1::text, $2::text, $3::text, $4::integer, $5::text, $6::boolean,"
			" $7::integer, $8::interval, NULL)",
			.nvalues = 8,
			.values = {source, target, cli.type ? cli.type : "both", batch_size,
			on_error, cli.no_validate ? "false" : "true", max_tries, delay}
		};
}

static void
check_transfer_usage(const char *source, const char *target)
{
	bool		again = cli.resume || cli.retry_errors;

	if (cli.resume && cli.retry_errors)
		cli_usage_error("--resume and --retry-errors exclude each other");
	if (again && (cli.type || cli.batch_size || cli.on_error || cli.max_tries || cli.delay || cli.no_validate ||
				  cli.switch_over || cli.dry_run))
		cli_usage_error("a transfer goes on as it was begun: only --source, --target and --accept-removals can be given again");
	if (cli.accept_removals && (cli.retry_errors || (!again && cli.command->bit == CLI_TRANSFER)))
		cli_usage_error("--accept-removals goes with migrate, and with --resume");
	if (!again && (source == NULL || target == NULL))
		cli_usage_error("--source and --target are needed");
}

/* Note what tells this call's row from others. */
static void
note_transfer_process(PGconn *conn, CliCall *call)
{
	PGresult   *result = cli_query(conn, "SELECT pg_backend_pid(), clock_timestamp()",
								   0, NULL);

	call->pid = pg_strdup(PQgetvalue(result, 0, 0));
	call->since = pg_strdup(PQgetvalue(result, 0, 1));
	PQclear(result);
}

static int
run_cli_transfer(void)
{
	char	   *source = cli_place(&cli.source, "source");
	char	   *target = cli_place(&cli.target, "target");
	PGconn	   *conn;
	PGresult   *result;
	CliCall		call;

	check_transfer_usage(source, target);
	conn = cli_connect();
	if (cli.dry_run)
		return cli_check_transfer(conn, source, target,
								  cli.type ? cli.type : "both", true);
	prepare_transfer_call(&call, source, target);
	call.source = source;
	call.target = target;
	note_transfer_process(conn, &call);
	result = cli_watch_call(conn, &call);
	return cli_outcome(conn, &call, result);
}

int
cli_storage_transfer(int argc, char **argv)
{
	return run_cli_transfer();
}

int
cli_storage_migrate(int argc, char **argv)
{
	return run_cli_transfer();
}
