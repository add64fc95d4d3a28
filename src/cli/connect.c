/*
 * connect.c
 *		Connections, made as psql makes them.
 */
#include "cli.h"

#include "common/connect.h"
#include "common/string.h"

/* Typed by the user once, for all connections of the program. */
static char *typed_password;

static PGconn *first_connection;

static void
close_connect_at_exit(void)
{
	PQfinish(first_connection);
}

/* One attempt; what is not given is libpq's to find out.  JSON is UTF-8. */
static PGconn *
attempt(void)
{
	const char *encoding = cli.json ? "UTF8" : getenv("PGCLIENTENCODING") ? NULL : "auto";
	const char *const keywords[] = {"host", "port", "user", "password", "dbname",
	"fallback_application_name", "client_encoding", NULL};
	const char *const values[] = {cli.host, cli.port, cli.user, typed_password,
		cli.dbname, "sagaz", encoding, NULL};

	return PQconnectdbParams(keywords, values, true);
}

static void
ask_password(PGconn *failed)
{
	const char *user = failed ? PQuser(failed) : cli.user;
	char		prompt[256] = "Password: ";

	if (user != NULL)
		snprintf(prompt, sizeof(prompt), "Password for user %s: ", user);
	typed_password = simple_prompt(prompt, false);
}

static PGconn *
connect_and_prepare(void)
{
	PGconn	   *conn = attempt();

	if (PQstatus(conn) == CONNECTION_OK)
	{
		PQsetNoticeProcessor(conn, cli_notice, NULL);
		PQclear(PQexec(conn, ALWAYS_SECURE_SEARCH_PATH_SQL));
	}
	return conn;
}

/* The first connection of the program; without one the program ends. */
PGconn *
cli_connect(void)
{
	PGconn	   *conn;

	if (cli.prompt)
		ask_password(NULL);
	conn = connect_and_prepare();
	if (PQstatus(conn) == CONNECTION_BAD && PQconnectionNeedsPassword(conn) &&
		typed_password == NULL && !cli.never_prompt)
	{
		ask_password(conn);
		PQfinish(conn);
		conn = connect_and_prepare();
	}
	if (PQstatus(conn) == CONNECTION_BAD)
		cli_fail(CLI_NO_CONNECTION, "%s", PQerrorMessage(conn));
	first_connection = conn;
	atexit(close_connect_at_exit);
	cli.encoding = PQclientEncoding(conn);
	cli_catch_signals();
	return conn;
}

/* A further one, to look at what the first does; NULL if there is none to have. */
PGconn *
cli_connect_again(void)
{
	PGconn	   *conn = connect_and_prepare();

	if (PQstatus(conn) == CONNECTION_OK)
		return conn;
	cli_warn("a second connection failed, so the progress cannot be seen: %s",
			 PQerrorMessage(conn));
	PQfinish(conn);
	return NULL;
}
