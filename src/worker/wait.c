/*
 * wait.c
 *		CALL wait_for_events(): sleep until there is something to claim.
 *
 * A sleeper must not hold back vacuum, so it sleeps in a transaction that has
 * neither a snapshot nor an xid: each look is followed by a commit.  It
 * announces itself before it looks, so that no commit is missed in between.
 */
#include "lib/sagaz.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "outbox/peek.h"
#include "wakeup/wake.h"

PG_FUNCTION_INFO_V1(sagaz_wait_for_events);

/* A commit inside is possible at the top level only. */
static void
check_wait_context(FunctionCallInfo fcinfo)
{
	CallContext *context = (CallContext *) fcinfo->context;

	if (context == NULL || !IsA(context, CallContext) || context->atomic ||
		IsSubTransaction())
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_TRANSACTION),
				 errmsg("wait_for_events() cannot run inside a transaction block"),
				 errhint("Say CALL %s.wait_for_events(…) by itself: not between BEGIN and COMMIT, and not in a function.",
						 SAGAZ_SCHEMA)));
	PreventCommandDuringRecovery("wait_for_events()");
}

/* How long to sleep, in milliseconds, at most until "until". */
static long
wait_time(TimestampTz now, TimestampTz until)
{
	TimestampTz net = now + (int64) sagaz_poll_interval * 1000;

	return TimestampDifferenceMilliseconds(now, Min(until, net));
}

/* Look and sleep by turns; false at the timeout. */
static bool
wait_until(const char *group, TimestampTz until)
{
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext,
											   "sagaz wait",
											   ALLOCSET_DEFAULT_SIZES);
	bool		available;

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz next;
		MemoryContext outer = MemoryContextSwitchTo(work);

		sagaz_wake_prepare();
		available = sagaz_peek(group, now, &next);
		MemoryContextSwitchTo(outer);
		MemoryContextReset(work);
		SPI_commit();
		if (available || now >= until)
			return available;
		(void) sagaz_wake_sleep(wait_time(now, Min(next, until)));
	}
}

static Datum
make_wait_result(FunctionCallInfo fcinfo, bool available)
{
	TupleDesc	row_type;
	Datum		values[] = {BoolGetDatum(available)};
	bool		nulls[] = {false};

	if (get_call_result_type(fcinfo, NULL, &row_type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "procedure must return a row");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(row_type),
											 values, nulls));
}

/* wait_for_events(timeout, consumer_group, INOUT available) */
Datum
sagaz_wait_for_events(PG_FUNCTION_ARGS)
{
	int64		timeout = sagaz_interval_argument(fcinfo, 0, "timeout");
	TimestampTz until = GetCurrentTimestamp() + timeout;
	MemoryContext caller = CurrentMemoryContext;
	char	   *group;
	bool		available = false;

	check_wait_context(fcinfo);
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	group = sagaz_text_argument(fcinfo, 1, "consumer_group");
	PG_TRY();
	{
		available = wait_until(group, until);
	}
	PG_FINALLY();
	{
		sagaz_wake_end();
	}
	PG_END_TRY();
	SPI_finish();
	MemoryContextSwitchTo(caller);
	return make_wait_result(fcinfo, available);
}
