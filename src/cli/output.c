/*
 * output.c
 *		Tables as psql prints them, and JSON.
 */
#include "cli.h"

#include "fe_utils/print.h"

void
cli_print(const PGresult *result, const char *title, bool expanded)
{
	printQueryOpt options = {
		.topt = {
			.format = PRINT_ALIGNED,
			.expanded = expanded,
			.border = 1,
			.start_table = true,
			.stop_table = true,
			.default_footer = true,
			.encoding = cli.encoding
		},
		.nullPrint = "",
		.title = unconstify(char *, title)
	};

	printQuery(result, &options, stdout, false, NULL);
}

/* Send a question with its rows wrapped to one JSON value, and print that. */
static void
show_json(PGconn *conn, const char *form, const char *sql, int nvalues,
		  const char *const *values)
{
	char	   *wrapped = psprintf(form, sql);
	PGresult   *result = cli_query(conn, wrapped, nvalues, values);

	puts(PQntuples(result) ? PQgetvalue(result, 0, 0) : "null");
	PQclear(result);
	pg_free(wrapped);
}

/* Print the rows of a SELECT: a table, or an array of objects. */
void
cli_show(PGconn *conn, const char *sql, int nvalues, const char *const *values)
{
	PGresult   *result;

	if (cli.json)
	{
		show_json(conn, "SELECT coalesce(json_agg(r), '[]') FROM (%s) AS r",
				  sql, nvalues, values);
		return;
	}
	result = cli_query(conn, sql, nvalues, values);
	cli_print(result, NULL, false);
	PQclear(result);
}

/* Print the one row of a SELECT: a value or several, or an object. */
void
cli_show_one(PGconn *conn, const char *sql, int nvalues,
			 const char *const *values)
{
	PGresult   *result;

	if (cli.json)
	{
		show_json(conn, "SELECT row_to_json(r) FROM (%s) AS r", sql, nvalues, values);
		return;
	}
	result = cli_query(conn, sql, nvalues, values);
	cli_print(result, NULL, false);
	PQclear(result);
}

/* Say what was done to things of this name; JSON is an array. */
void
cli_done(const char *what, int n, char **names, const char *done)
{
	for (int i = 0; i < n; i++)
	{
		if (cli.json)
		{
			printf("%s{\"%s\": ", i == 0 ? "[" : ", ", what);
			cli_print_json(names[i]);
			printf(", \"result\": \"%s\"}", done);
		}
		else if (!cli.quiet)
			printf("%s \"%s\" %s\n", what, names[i], done);
	}
	if (cli.json)
		puts("]");
}
