/*
 * housekeeping.c
 *		Removing what is old, a slice at a time.
 *
 * The worker does this in transactions of their own, while it has nothing to
 * deliver, and pauses between two slices.  Of the workers of a database one
 * at a time gets the lock; the others go on without.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "upkeep/housekeeping.h"
#include "outbox/locks.h"
#include "outbox/outbox.h"
#include "lib/owner.h"
#include "upkeep/retention.h"
#include "lib/tuples.h"

/* Rows of one slice: some milliseconds. */
#define SLICE_ROWS 250
#define LOCK_TIMEOUT "100ms"

/* Was the oldest event of a lane made before that? */
static bool
lane_has_old(int16 lane, TimestampTz before, Snapshot snapshot)
{
	ScanKeyData key;
	SagazScan  *scan;
	bool		old;

	sagaz_key_int2(&key, 1, BTEqualStrategyNumber, lane);
	scan = sagaz_scan_begin("outbox", "outbox_lane_seq", snapshot, &key, 1,
							ForwardScanDirection);
	old = sagaz_scan_next(scan) &&
		DatumGetTimestampTz(sagaz_column(scan->slot, outbox_created_at)) < before;
	sagaz_scan_end(scan);
	return old;
}

/* Spare the walk over the log where it holds nothing old. */
static bool
log_has_old(TimestampTz before)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		old = false;

	for (int16 lane = 0; lane < SAGAZ_LANES && !old; lane++)
		old = lane_has_old(lane, before, snapshot);
	UnregisterSnapshot(snapshot);
	return old;
}

static TimestampTz
time_ago(int seconds)
{
	return GetCurrentTimestamp() - seconds * USECS_PER_SEC;
}

static int64
delete_inbox_rows(TimestampTz before)
{
	static const char *const query =
		"DELETE FROM sagaz.consumer_inbox WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
		"SELECT ctid FROM sagaz.consumer_inbox"
		" WHERE consumed_at OPERATOR(pg_catalog.<) $1 LIMIT $2"
		" FOR UPDATE SKIP LOCKED))";
	Oid			types[] = {TIMESTAMPTZOID, INT8OID};
	Datum		values[] = {TimestampTzGetDatum(before), Int64GetDatum(SLICE_ROWS)};
	int64		removed;

	SPI_connect();
	if (SPI_execute_with_args(query, 2, types, values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not clean the inbox");
	removed = SPI_processed;
	SPI_finish();
	return removed;
}

/* The delivery's owner need have no right to the inbox. */
static int64
clean_inbox(TimestampTz before)
{
	SagazUser	user;
	int64		removed;

	sagaz_become_owner(&user);
	removed = delete_inbox_rows(before);
	sagaz_owner_restore(&user);
	return removed;
}

/*
 * One slice, in the present transaction, whose lock_timeout it sets.  Takes
 * retention's lock, if it is free, and looks with snapshots of its own.
 */
void
sagaz_housekeep(SagazHousekeeping *done)
{
	memset(done, 0, sizeof(SagazHousekeeping));
	/* whoever is in the way has the right of way */
	(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	if (sagaz_archive_after >= 0 && log_has_old(time_ago(sagaz_archive_after)))
		done->archived = sagaz_retention_archive(time_ago(sagaz_archive_after),
												 SLICE_ROWS);
	if (sagaz_inbox_after >= 0)
		done->inbox_removed = clean_inbox(time_ago(sagaz_inbox_after));
	done->more = done->archived >= SLICE_ROWS ||
		done->inbox_removed >= SLICE_ROWS;
}
