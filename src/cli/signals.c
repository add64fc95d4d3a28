/*
 * signals.c
 *		Ctrl-C.  The handler only writes a byte into a pipe, which the loops
 *		that wait for the server watch as well.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

static int	wakeup[2] = {-1, -1};
static volatile sig_atomic_t signals;

static void
on_signal(int signo)
{
	int			saved_errno = errno;

	signals++;
	/* if the pipe is full, a byte to read is there already */
	if (write(wakeup[1], "", 1) < 0)
		errno = saved_errno;
	errno = saved_errno;
}

/* From now on a signal does not end the program. */
void
cli_catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal};

	if (pipe(wakeup) < 0)
		cli_fail(CLI_FAILED, "could not make a pipe: %s", strerror(errno));
	for (int i = 0; i < 2; i++)
	{
		(void) fcntl(wakeup[i], F_SETFL, O_NONBLOCK);
		(void) fcntl(wakeup[i], F_SETFD, FD_CLOEXEC);
	}
	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
}

/* To be polled for reading; readable when a signal has come. */
int
cli_signal_socket(void)
{
	return wakeup[0];
}

/* How many signals have come since the program began. */
int
cli_signal_interrupts(void)
{
	char		bytes[16];

	while (read(wakeup[0], bytes, sizeof(bytes)) > 0)
		;
	return signals;
}

/* Ask the server to give up what it does for this connection. */
void
cli_signal_cancel(PGconn *conn)
{
	char		error[256];
	PGcancel   *cancel = PQgetCancel(conn);

	if (cancel == NULL)
		return;
	if (!PQcancel(cancel, error, sizeof(error)))
		cli_warn("%s", error);
	PQfreeCancel(cancel);
}
