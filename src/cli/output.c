/*
 * output.c
 *		Tables as psql prints them, JSON, and messages.
 */
#include "cli.h"

#include "common/string.h"
#include "fe_utils/print.h"

void
cli_warn(const char *format,...)
{
	va_list		args;
	char		text[1024];

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	(void) pg_strip_crlf(text);
	cli_progress_clear();
	fprintf(stderr, "sagaz: warning: %s\n", text);
}

/* What the server has to say beside results. */
void
cli_notice(void *unused, const char *message)
{
	cli_progress_clear();
	fputs(message, stderr);
}

/* A JSON string, or null. */
static void
print_json_text(const char *text)
{
	if (text == NULL)
	{
		fputs("null", stdout);
		return;
	}
	putchar('"');
	for (const unsigned char *c = (const unsigned char *) text; *c; c++)
	{
		if (*c == '"' || *c == '\\')
			printf("\\%c", *c);
		else if (*c < 0x20)
			printf("\\u%04x", *c);
		else
			putchar(*c);
	}
	putchar('"');
}

/* What the program itself has found wrong; ends it. */
void
cli_fail(int status, const char *format,...)
{
	va_list		args;
	char		text[4096];

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	(void) pg_strip_crlf(text);
	cli_progress_clear();
	fprintf(stderr, "sagaz: error: %s\n", text);
	if (cli.json)
	{
		fputs("{\"error\": ", stdout);
		print_json_text(text);
		puts("}");
	}
	exit(status);
}

static const char *
error_text(const PGresult *result, PGconn *conn)
{
	const char *message = result ? PQresultErrorMessage(result) : "";

	return message[0] ? message : PQerrorMessage(conn);
}

/* An error of the server, or of the connection to it, as psql shows it. */
void
cli_server_error(const PGresult *result, PGconn *conn)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	cli_progress_clear();
	fputs(error_text(result, conn), stderr);
	if (sqlstate != NULL && strcmp(sqlstate, "3F000") == 0)
		fprintf(stderr, "HINT:  Name the database that has the extension with -d, or say CREATE EXTENSION sagaz in \"%s\".\n",
				PQdb(conn));
}

/* The same as a document; "error" is the message, as of a transfer's document. */
void
cli_json_error(const PGresult *result, PGconn *conn)
{
	static const struct
	{
		const char *name;
		int			code;
	}			fields[] = {
		{"error", PG_DIAG_MESSAGE_PRIMARY}, {"sqlstate", PG_DIAG_SQLSTATE},
		{"detail", PG_DIAG_MESSAGE_DETAIL}, {"hint", PG_DIAG_MESSAGE_HINT}
	};

	for (int i = 0; i < (int) lengthof(fields); i++)
	{
		const char *value = PQresultErrorField(result, fields[i].code);

		printf("%s\"%s\": ", i == 0 ? "{" : ", ", fields[i].name);
		print_json_text(i == 0 && value == NULL ? error_text(result, conn) : value);
	}
	puts("}");
}

/* Text from the server, with control characters made harmless as psql does. */
void
cli_print_safely(FILE *to, const char *text)
{
	for (const unsigned char *c = (const unsigned char *) text; *c; c++)
	{
		if (*c < 0x20 || *c == 0x7F)
			fprintf(to, "\\x%02X", *c);
		else
			putc(*c, to);
	}
}

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
	PGresult   *result = cli_ask(conn, wrapped, nvalues, values);

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
	result = cli_ask(conn, sql, nvalues, values);
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
	result = cli_ask(conn, sql, nvalues, values);
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
			print_json_text(names[i]);
			printf(", \"result\": \"%s\"}", done);
		}
		else if (!cli.quiet)
			printf("%s \"%s\" %s\n", what, names[i], done);
	}
	if (cli.json)
		puts("]");
}
