/*
 * native_event.c
 *		Putting events into the native outbox.
 *
 * An event that is sent goes into the archive.  Any other goes into the log,
 * in the order of the records; unless it is plainly pending, it gets a retry
 * row there in the storage's consumer group, and a position at which no group
 * reads it off the log.  New events are written by the page; one that is
 * there is changed by itself.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "outbox/event.h"
#include "backends/native/native_store.h"
#include "outbox/outbox.h"
#include "backends/record/record.h"
#include "outbox/retry.h"
#include "outbox/place_number.h"
#include "wakeup/wake.h"

/* Where no group reads: events of the log that only have retry rows. */
#define POS_OF_NONE UINT64CONST(2)

/* A new event. */
typedef struct NewEvent
{
	const SagazEvent *event;
	Datum		event_id;
	EventStatus status;
	bool		is_plain;		/* and the group gets it off the log */
} NewEvent;

typedef struct EventPut
{
	NativePut  *put;
	Snapshot	snapshot;		/* registered */
	SagazScan  *log;			/* probes by event_id */
	SagazScan  *archive;
	SagazStates *states;		/* opened when an event is there */
	SagazGroup	group;			/* all zero if it does not exist */
	TimestampTz now;

	NewEvent   *fresh;
	int			nfresh;
	bool		has_retries;	/* some of them have retry rows */
	int			claimed[SAGAZ_LANES];	/* how many of them are */
	TimestampTz claimed_at;		/* the latest */
	int64		batch_id;		/* theirs */
	SagazWriter *to_log;
	SagazWriter *to_retry;
	SagazWriter *to_archive;
} EventPut;

/*
 * Keys were checked before: what is no UUID here raises the type's own
 * error.
 */
Datum
native_uuid(const char *event_id)
{
	return DirectFunctionCall1(uuid_in, CStringGetDatum(event_id));
}

/* ---------------------------------------------------------------------- */
/* What is there */

static bool
probe_archived_event(EventPut *put, Datum event_id)
{
	ScanKeyData key;

	sagaz_key_uuid(&key, 1, event_id);
	return sagaz_scan_probe(&put->archive, "outbox_archive", "outbox_archive_pkey",
							put->snapshot, &key, 1) != NULL;
}

/* Find an event in the log or the archive. */
static bool
find_event(EventPut *put, Datum event_id, SagazFoundEvent *found)
{
	found->archived = false;
	found->slot = sagaz_event_fetch(&put->log, event_id, put->snapshot);
	if (found->slot)
		return true;
	found->archived = probe_archived_event(put, event_id);
	if (found->archived)
		found->slot = put->archive->slot;
	return found->archived;
}

/* What is to be put must not be there already, and is looked up later. */
static void
begin_event_look(EventPut *put, NativePut *what, int count)
{
	memset(put, 0, sizeof(EventPut));
	put->put = what;
	put->snapshot = RegisterSnapshot(GetLatestSnapshot());
	put->now = GetCurrentTimestamp();
	(void) sagaz_group_find_in(what->store->consumer_group, put->snapshot,
							   &put->group);
	put->fresh = palloc(Max(count, 1) * sizeof(NewEvent));
}

static void
end_event_look(EventPut *put)
{
	if (put->log)
		sagaz_scan_end(put->log);
	if (put->archive)
		sagaz_scan_end(put->archive);
	if (put->states)
		sagaz_states_close(put->states);
	UnregisterSnapshot(put->snapshot);
}

/* The record of an event that is there; false if it is none of the group's. */
static bool
read_event_there(EventPut *put, SagazFoundEvent *found, SagazEvent *there)
{
	if (!found->archived)
	{
		sagaz_state_of(put->states, found->slot, &found->state);
		if (found->state.status == EVENT_NONE)
			return false;
	}
	native_event_of(put->states, found, there);
	return true;
}

static void
remember_fresh_event(EventPut *put, const SagazEvent *event, Datum event_id)
{
	NewEvent   *fresh = &put->fresh[put->nfresh++];

	fresh->event = event;
	fresh->event_id = event_id;
	fresh->status = sagaz_event_status(event->status);
	fresh->is_plain = native_is_plain(event) &&
		sagaz_group_begins_by(&put->group, event->created_at);
	if (fresh->status == EVENT_SENT || fresh->is_plain)
		return;
	put->has_retries = true;
	if (fresh->status != EVENT_CLAIMED)
		return;
	put->claimed[sagaz_lane_of(event->saga_id, strlen(event->saga_id))]++;
	put->claimed_at = Max(put->claimed_at, event->claimed_at);
}

/* Merge with one that is there. */
static void
merge_event(EventPut *put, const SagazRecord *record, Datum event_id,
			SagazFoundEvent *found)
{
	SagazRecord there = {.kind = SAGAZ_EVENT};
	SagazMerged *merged = &put->put->merged;
	bool		is_its = read_event_there(put, found, &there.event);

	if (is_its && (native_event_same(&there.event, &record->event) ||
				   sagaz_record_same(&there, record)))
		merged->unchanged++;
	else if (is_its && sagaz_merge_keeps(&there, record, put->put->over_claims))
		merged->kept++;
	else if (found->archived)
	{
		simple_table_tuple_delete(put->archive->rel, &found->slot->tts_tid,
								  put->snapshot);
		remember_fresh_event(put, &record->event, event_id);
		merged->added--;
		merged->changed++;
	}
	else if (native_change_event(put->put, record, event_id) == NATIVE_CHANGED)
		merged->changed++;
	else
		merged->kept++;
}

/* Look whether the event is there, and treat it if so. */
static void
look_at_event(EventPut *put, MemoryContext item, const SagazRecord *record)
{
	Datum		event_id;
	SagazFoundEvent found;
	MemoryContext outer;

	sagaz_check_fit(record);
	event_id = native_uuid(record->event.event_id);
	if (!find_event(put, event_id, &found))
	{
		remember_fresh_event(put, &record->event, event_id);
		return;
	}
	if (put->put->mode == SAGAZ_PUT_NEW)
		native_refuse_twin(record);
	if (put->put->mode == SAGAZ_PUT_MISSING)
		return;
	if (put->states == NULL)
		put->states = sagaz_states_open(put->put->store->consumer_group,
										put->snapshot);
	outer = MemoryContextSwitchTo(item);
	merge_event(put, record, event_id, &found);
	MemoryContextSwitchTo(outer);
	MemoryContextReset(item);
}

/* ---------------------------------------------------------------------- */
/* New events */

static void
make_event_archive_row(EventPut *put, const NewEvent *fresh)
{
	SagazWriter *row = put->to_archive;

	sagaz_writer_row(row);
	sagaz_event_row_of_record(fresh->event, fresh->event_id,
							  row->slot->tts_values, row->slot->tts_isnull);
	sagaz_writer_set(row, archive_archived_at, TimestampTzGetDatum(put->now));
}

/* The transaction has its xid before a place is drawn: see next_seq(). */
static void
make_event_log_row(EventPut *put, const NewEvent *fresh)
{
	const SagazEvent *event = fresh->event;
	SagazWriter *row = put->to_log;
	int64		seq;

	sagaz_writer_row(row);
	seq = sagaz_draw_place_number();
	sagaz_writer_set(row, outbox_pos,
					 UInt64GetDatum(fresh->is_plain ?
									U64FromFullTransactionId(GetTopFullTransactionId()) :
									POS_OF_NONE));
	sagaz_writer_set(row, outbox_seq, Int64GetDatum(seq));
	native_set_time(row, outbox_created_at, event->created_at);
	sagaz_writer_set(row, outbox_event_id, fresh->event_id);
	sagaz_writer_set(row, outbox_lane,
					 Int16GetDatum(sagaz_lane_of(event->saga_id, strlen(event->saga_id))));
	native_set_text(row, outbox_saga_id, event->saga_id);
	native_set_content(row, event);
	if (fresh->is_plain && event->next_attempt_at > put->now)
		native_set_time(row, outbox_available_at, event->next_attempt_at);
}

static void
make_event_retry_row(EventPut *put, const NewEvent *fresh)
{
	sagaz_retry_row_of_event(put->to_retry, put->group.no, put->to_log->slot,
							 RETRY_WAITING);
	native_set_retry(put->to_retry, fresh->event, put->now, put->batch_id);
}

/* Queue the writer's row. */
static void
queue_event_row(SagazWriter *writer)
{
	sagaz_writer_queue(writer);
	if (writer->queued == SAGAZ_WRITER_QUEUE)
		sagaz_writer_flush(writer);
}

static void
write_native_event(EventPut *put, const NewEvent *fresh)
{
	if (fresh->status == EVENT_SENT)
	{
		make_event_archive_row(put, fresh);
		queue_event_row(put->to_archive);
		return;
	}
	make_event_log_row(put, fresh);
	if (!fresh->is_plain)
	{
		make_event_retry_row(put, fresh);
		queue_event_row(put->to_retry);
	}
	queue_event_row(put->to_log);
}

/*
 * The group and a batch for those that are retries.  A claim cannot tell when
 * these were committed, so the commit must not be lost in a crash.
 */
static void
prepare_event_retries(EventPut *put)
{
	sagaz_group_use(put->put->store->consumer_group, &put->group);
	put->batch_id = native_make_batch(&put->group, put->claimed, put->claimed_at);
	ForceSyncCommit();
	sagaz_wake_at_commit();
}

static void
write_fresh_events(EventPut *put, MemoryContext item)
{
	SagazWriter *writers[] = {
		put->to_log = sagaz_writer_begin("outbox"),
		put->to_retry = sagaz_writer_begin("outbox_retry"),
		put->to_archive = sagaz_writer_begin("outbox_archive")
	};
	MemoryContext outer;

	if (put->has_retries)
		prepare_event_retries(put);
	outer = MemoryContextSwitchTo(item);
	for (int i = 0; i < put->nfresh; i++)
	{
		CHECK_FOR_INTERRUPTS();
		write_native_event(put, &put->fresh[i]);
		MemoryContextReset(item);
	}
	MemoryContextSwitchTo(outer);
	for (int i = 0; i < (int) lengthof(writers); i++)
	{
		sagaz_writer_flush(writers[i]);
		sagaz_writer_end(writers[i]);
	}
	put->put->merged.added += put->nfresh;
}

/*
 * One snapshot for all, taken now: an event that another transaction puts
 * meanwhile is met as a repeated key.  What is written is visible to the
 * next snapshot.
 */
void
native_put_events(NativePut *what, SagazRecord *records, int count)
{
	MemoryContext item = AllocSetContextCreate(CurrentMemoryContext,
											   "sagaz put",
											   ALLOCSET_DEFAULT_SIZES);
	EventPut	put;

	begin_event_look(&put, what, count);
	for (int i = 0; i < count; i++)
		look_at_event(&put, item, &records[i]);
	CommandCounterIncrement();
	if (put.nfresh > 0)
		write_fresh_events(&put, item);
	CommandCounterIncrement();
	end_event_look(&put);
	MemoryContextDelete(item);
}

/*
 * Events of the log are finished, for it is never deleted from before
 * retention; those of the archive are.
 */
int64
native_remove_events(SagazStore *store, const char *const *keys, int nkeys)
{
	NativePut	what = {.store = store};
	EventPut	put;
	int64		removed = 0;

	begin_event_look(&put, &what, 0);
	for (int i = 0; i < nkeys; i++)
	{
		SagazFoundEvent found;
		Datum		event_id;

		CHECK_FOR_INTERRUPTS();
		if (!sagaz_filter_is_uuid(keys[i]))
			continue;
		event_id = native_uuid(keys[i]);
		if (!find_event(&put, event_id, &found))
			continue;
		if (found.archived)
			simple_table_tuple_delete(put.archive->rel, &found.slot->tts_tid,
									  put.snapshot);
		else
			native_finish_event(store, event_id);
		removed++;
	}
	CommandCounterIncrement();
	end_event_look(&put);
	return removed;
}
