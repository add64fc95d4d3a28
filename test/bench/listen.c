/*
 * listen.c
 *		The usual client of an outbox: sleeps until a notification comes, then
 *		runs one statement until that says it did nothing.
 *
 *		listen CHANNEL STATEMENT	until it is killed; says "ready" first
 *		listen - STATEMENT			once, without listening
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

static void
fail(PGconn *conn, const char *what)
{
	fprintf(stderr, "listen: %s: %s", what, PQerrorMessage(conn));
	exit(1);
}

static PGconn *
open_connection(void)
{
	PGconn	   *conn = PQconnectdb("");

	if (PQstatus(conn) != CONNECTION_OK)
		fail(conn, "could not connect");
	return conn;
}

static void
run(PGconn *conn, const char *command)
{
	PGresult   *result = PQexec(conn, command);

	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		fail(conn, command);
	PQclear(result);
}

/* The statement returns how much it did. */
static void
work(PGconn *conn)
{
	int			did;

	do
	{
		PGresult   *result = PQexecPrepared(conn, "work", 0, NULL, NULL, NULL, 0);

		if (PQresultStatus(result) != PGRES_TUPLES_OK)
			fail(conn, "the statement failed");
		did = atoi(PQgetvalue(result, 0, 0));
		PQclear(result);
	} while (did > 0);
}

static void
sleep_until_notified(PGconn *conn)
{
	struct pollfd ready = {.fd = PQsocket(conn),.events = POLLIN};
	PGnotify   *notify;
	int			count = 0;

	while (count == 0)
	{
		while ((notify = PQnotifies(conn)) != NULL)
		{
			PQfreemem(notify);
			count++;
		}
		if (count == 0 && (poll(&ready, 1, -1) < 0 || !PQconsumeInput(conn)))
			fail(conn, "could not wait");
	}
}

int
main(int argc, char **argv)
{
	PGconn	   *conn = open_connection();
	char		command[100];

	if (argc != 3)
		return 2;
	PQclear(PQprepare(conn, "work", argv[2], 0, NULL));
	if (strcmp(argv[1], "-") != 0)
	{
		snprintf(command, sizeof(command), "LISTEN %s", argv[1]);
		run(conn, command);
		printf("ready\n");
		fflush(stdout);
	}
	work(conn);
	while (strcmp(argv[1], "-") != 0)
	{
		sleep_until_notified(conn);
		work(conn);
	}
	PQfinish(conn);
	return 0;
}
