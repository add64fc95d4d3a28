/*
 * stat_delivery.c
 *		What the workers of this database's deliveries do and have done.
 */
#include "lib/sagaz.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "worker/delivery.h"
#include "worker/obstacle.h"
#include "worker/shares.h"
#include "status/event_scan.h"
#include "outbox/cluster.h"
#include "outbox/outbox.h"
#include "lib/rows.h"
#include "wakeup/shared.h"

/* The lag of a group is counted up to so many events. */
#define MAX_LAG 10000

PG_FUNCTION_INFO_V1(sagaz_worker_statistics);
PG_FUNCTION_INFO_V1(sagaz_group_lag);

enum worker_column
{
	worker_name,
	worker_state,
	worker_pid,
	worker_started_at,
	worker_batches,
	worker_delivered,
	worker_failed,
	worker_dead,
	worker_last_delivery,
	worker_archived,
	worker_inbox_removed,
	worker_last_housekeeping,
	worker_last_error,
	worker_last_error_at,
	worker_columns
};

static const char *
state_name(const SagazWorkerSlot *slot)
{
	switch (slot->state)
	{
		case WORKER_NONE:
			if (slot->wait != WAIT_NONE)
				return "waiting for a process";
			if (!slot->wanted)
				return "stopped";
			if (slot->not_before > GetCurrentTimestamp())
				return "backing off";
			return "starting";
		case WORKER_STARTING:
			return "starting";
		case WORKER_IDLE:
			return "idle";
		case WORKER_DELIVERING:
			return "delivering";
		case WORKER_HOUSEKEEPING:
			return "house-keeping";
		case WORKER_BACKING_OFF:
			return "backing off";
	}
	return NULL;
}

static void
set_delivery_time(Datum *values, bool *nulls, int column, TimestampTz time)
{
	values[column] = TimestampTzGetDatum(time);
	nulls[column] = time == 0;
}

/*
 * active: is the outbox?  If not nothing is delivered, and what activate() binds
 * anew is not missing.
 */
static void
put_delivery(ReturnSetInfo *result, const SagazDelivery *delivery,
			 const SagazWorkerSlot *slot, bool active)
{
	const SagazDone *done = &slot->done;
	char	   *obstacle = delivery->paused || !active ? NULL :
		sagaz_delivery_obstacle(delivery);
	char	   *reason = obstacle || delivery->paused ? obstacle :
		sagaz_shares_reason(slot);
	Datum		values[worker_columns];
	bool		nulls[worker_columns] = {false};

	values[worker_name] = CStringGetTextDatum(delivery->name);
	values[worker_state] = CStringGetTextDatum(obstacle ? "halted" : state_name(slot));
	values[worker_pid] = Int32GetDatum(slot->pid);
	nulls[worker_pid] = slot->pid == 0;
	set_delivery_time(values, nulls, worker_started_at,
					  slot->pid == 0 ? 0 : slot->started_at);
	values[worker_batches] = Int64GetDatum(done->batches);
	values[worker_delivered] = Int64GetDatum(done->delivered);
	values[worker_failed] = Int64GetDatum(done->failed);
	values[worker_dead] = Int64GetDatum(done->dead);
	set_delivery_time(values, nulls, worker_last_delivery, done->last_delivery);
	values[worker_archived] = Int64GetDatum(done->archived);
	values[worker_inbox_removed] = Int64GetDatum(done->inbox_removed);
	set_delivery_time(values, nulls, worker_last_housekeeping, done->last_housekeeping);
	values[worker_last_error] = CStringGetTextDatum(reason ? reason : done->last_error);
	nulls[worker_last_error] = reason == NULL && done->last_error[0] == '\0';
	set_delivery_time(values, nulls, worker_last_error_at, done->last_error_at);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* worker_statistics(): a row for each delivery */
Datum
sagaz_worker_statistics(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		active = sagaz_cluster_is_active(GetActiveSnapshot());
	SagazScan  *scan;

	sagaz_rows_begin(fcinfo);
	scan = sagaz_scan_begin("delivery", "delivery_pkey", GetActiveSnapshot(),
							NULL, 0, ForwardScanDirection);
	while (sagaz_scan_next(scan))
	{
		SagazDelivery delivery;
		SagazWorkerSlot slot;

		sagaz_delivery_read(scan->slot, &delivery);
		slot = sagaz_shares_read(delivery.name);
		put_delivery(result, &delivery, &slot, active);
	}
	sagaz_scan_end(scan);
	return (Datum) 0;
}

/* group_lag(consumer_group): how many events are pending or out, since when */
Datum
sagaz_group_lag(PG_FUNCTION_ARGS)
{
	char	   *group = sagaz_text_argument(fcinfo, 0, "consumer_group");
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz oldest = now;
	int64		count = 0;
	SagazStates *states = sagaz_states_open(group, GetActiveSnapshot());
	SagazEventScan *scan = sagaz_scan_by_status(states, status_bit(EVENT_PENDING) |
												status_bit(EVENT_CLAIMED));
	const SagazFoundEvent *event;
	TupleDesc	row_type;
	Datum		values[2];
	bool		nulls[2] = {false};

	if (get_call_result_type(fcinfo, NULL, &row_type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	while (count < MAX_LAG && (event = sagaz_event_scan_next(scan)) != NULL)
	{
		if (event->archived || event->state.next_attempt_at > now)
			continue;
		count++;
		oldest = Min(oldest, DatumGetTimestampTz(sagaz_column(event->slot,
															  outbox_created_at)));
	}
	sagaz_event_scan_end(scan);
	sagaz_states_close(states);
	values[0] = Int64GetDatum(count);
	values[1] = Float8GetDatum((double) (now - oldest) / USECS_PER_SEC);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(row_type),
													  values, nulls)));
}
