/*
 * socket_wait.c
 *		Waiting for a socket of a foreign library, with a deadline.
 */
#include "backends/common/backend.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* Work that can be done while a server does its own. */
static void (*meanwhile) (void *arg);
static void *meanwhile_arg;
/* Time that was not spent waiting for the one who waits, in microseconds. */
static int64 time_elsewhere;

/* A clock that stands still during work done meanwhile. */
static TimestampTz
waiting_clock(void)
{
	return GetCurrentTimestamp() - time_elsewhere;
}

/* What counts is the time of waiting alone. */
TimestampTz
sagaz_wait_deadline(int ms)
{
	return waiting_clock() + ms * INT64CONST(1000);
}

/*
 * Have something done when a server has been sent all that it is to work on:
 * once, at the next such wait, and not at all if there is none.  An error in
 * it is raised where one waits.  NULL takes it back.
 */
void
sagaz_do_while_waiting(void (*work) (void *arg), void *arg)
{
	meanwhile = work;
	meanwhile_arg = arg;
}

static void
work_while_waiting(void)
{
	void		(*work) (void *arg) = meanwhile;
	TimestampTz start = GetCurrentTimestamp();
	MemoryContext outer = CurrentMemoryContext;

	meanwhile = NULL;
	work(meanwhile_arg);
	MemoryContextSwitchTo(outer);
	time_elsewhere += GetCurrentTimestamp() - start;
}

/*
 * Wait for one of these WL_SOCKET_ events; returns which, 0 when the time is
 * over.  A cancel is raised as an error.
 */
int
sagaz_wait_for_socket(int socket, int events, TimestampTz deadline)
{
	if (meanwhile && events == WL_SOCKET_READABLE)
		work_while_waiting();
	for (;;)
	{
		long		ms = TimestampDifferenceMilliseconds(waiting_clock(), deadline);
		int			got;

		if (ms <= 0)
			return 0;
		got = WaitLatchOrSocket(MyLatch,
								WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH | events,
								socket, ms, PG_WAIT_EXTENSION);
		if (got & WL_LATCH_SET)
			ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (got & events)
			return got;
	}
}
