/*
 * group_admin.c
 *		Making, dropping, pausing and resuming consumer groups.
 *
 * Each change is made under the groups' lock.  A drop takes the locks of all
 * the group's lanes, too: no claim is under way then, and one that waited
 * finds the group gone.  Nor does it run beside retention, which removes rows
 * of all groups.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "outbox/cursor.h"
#include "worker/delivery.h"
#include "outbox/group.h"
#include "outbox/locks.h"
#include "outbox/outstanding.h"
#include "outbox/place_number.h"
#include "lib/times.h"
#include "lib/tuples.h"
#include "wakeup/wake.h"

PG_FUNCTION_INFO_V1(sagaz_create_consumer_group);
PG_FUNCTION_INFO_V1(sagaz_drop_consumer_group);
PG_FUNCTION_INFO_V1(sagaz_pause_consumer_group);
PG_FUNCTION_INFO_V1(sagaz_resume_consumer_group);

/* start_from: "beginning", "now", or a time, which is returned; else 0. */
static TimestampTz
read_group_start(const char *start_from)
{
	TimestampTz time;

	if (strcmp(start_from, "beginning") == 0 || strcmp(start_from, "now") == 0)
		return 0;
	if (!sagaz_parse_time(start_from, strlen(start_from), &time))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("start_from \"%s\" is not a time", start_from),
				 errhint("Say 'beginning', 'now', or a time like 2026-01-31T12:00:00Z; without an offset it is UTC.")));
	return time;
}

static void
lock_group_lanes(const SagazGroup *group)
{
	for (int16 lane = 0; lane < SAGAZ_LANES; lane++)
		(void) sagaz_lock_lane(group->no, lane, true);
}

/* create_consumer_group(name, ordering, start_from) */
Datum
sagaz_create_consumer_group(PG_FUNCTION_ARGS)
{
	char	   *name = sagaz_text_argument(fcinfo, 0, "name");
	char	   *ordering = sagaz_text_argument(fcinfo, 1, "ordering");
	char	   *start_from = sagaz_text_argument(fcinfo, 2, "start_from");
	TimestampTz start_time = read_group_start(start_from);
	SagazGroup	group;

	if (strcmp(ordering, "none") != 0 && strcmp(ordering, "saga") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("ordering \"%s\" is unknown", ordering),
				 errhint("Say 'none' or 'saga'.")));
	PreventCommandIfReadOnly("create_consumer_group()");
	if (!sagaz_group_make(name, ordering, start_time, &group))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("consumer group \"%s\" exists already", name)));
	if (strcmp(start_from, "now") == 0)
	{
		/* an event whose transaction is still running is ahead of it */
		lock_group_lanes(&group);
		sagaz_cursor_skip_to_now(group.no);
	}
	PG_RETURN_VOID();
}

/*
 * A group with a batch out is not dropped: its worker would go on, and have
 * nobody to report to.  A lease that ran out counts no more.
 */
static void
check_group_nothing_out(const SagazGroup *group)
{
	int			open = 0;
	int64		last = 0;
	ListCell   *cell;

	foreach(cell, sagaz_outstanding_batches(group, NULL))
	{
		SagazOutstanding *batch = lfirst(cell);

		if (!sagaz_outstanding_lock(batch) ||
			batch->lease_end <= GetCurrentTimestamp())
			continue;
		open++;
		last = batch->batch_id;
	}
	if (open > 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CONCURRENCY),
				 errmsg("consumer group \"%s\" has batches in the hands of workers",
						group->name),
				 errdetail_plural("There is %d, number " INT64_FORMAT ".",
								  "There are %d, the newest is number " INT64_FORMAT ".",
								  open, open, last),
				 errhint("Pause the group, and have its batches finished or released, or release them with %s.release_stuck_events().",
						 SAGAZ_SCHEMA)));
}

/* A delivery that reads the group would fail for ever. */
static void
check_group_no_delivery(const SagazGroup *group)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SagazScan  *scan = sagaz_scan_begin("delivery", "delivery_pkey", snapshot,
										NULL, 0, ForwardScanDirection);

	while (sagaz_scan_next(scan))
	{
		SagazDelivery delivery;

		sagaz_delivery_read(scan->slot, &delivery);
		if (strcmp(delivery.consumer_group, group->name) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("delivery \"%s\" reads consumer group \"%s\"",
							delivery.name, group->name),
					 errhint("Drop it first with SELECT %s.drop_delivery(%s).",
							 SAGAZ_SCHEMA, quote_literal_cstr(delivery.name))));
	}
	sagaz_scan_end(scan);
	UnregisterSnapshot(snapshot);
}

static void
delete_group_rows(const char *query, int16 group_no)
{
	Oid			types[] = {INT2OID};
	Datum		values[] = {Int16GetDatum(group_no)};

	if (SPI_execute_with_args(query, 1, types, values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete the rows of a consumer group");
}

/* drop_consumer_group(name): also its progress, retries and dead letters */
Datum
sagaz_drop_consumer_group(PG_FUNCTION_ARGS)
{
	char	   *name = sagaz_text_argument(fcinfo, 0, "name");
	SagazGroup	group;

	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_TRANSACTION),
				 errmsg("drop_consumer_group() works in READ COMMITTED transactions only"),
				 errhint("Begin the transaction with ISOLATION LEVEL READ COMMITTED.")));
	PreventCommandIfReadOnly("drop_consumer_group()");
	(void) sagaz_lock_retention(true);
	sagaz_lock_groups();
	sagaz_group_get(name, &group);
	check_group_no_delivery(&group);
	lock_group_lanes(&group);
	check_group_nothing_out(&group);
	SPI_connect();
	delete_group_rows("DELETE FROM sagaz.outbox_receipt"
					  " WHERE batch_id & 1023 = $1", group.no);
	delete_group_rows("DELETE FROM sagaz.outbox_batch WHERE group_no = $1", group.no);
	delete_group_rows("DELETE FROM sagaz.outbox_retry WHERE group_no = $1", group.no);
	delete_group_rows("DELETE FROM sagaz.consumer_group WHERE group_no = $1", group.no);
	SPI_finish();
	PG_RETURN_VOID();
}

/* Write the time from which the group is paused, 0 for none. */
static void
write_group_paused(const SagazGroup *group, TimestampTz paused_at)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SagazWriter *writer = sagaz_writer_begin("consumer_group");
	ScanKeyData key;
	SagazScan  *scan;

	sagaz_key_int2(&key, 1, BTEqualStrategyNumber, group->no);
	scan = sagaz_scan_begin("consumer_group", "consumer_group_pkey", snapshot,
							&key, 1, ForwardScanDirection);
	if (!sagaz_scan_next(scan))
		elog(ERROR, "consumer group %d went away", group->no);
	sagaz_writer_copy(writer, scan->slot);
	if (paused_at != 0)
		sagaz_writer_set(writer, group_paused_at,
						 TimestampTzGetDatum(paused_at));
	else
		sagaz_writer_clear(writer, group_paused_at);
	sagaz_writer_update(writer, scan->slot, snapshot);
	sagaz_scan_end(scan);
	sagaz_writer_end(writer);
	UnregisterSnapshot(snapshot);
	CommandCounterIncrement();
}

/* To say twice what is so already changes nothing. */
static void
set_group_paused(FunctionCallInfo fcinfo, bool paused, const char *function)
{
	char	   *name = sagaz_text_argument(fcinfo, 0, "name");
	SagazGroup	group;

	PreventCommandIfReadOnly(function);
	sagaz_lock_groups();
	sagaz_group_use(name, &group);
	if (group.paused != paused)
		write_group_paused(&group, paused ? GetCurrentTimestamp() : 0);
}

/* pause_consumer_group(name): claims return nothing from now on */
Datum
sagaz_pause_consumer_group(PG_FUNCTION_ARGS)
{
	set_group_paused(fcinfo, true, "pause_consumer_group()");
	PG_RETURN_VOID();
}

/* resume_consumer_group(name) */
Datum
sagaz_resume_consumer_group(PG_FUNCTION_ARGS)
{
	set_group_paused(fcinfo, false, "resume_consumer_group()");
	sagaz_wake_at_commit();
	PG_RETURN_VOID();
}
