/*
 * retention.c
 *		archive_sent_events(): removing what every consumer group has
 *		finished, and finished long enough ago.
 *
 * Each lane is walked from its old end.  The walk ends where a long run of
 * events is too young or not handed out yet; dead letters and other single
 * events that stay do not end it.
 */
#include "lib/sagaz.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "backends/record/record.h"
#include "outbox/event.h"
#include "outbox/locks.h"
#include "outbox/outbox.h"
#include "upkeep/retention.h"

/* So many events in a row that can't go yet end the walk. */
#define MAX_MISSES 1000

PG_FUNCTION_INFO_V1(sagaz_archive_sent_events);

typedef struct Retention
{
	TimestampTz before;			/* finished earlier goes */
	bool		keep;			/* in the archive */
	int64		max_rows;
	int64		removed;
	Snapshot	snapshot;
	int			ngroups;
	SagazKeeper *groups;
	SagazWriter *archive;
	MemoryContext row_context;
} Retention;

typedef enum Fate
{
	GOES,
	STAYS,						/* for long, maybe: a dead letter, say */
	NOT_YET						/* and so, likely, those behind it */
} Fate;

/* Open the states of every consumer group; the default one comes first. */
static void
open_retention_groups(Retention *retention)
{
	SagazScan  *scan = sagaz_scan_begin("consumer_group", "consumer_group_pkey",
										retention->snapshot, NULL, 0,
										ForwardScanDirection);

	retention->groups = palloc0((SAGAZ_MAX_GROUP + 1) * sizeof(SagazKeeper));
	while (sagaz_scan_next(scan))
	{
		char	   *name = sagaz_column_text(scan->slot, 2);
		SagazKeeper *keeper = &retention->groups[retention->ngroups++];

		keeper->states = sagaz_states_open(name, retention->snapshot);
		if (strcmp(name, SAGAZ_DEFAULT_GROUP) == 0)
		{
			SagazStates *first = retention->groups[0].states;

			retention->groups[0].states = keeper->states;
			keeper->states = first;
		}
	}
	sagaz_scan_end(scan);
}

/* May the event go, as far as this group is concerned? */
static Fate
fate_in_group(const Retention *retention, const SagazEventState *state)
{
	if (state->where == WHERE_NOT_ITS)
		return GOES;
	if (state->status == EVENT_SENT)
		return state->sent_at < retention->before ? GOES : NOT_YET;
	return state->where == WHERE_UNREAD ? NOT_YET : STAYS;
}

/* The event stays; the group's batch rows tell about it unless a retry does. */
static void
note_retained(SagazKeeper *keeper, TupleTableSlot *event,
			  const SagazEventState *state)
{
	if (state->where == WHERE_NOT_ITS || state->where == WHERE_UNREAD ||
		state->where == WHERE_RETRY)
		return;
	if (keeper->nkept >= keeper->kept_size)
	{
		keeper->kept_size = Max(64, keeper->kept_size * 2);
		keeper->kept = keeper->kept == NULL ?
			MemoryContextAlloc(keeper->states->context,
							   keeper->kept_size * sizeof(SagazKept)) :
			repalloc_huge(keeper->kept, keeper->kept_size * sizeof(SagazKept));
	}
	keeper->kept[keeper->nkept].pos =
		DatumGetUInt64(sagaz_column(event, outbox_pos));
	keeper->kept[keeper->nkept++].seq =
		DatumGetInt64(sagaz_column(event, outbox_seq));
}

/* Ask every group; *final is the state to keep in the archive. */
static Fate
find_fate(Retention *retention, TupleTableSlot *event, SagazEventState *final)
{
	SagazEventState *states =
		palloc0(retention->ngroups * sizeof(SagazEventState));
	Fate		fate = GOES;
	bool		have_final = false;

	if (DatumGetTimestampTz(sagaz_column(event, outbox_created_at)) >=
		retention->before)
		fate = NOT_YET;
	for (int i = 0; i < retention->ngroups; i++)
	{
		sagaz_state_of(retention->groups[i].states, event, &states[i]);
		fate = Max(fate, fate_in_group(retention, &states[i]));
		if (states[i].status == EVENT_SENT && !have_final)
		{
			*final = states[i];
			have_final = true;
		}
	}
	if (!have_final)
		fate = Max(fate, STAYS);
	for (int i = 0; fate != GOES && i < retention->ngroups; i++)
		note_retained(&retention->groups[i], event, &states[i]);
	return fate;
}

static bool
is_event_archived(Retention *retention, Datum event_id)
{
	ScanKeyData key;
	SagazScan  *scan;
	bool		found;

	sagaz_key_uuid(&key, 1, event_id);
	scan = sagaz_scan_begin("outbox_archive", "outbox_archive_pkey",
							retention->snapshot, &key, 1,
							ForwardScanDirection);
	found = sagaz_scan_next(scan);
	sagaz_scan_end(scan);
	return found;
}

static void
archive_event(Retention *retention, TupleTableSlot *event,
			  const SagazEventState *state)
{
	SagazWriter *writer = retention->archive;

	if (is_event_archived(retention, sagaz_column(event, outbox_event_id)))
		return;
	sagaz_writer_row(writer);
	sagaz_event_row_of_log(event, writer->slot->tts_values, writer->slot->tts_isnull);
	sagaz_event_row_set_state(state, writer->slot->tts_values, writer->slot->tts_isnull);
	sagaz_writer_set(writer, archive_archived_at,
					 TimestampTzGetDatum(GetCurrentTimestamp()));
	sagaz_writer_insert(writer);
}

/* Remove the event's retry rows; all of them are finished. */
static void
remove_retention_retries(Retention *retention, Datum event_id)
{
	ScanKeyData key;
	SagazScan  *scan;

	sagaz_key_uuid(&key, 1, event_id);
	scan = sagaz_scan_begin("outbox_retry", "outbox_retry_event",
							retention->snapshot, &key, 1,
							ForwardScanDirection);
	while (sagaz_scan_next(scan))
		simple_table_tuple_delete(scan->rel, &scan->slot->tts_tid,
								  retention->snapshot);
	sagaz_scan_end(scan);
}

static Fate
retain_event(Retention *retention, SagazScan *log)
{
	SagazEventState state = {0};
	Fate		fate = find_fate(retention, log->slot, &state);

	if (fate != GOES)
		return fate;
	if (retention->keep)
		archive_event(retention, log->slot, &state);
	remove_retention_retries(retention, sagaz_column(log->slot, outbox_event_id));
	simple_table_tuple_delete(log->rel, &log->slot->tts_tid,
							  retention->snapshot);
	retention->removed++;
	return fate;
}

/* Walk a lane; returns the first place that was not looked at. */
static int64
retention_walk_lane(Retention *retention, int16 lane)
{
	ScanKeyData key;
	SagazScan  *log;
	int			misses = 0;
	int64		end_seq = PG_INT64_MAX;

	sagaz_key_int2(&key, 1, BTEqualStrategyNumber, lane);
	log = sagaz_scan_begin("outbox", "outbox_lane_seq", retention->snapshot,
						   &key, 1, ForwardScanDirection);
	while (sagaz_scan_next(log))
	{
		MemoryContext outer;
		Fate		fate;

		CHECK_FOR_INTERRUPTS();
		if (misses >= MAX_MISSES || retention->removed >= retention->max_rows)
		{
			end_seq = DatumGetInt64(sagaz_column(log->slot, outbox_seq));
			break;
		}
		outer = MemoryContextSwitchTo(retention->row_context);
		fate = retain_event(retention, log);
		MemoryContextSwitchTo(outer);
		MemoryContextReset(retention->row_context);
		if (fate == NOT_YET)
			misses++;
		else if (fate == GOES)
			misses = 0;
	}
	sagaz_scan_end(log);
	return end_seq;
}

/* Walk all lanes, then remove the batches whose events are gone. */
static void
retention_walk_lanes(Retention *retention)
{
	List	   *removed = NIL;

	for (int16 lane = 0; lane < SAGAZ_LANES; lane++)
	{
		int64		end_seq = retention_walk_lane(retention, lane);

		for (int i = 0; i < retention->ngroups; i++)
		{
			sagaz_remove_batches(&retention->groups[i], lane, end_seq,
								 retention->before, &removed);
			retention->groups[i].nkept = 0;
		}
	}
	CommandCounterIncrement();
	sagaz_retention_remove_receipts(removed);
}

static void
run_retention(Retention *retention)
{
	retention->snapshot = RegisterSnapshot(GetLatestSnapshot());
	open_retention_groups(retention);
	retention->archive = sagaz_writer_begin("outbox_archive");
	LockRelationOid(sagaz_relation_id("outbox"), RowExclusiveLock);
	LockRelationOid(sagaz_relation_id("outbox_retry"), RowExclusiveLock);
	retention->row_context = AllocSetContextCreate(CurrentMemoryContext,
												   "sagaz retention",
												   ALLOCSET_DEFAULT_SIZES);
	retention_walk_lanes(retention);
	sagaz_writer_end(retention->archive);
	for (int i = 0; i < retention->ngroups; i++)
		sagaz_states_close(retention->groups[i].states);
	MemoryContextDelete(retention->row_context);
	UnregisterSnapshot(retention->snapshot);
	CommandCounterIncrement();
}

/*
 * Move up to max_rows events that were finished before a time to the archive,
 * unless somebody else is at it; returns how many.
 */
int64
sagaz_retention_archive(TimestampTz before, int64 max_rows)
{
	Retention	retention = {.before = before,.keep = true,.max_rows = max_rows};

	if (!sagaz_lock_retention(false))
		return 0;
	run_retention(&retention);
	return retention.removed;
}

/* archive_sent_events(older_than, max_rows, keep, storage): events removed */
Datum
sagaz_archive_sent_events(PG_FUNCTION_ARGS)
{
	Retention	retention = {0};

	retention.before = GetCurrentTimestamp() -
		sagaz_interval_argument(fcinfo, 0, "older_than");
	retention.max_rows = sagaz_max_rows_argument(fcinfo, 1, PG_INT64_MAX);
	retention.keep = PG_ARGISNULL(2) || PG_GETARG_BOOL(2);
	PreventCommandDuringRecovery("archive_sent_events()");
	PreventCommandIfReadOnly("archive_sent_events()");
	(void) sagaz_lock_retention(true);
	run_retention(&retention);
	PG_RETURN_INT64(retention.removed);
}
