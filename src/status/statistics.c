/*
 * statistics.c
 *		get_outbox_statistics(): how many events of a group stand where.
 *
 * What is under way is counted event by event.  What is sent is the rest of
 * the log, unless the group gets only a part of that.  A log or an archive
 * that is too large to be counted in passing is estimated.
 */
#include "lib/sagaz.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "status/event_scan.h"
#include "outbox/outbox.h"
#include "outbox/outstanding.h"

/* A table of more blocks is estimated: 32 MB, a few milliseconds. */
#define COUNTED_BLOCKS 4096

PG_FUNCTION_INFO_V1(sagaz_get_outbox_statistics);

typedef struct Statistics
{
	int64		count[EVENT_STATUSES];
	int64		archived;
	int64		open_batches;
	TimestampTz oldest_pending;
	bool		estimated;
} Statistics;

/* Rows of a table, or what its last ANALYZE or VACUUM makes expect. */
static int64
count_rows(const char *table, Snapshot snapshot, bool *estimated)
{
	Relation	rel = sagaz_relation_open(table, AccessShareLock);
	int64		count = 0;
	BlockNumber pages;
	double		tuples;
	double		visible;

	if (RelationGetNumberOfBlocks(rel) > COUNTED_BLOCKS)
	{
		table_relation_estimate_size(rel, NULL, &pages, &tuples, &visible);
		count = (int64) tuples;
		*estimated = true;
	}
	else
	{
		TupleTableSlot *slot = table_slot_create(rel, NULL);
		TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);

		while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		{
			if (count++ % 1024 == 0)
				CHECK_FOR_INTERRUPTS();
		}
		table_endscan(scan);
		ExecDropSingleTupleTableSlot(slot);
	}
	table_close(rel, AccessShareLock);
	return count;
}

/* Count the group's events in some statuses, one by one; the log's only. */
static void
count_statistics_events(SagazStates *states, int statuses, Statistics *statistics)
{
	SagazEventScan *scan = sagaz_scan_by_status(states, statuses);
	const SagazFoundEvent *event;

	while ((event = sagaz_event_scan_next(scan)) != NULL)
	{
		TimestampTz created_at;

		if (event->archived)
			continue;
		statistics->count[event->state.status]++;
		if (event->state.status != EVENT_PENDING)
			continue;
		created_at = DatumGetTimestampTz(sagaz_column(event->slot,
													  outbox_created_at));
		if (statistics->oldest_pending == 0 ||
			created_at < statistics->oldest_pending)
			statistics->oldest_pending = created_at;
	}
	sagaz_event_scan_end(scan);
}

/* Events that no group reads off the log and that are not the group's. */
static int64
count_statistics_adopted(SagazStates *states)
{
	ScanKeyData key;
	SagazScan  *scan;
	int64		count = 0;

	sagaz_key_xid8(&key, 1, BTLessStrategyNumber, SAGAZ_FIRST_POS);
	scan = sagaz_scan_begin("outbox", "outbox_pos_seq", states->snapshot,
							&key, 1, ForwardScanDirection);
	while (sagaz_scan_next(scan))
	{
		CHECK_FOR_INTERRUPTS();
		if (sagaz_states_retry_row(states,
								   DatumGetInt64(sagaz_column(scan->slot,
															  outbox_seq))) == NULL)
			count++;
	}
	sagaz_scan_end(scan);
	return count;
}

/* Does the group never get the oldest event of a lane? */
static bool
passes_over_oldest(SagazStates *states, int16 lane)
{
	ScanKeyData key;
	SagazScan  *scan;
	SagazEventState state;
	bool		passed = false;

	sagaz_key_int2(&key, 1, BTEqualStrategyNumber, lane);
	scan = sagaz_scan_begin("outbox", "outbox_lane_seq", states->snapshot,
							&key, 1, ForwardScanDirection);
	if (sagaz_scan_next(scan))
	{
		sagaz_state_of(states, scan->slot, &state);
		passed = state.status == EVENT_NONE;
	}
	sagaz_scan_end(scan);
	return passed;
}

/*
 * Did the group begin with less than the whole log?  If it began at the end
 * of the log, its first row says so until retention removes that; then the
 * oldest events tell.
 */
static bool
gets_a_part(SagazStates *states)
{
	if (!states->has_group)
		return false;
	if (states->group.start_time != 0)
		return true;
	for (int16 lane = 0; lane < SAGAZ_LANES; lane++)
	{
		TupleTableSlot *first = sagaz_states_batch_from(states, lane, 0);

		if (first &&
			DatumGetInt64(sagaz_column(first, batch_last_seq)) == PG_INT64_MAX)
			return true;
		if (passes_over_oldest(states, lane))
			return true;
	}
	return false;
}

static void
count_statistics_sent(SagazStates *states, Statistics *statistics)
{
	int64		rest;

	if (gets_a_part(states))
	{
		count_statistics_events(states, status_bit(EVENT_SENT), statistics);
		return;
	}
	rest = count_rows("outbox", states->snapshot, &statistics->estimated) -
		count_statistics_adopted(states);
	for (int status = 0; status < EVENT_STATUSES; status++)
		rest -= statistics->count[status];
	statistics->count[EVENT_SENT] = Max(rest, 0);
}

static Interval *
age_of(TimestampTz then)
{
	Interval   *age = palloc0(sizeof(Interval));

	age->time = Max(GetCurrentTimestamp() - then, 0);
	return age;
}

static void
gather_statistics(SagazStates *states, Statistics *statistics)
{
	count_statistics_events(states, ALL_STATUSES & ~status_bit(EVENT_SENT), statistics);
	count_statistics_sent(states, statistics);
	statistics->open_batches = !states->has_group ? 0 :
		list_length(sagaz_outstanding_in(&states->group, NULL, states->snapshot));
	statistics->archived = count_rows("outbox_archive", states->snapshot,
									  &statistics->estimated);
}

/* get_outbox_statistics(consumer_group, storage): one row */
Datum
sagaz_get_outbox_statistics(PG_FUNCTION_ARGS)
{
	char	   *group = sagaz_group_argument(fcinfo, 0, SAGAZ_DEFAULT_GROUP);
	SagazStates *states;
	Statistics	statistics = {0};
	TupleDesc	row_type;
	Datum		values[12];
	bool		nulls[12] = {false};
	int			column = 0;
	int64		total = 0;

	if (get_call_result_type(fcinfo, NULL, &row_type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	states = sagaz_states_open_shown(group, GetActiveSnapshot());
	gather_statistics(states, &statistics);
	for (int status = 0; status < EVENT_STATUSES; status++)
		total += statistics.count[status];

	values[column++] = CStringGetTextDatum(states->group.name);
	values[column++] = Int64GetDatum(total);
	for (int status = 0; status < EVENT_STATUSES; status++)
		values[column++] = Int64GetDatum(statistics.count[status]);
	values[column++] = Int64GetDatum(statistics.archived);
	nulls[column] = statistics.oldest_pending == 0;
	values[column++] = PointerGetDatum(age_of(statistics.oldest_pending));
	values[column++] = Int64GetDatum(statistics.open_batches);
	values[column++] = BoolGetDatum(states->group.paused);
	values[column++] = BoolGetDatum(statistics.estimated);
	sagaz_states_close(states);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(row_type),
													  values, nulls)));
}
