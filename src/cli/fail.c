/*
 * fail.c
 *		What goes wrong: warnings, errors and the end of the program.
 */
#include "cli.h"

#include "common/string.h"

/* What --help is about, and where to look after a mistake. */
static const CliCommand *this_command;
static const char *this_group;

/*
 * To the standard error; the command goes on.  The format's arguments may be
 * the server's text.
 */
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
	fputs("sagaz: warning: ", stderr);
	cli_print_message(stderr, text);
	putc('\n', stderr);
}

/* What the server has to say beside results. */
void
cli_notice(void *unused, const char *message)
{
	cli_progress_clear();
	cli_print_message(stderr, message);
}

/* A JSON string, or null. */
void
cli_print_json(const char *text)
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
		else if (*c < 0x20 || *c == 0x7F)
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
	fputs("sagaz: error: ", stderr);
	cli_print_message(stderr, text);
	putc('\n', stderr);
	if (cli.json)
	{
		fputs("{\"error\": ", stdout);
		cli_print_json(text);
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
	cli_print_message(stderr, error_text(result, conn));
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
		cli_print_json(i == 0 && value == NULL ? error_text(result, conn) : value);
	}
	puts("}");
}

/* From now on mistakes are about this command, or group; both may be NULL. */
void
cli_usage_of(const CliCommand *command, const char *group)
{
	this_command = command;
	this_group = group;
}

/* Say what is wrong, unless getopt_long has done so, and end. */
void
cli_usage_error(const char *format,...)
{
	va_list		args;

	if (format != NULL)
	{
		fputs("sagaz: ", stderr);
		va_start(args, format);
		vfprintf(stderr, format, args);
		va_end(args);
		putc('\n', stderr);
	}
	fprintf(stderr, "Try \"sagaz%s%s%s%s --help\" for more information.\n",
			this_group ? " " : "", this_group ? this_group : "",
			this_command ? " " : "", this_command ? this_command->name : "");
	exit(CLI_USAGE);
}
