/*
 * storage.c
 *		sagaz storage list, add, drop, health and stats.
 */
#include "cli.h"

#include "fe_utils/string_utils.h"

int
cli_storage_list(int argc, char **argv)
{
	cli_show(cli_connect(),
			 "SELECT name, backend, storage_type AS type, owner, usable, options"
			 " FROM sagaz.storages ORDER BY name <> 'native', name", 0, NULL);
	return CLI_OK;
}

/* The names, or the values, of what --set gives, as an array. */
static char *
settings_array(bool names)
{
	PQExpBufferData array;

	initPQExpBuffer(&array);
	appendPQExpBufferChar(&array, '{');
	for (SimpleStringListCell *cell = cli.settings.head; cell; cell = cell->next)
	{
		char	   *setting = pg_strdup(cell->val);
		char	   *equals = strchr(setting, '=');

		if (equals == NULL || equals == setting)
			cli_usage_error("--set must be OPTION=VALUE");
		*equals = '\0';
		appendPGArray(&array, names ? setting : equals + 1);
		pg_free(setting);
	}
	appendPQExpBufferChar(&array, '}');
	return array.data;
}

int
cli_storage_add(int argc, char **argv)
{
	const char *values[6];

	if (argc > 1)
		cli.url.text = cli_place_keep_secret(argv[1]);
	values[0] = argv[0];
	values[1] = cli_place(&cli.url, "url");
	if (values[1] == NULL)
		cli_usage_error("an argument is missing: URL");
	values[2] = cli.type ? cli.type : "both";
	values[3] = settings_array(true);
	values[4] = settings_array(false);
	values[5] = cli.for_public ? "true" : "false";
	PQclear(cli_query(cli_connect(),
					  "SELECT sagaz.create_storage($1, $2, $3,"
					  " jsonb_object($4::text[], $5::text[]), $6::boolean)",
					  6, values));
	cli_done("storage", 1, argv, "added");
	return CLI_OK;
}

int
cli_storage_drop(int argc, char **argv)
{
	const char *values[1] = {argv[0]};

	PQclear(cli_query(cli_connect(), "SELECT sagaz.drop_storage($1)", 1, values));
	cli_done("storage", 1, argv, "dropped");
	return CLI_OK;
}

/* Does the error tell of the storage, and not of the question? */
static bool
is_storage_failure(const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	return sqlstate != NULL &&
		(strcmp(sqlstate, "SZ000") == 0 || strcmp(sqlstate, "SZ001") == 0 ||
		 strcmp(sqlstate, "SZ003") == 0 || strncmp(sqlstate, "HV", 2) == 0);
}

/*
 * The health of one storage; one that cannot be opened is unhealthy, with the
 * reason.  The last column is the row as JSON.
 */
static PGresult *
health_of(PGconn *conn, const char *storage)
{
	const char *values[4] = {storage, cli_place_without_secret(storage)};
	PGresult   *failed;
	PGresult   *result = cli_query_try(conn,
									   "SELECT r.*, row_to_json(r) FROM (SELECT $2::text AS storage, status,"
									   " round(latency_ms::numeric, 1) AS latency_ms, message,"
									   " details FROM sagaz.health_check($1)) AS r", 2, values);

	if (PQresultStatus(result) == PGRES_TUPLES_OK)
		return result;
	if (PQstatus(conn) == CONNECTION_BAD || !is_storage_failure(result))
		cli_query_failed(conn, result);
	failed = result;
	values[2] = PQresultErrorField(failed, PG_DIAG_MESSAGE_PRIMARY);
	values[3] = PQresultErrorField(failed, PG_DIAG_MESSAGE_DETAIL);
	result = cli_query(conn,
					   "SELECT r.*, row_to_json(r) FROM (SELECT $1::text AS storage,"
					   " 'unhealthy' AS status, NULL::numeric AS latency_ms,"
					   " concat_ws(': ', $2::text, $3::text) AS message,"
					   " NULL::jsonb AS details) AS r", 3, values + 1);
	PQclear(failed);
	return result;
}

/* The columns of health_of() that a table shows; "details" is for JSON. */
#define HEALTH_COLUMNS 4
#define HEALTH_JSON 5

static void
print_health(PGresult **healths, int n)
{
	PGresult   *rows = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
	PGresAttDesc columns[HEALTH_COLUMNS] = {0};

	for (int i = 0; i < HEALTH_COLUMNS; i++)
	{
		columns[i].name = PQfname(healths[0], i);
		columns[i].typid = PQftype(healths[0], i);
	}
	PQsetResultAttrs(rows, HEALTH_COLUMNS, columns);
	for (int row = 0; row < n; row++)
	{
		for (int i = 0; i < HEALTH_COLUMNS; i++)
			PQsetvalue(rows, row, i, PQgetvalue(healths[row], 0, i),
					   PQgetisnull(healths[row], 0, i) ? -1 : PQgetlength(healths[row], 0, i));
	}
	cli_print(rows, NULL, false);
	PQclear(rows);
}

/* Those named, else all that the user may use. */
int
cli_storage_health(int argc, char **argv)
{
	PGconn	   *conn;
	PGresult   *names;
	PGresult  **healths;
	int			n = argc;
	int			status = CLI_OK;

	for (int i = 0; i < argc; i++)
		argv[i] = cli_place_keep_secret(argv[i]);
	conn = cli_connect();
	names = cli_query(conn, "SELECT name FROM sagaz.storages WHERE usable"
					  " ORDER BY name <> 'native', name", 0, NULL);
	if (argc == 0)
		n = PQntuples(names);
	healths = pg_malloc(n * sizeof(PGresult *));
	for (int i = 0; i < n; i++)
	{
		healths[i] = health_of(conn, argc ? argv[i] : PQgetvalue(names, i, 0));
		if (strcmp(PQgetvalue(healths[i], 0, 1), "unhealthy") == 0)
			status = CLI_FAILED;
		if (cli.json)
			printf("%s%s", i == 0 ? "[" : ",\n ", PQgetvalue(healths[i], 0, HEALTH_JSON));
	}
	if (cli.json)
		puts("]");
	else
		print_health(healths, n);
	return status;
}

/* What the storage keeps; of a URL nobody has said. */
static const char *
type_of(PGconn *conn, const char *storage)
{
	PGresult   *result;
	const char *type = "both";

	if (cli.type != NULL)
		return cli.type;
	result = cli_query(conn, "SELECT storage_type FROM sagaz.storages WHERE name = $1",
					   1, &storage);
	if (PQntuples(result) > 0)
		type = pg_strdup(PQgetvalue(result, 0, 0));
	PQclear(result);
	return type;
}

static const char *const saga_statistics =
"SELECT * FROM sagaz.get_saga_statistics(storage => $1) ORDER BY saga_name, status";

static const char *const outbox_statistics =
"SELECT \"group\", total, pending, claimed, sent, failed, dead_letter, archived,"
" oldest_pending, open_batches, estimated"
" FROM sagaz.get_outbox_statistics(storage => $1)";

int
cli_storage_stats(int argc, char **argv)
{
	const char *storage = argc ? cli_place_keep_secret(argv[0]) : "native";
	PGconn	   *conn = cli_connect();
	const char *type = type_of(conn, storage);
	bool		sagas = strcmp(type, "outbox") != 0;
	bool		events = strcmp(type, "saga") != 0;

	if (cli.json)
		fputs("{\"sagas\": ", stdout);
	if (sagas)
		cli_show(conn, saga_statistics, 1, &storage);
	else if (cli.json)
		puts("null");
	if (cli.json)
		fputs(", \"outbox\": ", stdout);
	if (events)
		cli_show_one(conn, outbox_statistics, 1, &storage);
	else if (cli.json)
		puts("null");
	if (cli.json)
		puts("}");
	return CLI_OK;
}
