/*
 * dead_letters.c
 *		requeue_dead_letters(): give events another chance that failed too
 *		often.
 *
 * Those that come back are spread over a time, so that a target that has just
 * recovered is not hit by all of them at once.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "outbox/group.h"
#include "outbox/locks.h"
#include "outbox/outbox.h"
#include "outbox/retry.h"
#include "outbox/place_number.h"
#include "wakeup/wake.h"

PG_FUNCTION_INFO_V1(sagaz_requeue_dead_letters);

typedef struct Requeue
{
	SagazGroup	group;
	Datum	   *event_ids;		/* NULL: whatever its id */
	int			nevent_ids;
	char	   *event_type;		/* NULL: of any type */
	char	   *saga_id;		/* NULL: of any saga */
	int64		max_rows;
	int64		spread;			/* microseconds */
	char	   *reason;
	Snapshot	snapshot;
	int64	   *seqs;			/* the longest dead first */
	int64		nseqs;
	int64		size;
} Requeue;

static bool
dead_text_is(TupleTableSlot *slot, int attnum, const char *wanted)
{
	return wanted == NULL ||
		strcmp(sagaz_column_text(slot, attnum), wanted) == 0;
}

/* Note the place of a retry row if it is a dead letter that is wanted. */
static void
consider_dead(Requeue *requeue, TupleTableSlot *slot)
{
	if (DatumGetInt16(sagaz_column(slot, retry_group_no)) != requeue->group.no ||
		DatumGetInt16(sagaz_column(slot, retry_state)) != RETRY_DEAD ||
		!dead_text_is(slot, retry_event_type, requeue->event_type) ||
		!dead_text_is(slot, retry_saga_id, requeue->saga_id))
		return;
	if (requeue->nseqs >= requeue->size)
	{
		requeue->size = Max(64, requeue->size * 2);
		requeue->seqs = requeue->seqs == NULL ?
			palloc(requeue->size * sizeof(int64)) :
			repalloc_huge(requeue->seqs, requeue->size * sizeof(int64));
	}
	requeue->seqs[requeue->nseqs++] =
		DatumGetInt64(sagaz_column(slot, retry_seq));
}

static int
compare_dead_ids(const void *a, const void *b)
{
	return memcmp(DatumGetUUIDP(*(const Datum *) a),
				  DatumGetUUIDP(*(const Datum *) b), UUID_LEN);
}

/* Find those of the ids given; one that is given twice counts once. */
static void
find_dead_by_ids(Requeue *requeue)
{
	SagazScan  *scan = NULL;
	ScanKeyData key;

	qsort(requeue->event_ids, requeue->nevent_ids, sizeof(Datum), compare_dead_ids);
	for (int i = 0;
		 i < requeue->nevent_ids && requeue->nseqs < requeue->max_rows; i++)
	{
		if (i > 0 && compare_dead_ids(&requeue->event_ids[i - 1],
									  &requeue->event_ids[i]) == 0)
			continue;
		sagaz_key_uuid(&key, 1, requeue->event_ids[i]);
		if (scan == NULL)
			scan = sagaz_scan_begin("outbox_retry", "outbox_retry_event",
									requeue->snapshot, &key, 1,
									ForwardScanDirection);
		else
			sagaz_scan_again(scan, &key, 1);
		while (sagaz_scan_next(scan))
			consider_dead(requeue, scan->slot);
	}
	if (scan)
		sagaz_scan_end(scan);
}

/* Find all that are dead, the longest dead first. */
static void
find_all_dead(Requeue *requeue)
{
	ScanKeyData key;
	SagazScan  *scan;

	sagaz_key_int2(&key, 1, BTEqualStrategyNumber, requeue->group.no);
	scan = sagaz_scan_begin("outbox_retry", "outbox_retry_dead",
							requeue->snapshot, &key, 1, ForwardScanDirection);
	while (requeue->nseqs < requeue->max_rows && sagaz_scan_next(scan))
	{
		CHECK_FOR_INTERRUPTS();
		consider_dead(requeue, scan->slot);
	}
	sagaz_scan_end(scan);
}

/* When the i-th of them is due. */
static TimestampTz
dead_due_time(const Requeue *requeue, TimestampTz now, int64 i)
{
	return now + (int64) ((double) requeue->spread * i / requeue->nseqs);
}

static void
bring_back_dead(const Requeue *requeue)
{
	SagazWriter *writer = sagaz_writer_begin("outbox_retry");
	TimestampTz now = GetCurrentTimestamp();

	for (int64 i = 0; i < requeue->nseqs; i++)
	{
		SagazScan  *scan = sagaz_retry_row_of(requeue->group.no,
											  requeue->seqs[i],
											  requeue->snapshot);

		CHECK_FOR_INTERRUPTS();
		if (!sagaz_scan_next(scan))
			elog(ERROR, "retry row went away");
		sagaz_writer_copy(writer, scan->slot);
		sagaz_retry_again(writer, dead_due_time(requeue, now, i), true);
		if (requeue->reason)
			sagaz_writer_set(writer, retry_reason,
							 CStringGetTextDatum(requeue->reason));
		else
			sagaz_writer_clear(writer, retry_reason);
		sagaz_writer_update(writer, scan->slot, requeue->snapshot);
		sagaz_scan_end(scan);
	}
	sagaz_writer_end(writer);
}

static void
read_dead_arguments(FunctionCallInfo fcinfo, Requeue *requeue)
{
	if (!PG_ARGISNULL(0))
		requeue->event_ids = sagaz_ids_argument(fcinfo, 0, "event_ids", &requeue->nevent_ids);
	requeue->event_type = sagaz_text_argument_or_null(fcinfo, 1);
	requeue->saga_id = sagaz_text_argument_or_null(fcinfo, 2);
	requeue->max_rows = sagaz_max_rows_argument(fcinfo, 3, PG_INT64_MAX);
	requeue->spread = sagaz_interval_argument(fcinfo, 4, "spread");
	requeue->reason = sagaz_text_argument_or_null(fcinfo, 5);
	PreventCommandIfReadOnly("requeue_dead_letters()");
}

/* Bring back those of one group that are wanted. */
static void
requeue_of_group(Requeue *requeue)
{
	requeue->nseqs = 0;
	for (int16 lane = 0; lane < SAGAZ_LANES; lane++)
		(void) sagaz_lock_lane(requeue->group.no, lane, true);
	sagaz_group_check(&requeue->group);
	requeue->snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (requeue->event_ids == NULL)
		find_all_dead(requeue);
	else
		find_dead_by_ids(requeue);
	if (requeue->nseqs > 0)
		bring_back_dead(requeue);
	UnregisterSnapshot(requeue->snapshot);
}

/* The group that is named, or all that there are; in the order of their locks. */
static List *
groups_to_requeue(FunctionCallInfo fcinfo)
{
	Snapshot	snapshot;
	List	   *names;

	if (!PG_ARGISNULL(6))
		return list_make1(sagaz_text_argument(fcinfo, 6, "consumer_group"));
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	names = sagaz_group_names(snapshot);
	UnregisterSnapshot(snapshot);
	return names;
}

/*
 * requeue_dead_letters(event_ids, event_type, saga_id, max_rows, spread,
 * reason, consumer_group, storage): how many
 */
Datum
sagaz_requeue_dead_letters(PG_FUNCTION_ARGS)
{
	Requeue		requeue = {0};
	int64		count = 0;
	ListCell   *cell;

	read_dead_arguments(fcinfo, &requeue);
	foreach(cell, groups_to_requeue(fcinfo))
	{
		sagaz_group_use(lfirst(cell), &requeue.group);
		requeue_of_group(&requeue);
		count += requeue.nseqs;
		requeue.max_rows -= requeue.nseqs;
		if (requeue.max_rows <= 0)
			break;
	}
	if (count > 0)
	{
		CommandCounterIncrement();
		sagaz_wake_at_commit();
	}
	PG_RETURN_INT64(count);
}
