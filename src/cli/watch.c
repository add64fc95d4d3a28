/*
 * watch.c
 *		Waiting for a CALL that runs for long, while a second connection looks
 *		how far it is and, after Ctrl-C, tells it to stop.
 *
 * The transfer's id is not known before its row can be seen, which is found by
 * the process that works on it.  Both connections and signals are waited for
 * at once, so neither a server that is busy nor a slow look makes the program
 * deaf.  Where there is no second connection, Ctrl-C cancels the statement.
 */
#include "cli.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

#include "watch.h"

/* Milliseconds between two looks while something is waited for urgently. */
#define SOON 50

typedef enum
{
	WATCHER_IDLE, WATCHER_LOOKS, WATCHER_STOPS
} WatcherState;

typedef struct CliWatch
{
	PGconn	   *conn;			/* runs the statement */
	PGconn	   *watcher;		/* or NULL */
	CliCall    *call;
	WatcherState state;
	int64		next_look;
	int			signals;		/* those answered */
	bool		must_stop;		/* the server is to be told */
	bool		told;
	bool		cancelled;
} CliWatch;

static int64
milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Without it the transfer goes on, only nobody looks. */
static void
lose_watcher(CliWatch *watch)
{
	cli_warn("the progress can be seen no longer: %s", PQerrorMessage(watch->watcher));
	PQfinish(watch->watcher);
	watch->watcher = NULL;
	watch->state = WATCHER_IDLE;
}

static void
cancel_statement(CliWatch *watch)
{
	if (watch->cancelled)
		return;
	watch->cancelled = true;
	cli_signal_cancel(watch->conn);
}

static void
answer_signals(CliWatch *watch)
{
	int			signals = cli_signal_interrupts();

	if (signals == watch->signals)
		return;
	if (watch->signals > 0 || signals > 1 || watch->watcher == NULL)
		cancel_statement(watch);
	else
	{
		cli_progress_clear();
		fputs("stopping after the present batch; once more to stop at once\n", stderr);
		watch->must_stop = true;
		watch->next_look = 0;
	}
	watch->signals = signals;
}

/* Give the idle watcher what is to be done now, if anything. */
static void
employ_watcher(CliWatch *watch)
{
	const char *value = watch->call->transfer_id ? watch->call->transfer_id : watch->call->pid;
	const char *sql;

	if (watch->watcher == NULL || watch->state != WATCHER_IDLE)
		return;
	if (watch->must_stop && !watch->told && watch->call->transfer_id != NULL)
	{
		watch->state = WATCHER_STOPS;
		sql = "SELECT sagaz.cancel_transfer($1::bigint)";
	}
	else if (milliseconds() < watch->next_look)
		return;
	else
	{
		watch->state = WATCHER_LOOKS;
		sql = watch->call->transfer_id
			? "SELECT " WATCH_COLUMNS " FROM sagaz.transfers WHERE transfer_id = $1::bigint"
			: "SELECT " WATCH_COLUMNS " FROM sagaz.transfers WHERE pid = $1::integer"
			" AND state = 'running' ORDER BY transfer_id DESC LIMIT 1";
	}
	if (!PQsendQueryParams(watch->watcher, sql, 1, NULL, &value, NULL, NULL, 0))
		lose_watcher(watch);
}

/* A look has come back. */
static void
looked(CliWatch *watch, const PGresult *row)
{
	bool		found = PQntuples(row) > 0;

	if (found && watch->call->transfer_id == NULL)
		watch->call->transfer_id = pg_strdup(PQgetvalue(row, 0, WATCH_ID));
	if (found && !watch->must_stop &&
		strcmp(PQgetvalue(row, 0, WATCH_STATE), "running") == 0)
		cli_progress_show(row);
	watch->next_look = milliseconds() +
		(found ? cli_progress_interval() : Min(SOON, cli_progress_interval()));
}

/* The watcher has answered. */
static void
hear_watcher(CliWatch *watch)
{
	PGresult   *result;

	if (!PQconsumeInput(watch->watcher))
	{
		lose_watcher(watch);
		return;
	}
	if (PQisBusy(watch->watcher))
		return;
	result = PQgetResult(watch->watcher);
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		PQclear(result);
		lose_watcher(watch);
		if (watch->must_stop)
			cancel_statement(watch);
		return;
	}
	if (watch->state == WATCHER_LOOKS)
		looked(watch, result);
	else
		watch->told = true;
	PQclear(result);
	while ((result = PQgetResult(watch->watcher)) != NULL)
		PQclear(result);
	watch->state = WATCHER_IDLE;
}

/* How long to sleep where neither connection nor a signal has news. */
static int
time_to_sleep(const CliWatch *watch)
{
	int64		left = watch->next_look - milliseconds();

	if (watch->watcher == NULL || watch->state != WATCHER_IDLE)
		return -1;
	return (int) Max(0, Min(left, 3600 * 1000));
}

static void
wait_for_news(CliWatch *watch)
{
	struct pollfd fds[3] = {
		{.fd = cli_signal_socket(), .events = POLLIN},
		{.fd = PQsocket(watch->conn), .events = POLLIN},
		{.fd = -1, .events = POLLIN}
	};

	if (watch->state != WATCHER_IDLE)
		fds[2].fd = PQsocket(watch->watcher);
	if (poll(fds, 3, time_to_sleep(watch)) < 0 && errno != EINTR)
		cli_fail(CLI_FAILED, "poll failed: %s", strerror(errno));
	if (fds[2].revents)
		hear_watcher(watch);
}

/*
 * Run a CALL of a transfer to its end and return its result, NULL if the
 * connection broke; fills call->transfer_id, if it was to be seen, and stopped.
 */
PGresult *
cli_watch_call(PGconn *conn, CliCall *call)
{
	CliWatch	watch = {.conn = conn, .call = call};

	watch.watcher = cli_connect_again();
	cli_progress_begin();
	if (PQsendQueryParams(conn, call->sql, call->nvalues, NULL, call->values,
						  NULL, NULL, 0))
	{
		do
		{
			answer_signals(&watch);
			employ_watcher(&watch);
			wait_for_news(&watch);
		} while (PQconsumeInput(conn) && PQisBusy(conn));
	}
	cli_progress_clear();
	PQfinish(watch.watcher);
	call->stopped = watch.must_stop || watch.cancelled;
	return cli_query_collect(conn);
}
