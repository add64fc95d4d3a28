/*
 * socket_wait.c
 *		Waiting for a socket of a foreign library, with a deadline.
 */
#include "backend.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

TimestampTz
sagaz_deadline(int ms)
{
	return GetCurrentTimestamp() + ms * INT64CONST(1000);
}

/*
 * Wait for one of these WL_SOCKET_ events; returns which, 0 when the time is
 * over.  A cancel is raised as an error.
 */
int
sagaz_wait_for_socket(int socket, int events, TimestampTz deadline)
{
	for (;;)
	{
		long		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
														 deadline);
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
