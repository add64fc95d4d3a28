/*
 * event_update.c
 *		The C part of update_event_status(): an operator says where an event
 *		stands.
 *
 * The event may be anywhere: ahead of the group, in an open batch, left over
 * from one, or among the retries.  Under the lane's lock it cannot be handed
 * out, and under the lock of its batch nobody else can say what became of it.
 * An event that the group has not come to gets a retry row: claims pass those
 * that have one.
 */
#include "sagaz.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "batch.h"
#include "holder.h"
#include "locks.h"
#include "mark.h"
#include "outbox.h"
#include "outstanding.h"
#include "retry.h"
#include "wake.h"

PG_FUNCTION_INFO_V1(sagaz_change_event_status);

/* column "status" of outbox_archive */
#define ARCHIVE_STATUS 8

typedef enum EventStatus
{
	EVENT_PENDING,
	EVENT_CLAIMED,
	EVENT_SENT,
	EVENT_FAILED,
	EVENT_DEAD_LETTER
} EventStatus;

typedef struct Change
{
	SagazGroup	group;
	Datum		event_id;
	EventStatus from;
	EventStatus to;
	const char *error;
	TimestampTz now;
	SagazPlace	place;
	Snapshot	snapshot;
	SagazScan  *log;
	TupleTableSlot *event;		/* in the log, as of the snapshot */
} Change;

static const char *const status_names[] = {
	[EVENT_PENDING] = "pending",
	[EVENT_CLAIMED] = "claimed",
	[EVENT_SENT] = "sent",
	[EVENT_FAILED] = "failed",
	[EVENT_DEAD_LETTER] = "dead_letter",
};

static const bool allowed[lengthof(status_names)][lengthof(status_names)] = {
	[EVENT_PENDING] = {[EVENT_SENT] = true,[EVENT_FAILED] = true,
	[EVENT_DEAD_LETTER] = true},
	[EVENT_CLAIMED] = {[EVENT_SENT] = true,[EVENT_FAILED] = true,
	[EVENT_PENDING] = true,[EVENT_DEAD_LETTER] = true},
	[EVENT_FAILED] = {[EVENT_PENDING] = true,[EVENT_SENT] = true,
	[EVENT_DEAD_LETTER] = true},
	[EVENT_DEAD_LETTER] = {[EVENT_PENDING] = true},
};

static EventStatus
read_status(const char *name)
{
	for (int i = 0; i < (int) lengthof(status_names); i++)
		if (strcmp(name, status_names[i]) == 0)
			return (EventStatus) i;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_INPUT),
			 errmsg("status \"%s\" is unknown", name),
			 errhint("Say 'pending', 'sent', 'failed' or 'dead_letter'.")));
}

static char *
uuid_text(Datum event_id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, event_id));
}

static void
refuse(const Change *change, const char *from, const char *detail,
	   const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_TRANSITION),
			 errmsg("event %s cannot go from %s to %s",
					uuid_text(change->event_id), from,
					status_names[change->to]),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0));
}

/* An event that is not in the log may be in the archive; there it stays. */
static void
refuse_archived(const Change *change)
{
	ScanKeyData key;
	SagazScan  *scan;

	sagaz_key_uuid(&key, 1, change->event_id);
	scan = sagaz_scan_begin("outbox_archive", "outbox_archive_pkey",
							change->snapshot, &key, 1, ForwardScanDirection);
	if (sagaz_scan_next(scan))
		refuse(change,
			   DatumGetCString(DirectFunctionCall1(enum_out,
												   sagaz_column(scan->slot, ARCHIVE_STATUS))),
			   "It is in the archive.", NULL);
	sagaz_scan_end(scan);
	sagaz_no_such_event(change->event_id);
}

/* Look at the event and its place as they are now. */
static void
look(Change *change)
{
	if (change->log)
	{
		sagaz_scan_end(change->log);
		change->log = NULL;
		UnregisterSnapshot(change->snapshot);
	}
	change->snapshot = RegisterSnapshot(GetLatestSnapshot());
	change->event = sagaz_event_fetch(&change->log, change->event_id,
									  change->snapshot);
	if (change->event == NULL)
		refuse_archived(change);
	sagaz_place_find(&change->group, change->event, change->snapshot,
					 &change->place);
}

static bool
is_out(const SagazPlace *place)
{
	return place->state == PLACE_HELD_OUT ||
		(place->state == PLACE_RETRY && place->retry_state == RETRY_OUT);
}

/*
 * Keep the event where it is: lock its lane, and its batch if it is out.  In
 * an ordered group all batches of the lane are locked, for their workers may
 * let held events of the saga go.
 */
static void
lock_event(Change *change)
{
	int16		lane = change->place.lane;
	ListCell   *cell;

	(void) sagaz_lock_lane(change->group.no, lane, true);
	sagaz_group_check(&change->group);
	if (change->group.ordered)
		foreach(cell, sagaz_outstanding_batches(&change->group, &lane))
			(void) sagaz_outstanding_lock(lfirst(cell));
	look(change);
	if (is_out(&change->place))
	{
		(void) sagaz_lock_batch(change->place.holder, true);
		look(change);
	}
}

/* The group's retry row of the event; *scan keeps it. */
static TupleTableSlot *
fetch_retry(const Change *change, SagazScan **scan)
{
	*scan = sagaz_retry_row_of(change->group.no, change->place.seq,
							   change->snapshot);
	if (!sagaz_scan_next(*scan))
		elog(ERROR, "retry row went away");
	return (*scan)->slot;
}

static EventStatus
status_of_retry(const Change *change)
{
	SagazScan  *scan;
	bool		failed;

	switch (change->place.retry_state)
	{
		case RETRY_OUT:
			return EVENT_CLAIMED;
		case RETRY_DEAD:
			return EVENT_DEAD_LETTER;
		case RETRY_SENT:
			return EVENT_SENT;
		case RETRY_WAITING:
			failed = !sagaz_column_is_null(fetch_retry(change, &scan),
										   retry_failed_at);
			sagaz_scan_end(scan);
			return failed ? EVENT_FAILED : EVENT_PENDING;
	}
	return EVENT_PENDING;
}

/* Was the event ever meant for the group? */
static bool
is_of_group(const Change *change)
{
	return change->place.state == PLACE_RETRY ||
		(DatumGetUInt64(sagaz_column(change->event, outbox_pos)) >= SAGAZ_FIRST_POS &&
		 (change->group.start_time == 0 ||
		  DatumGetTimestampTz(sagaz_column(change->event, outbox_created_at)) >=
		  change->group.start_time));
}

static EventStatus
present_status(const Change *change)
{
	if (!is_of_group(change))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_NOT_FOUND),
				 errmsg("event %s is none of consumer group \"%s\"",
						uuid_text(change->event_id), change->group.name)));
	switch (change->place.state)
	{
		case PLACE_HELD_OUT:
			return EVENT_CLAIMED;
		case PLACE_FINISHED:
			return EVENT_SENT;
		case PLACE_RETRY:
			return status_of_retry(change);
		default:
			return EVENT_PENDING;
	}
}

static void
check_transition(const Change *change)
{
	const char *from = status_names[change->from];

	if (change->to == EVENT_CLAIMED)
		refuse(change, from, NULL, "Events are handed out by claim_batch().");
	if (!allowed[change->from][change->to])
		refuse(change, from, NULL, change->from == EVENT_DEAD_LETTER ?
			   "A dead letter can only be pending again." : NULL);
	if (change->group.ordered && change->place.state == PLACE_AHEAD &&
		change->to == EVENT_FAILED)
		refuse(change, from,
			   "In a group with ordering \"saga\" only an event that was handed out can fail.",
			   NULL);
}

/* Who claimed the batch, or NULL. */
static char *
batch_worker(const Change *change, int64 batch_id)
{
	ScanKeyData keys[3];
	SagazScan  *scan;
	char	   *worker_id = NULL;

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, change->group.no);
	sagaz_key_int2(&keys[1], 2, BTEqualStrategyNumber, change->place.lane);
	sagaz_key_int8(&keys[2], 3, BTEqualStrategyNumber, batch_id);
	scan = sagaz_scan_begin("outbox_batch", "outbox_batch_key",
							change->snapshot, keys, 3, ForwardScanDirection);
	if (sagaz_scan_next(scan))
		worker_id = sagaz_column_text(scan->slot, batch_worker_id);
	sagaz_scan_end(scan);
	return worker_id;
}

/* Start the retry row of an event that has none. */
static void
start_row(const Change *change, SagazWriter *writer, const SagazLease *lease)
{
	char	   *worker_id;

	sagaz_retry_row_of_event(writer, change->group.no, change->event,
							 RETRY_WAITING);
	if (lease == NULL)
		return;
	sagaz_writer_set(writer, retry_claimed_at,
					 TimestampTzGetDatum(lease->claimed_at));
	worker_id = batch_worker(change, lease->batch_id);
	if (worker_id)
		sagaz_writer_set(writer, retry_worker_id,
						 CStringGetTextDatum(worker_id));
}

/* Bring the new status into the writer's row. */
static void
set_status(const Change *change, SagazWriter *writer)
{
	Datum		now = TimestampTzGetDatum(change->now);

	if (change->to == EVENT_FAILED)
	{
		sagaz_retry_failed(writer, change->now, change->error);
		sagaz_retry_clear(writer, retry_batch_id);
		return;
	}
	sagaz_retry_clear(writer, retry_next_attempt_at);
	if (change->to == EVENT_SENT)
	{
		sagaz_writer_set(writer, retry_state, Int16GetDatum(RETRY_SENT));
		sagaz_writer_set(writer, retry_sent_at, now);
		return;
	}
	sagaz_retry_clear(writer, retry_batch_id);
	if (change->error)
		sagaz_writer_set(writer, retry_last_error,
						 CStringGetTextDatum(change->error));
	if (change->to == EVENT_DEAD_LETTER)
	{
		sagaz_writer_set(writer, retry_state, Int16GetDatum(RETRY_DEAD));
		sagaz_writer_set(writer, retry_failed_at, now);
	}
	else
		sagaz_retry_again(writer, change->now,
						  change->from == EVENT_DEAD_LETTER);
}

static void
write_row(const Change *change, const SagazLease *lease)
{
	SagazWriter *writer = sagaz_writer_begin("outbox_retry");
	SagazScan  *scan;

	if (change->place.state == PLACE_RETRY)
	{
		TupleTableSlot *old = fetch_retry(change, &scan);

		sagaz_retry_row_copy(writer, old);
		set_status(change, writer);
		sagaz_writer_update(writer, old, change->snapshot);
		sagaz_scan_end(scan);
	}
	else
	{
		start_row(change, writer, lease);
		set_status(change, writer);
		sagaz_writer_insert(writer);
	}
	sagaz_writer_end(writer);
	CommandCounterIncrement();
}

/* Change an event that is in an open batch, whose lock is ours. */
static void
change_in_batch(Change *change)
{
	SagazLease	lease;
	int64		seq = change->place.seq;
	int			held = 0;

	sagaz_lease_open(change->place.holder, NULL, &lease);
	if (change->place.state == PLACE_RETRY || change->to != EVENT_SENT)
		write_row(change, &lease);
	sagaz_receipt_events(lease.batch_id,
						 change->to == EVENT_SENT ?
						 RECEIPT_EVENTS_SENT : RECEIPT_EVENTS_MOVED,
						 change->now, &seq, 1);
	CommandCounterIncrement();
	if (change->to == EVENT_SENT)
		sagaz_retry_let_go_of(&change->group, seq);
	else if (change->group.ordered)
		held = sagaz_hold_back(&lease, change->place.lane, seq, change->now);
	sagaz_lease_close_if_done(&lease, 1 + held, change->now);
	sagaz_lease_done(&lease);
}

/* Change an event that nobody holds. */
static void
change_at_rest(Change *change)
{
	write_row(change, NULL);
	if (change->to == EVENT_SENT || change->to == EVENT_DEAD_LETTER)
		sagaz_retry_let_go_of(&change->group, change->place.seq);
}

static void
read_arguments(FunctionCallInfo fcinfo, Change *change)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("event_id must not be null")));
	change->event_id = PG_GETARG_DATUM(0);
	change->to = read_status(sagaz_text_argument(fcinfo, 1, "status"));
	change->error = sagaz_optional_text(fcinfo, 2);
	if (change->error && change->to == EVENT_SENT)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("error must be null for status \"sent\"")));
	PreventCommandIfReadOnly("update_event_status()");
	sagaz_group_use(sagaz_text_argument(fcinfo, 3, "consumer_group"),
					&change->group);
}

/* change_event_status(event_id, status, error, consumer_group, storage) */
Datum
sagaz_change_event_status(PG_FUNCTION_ARGS)
{
	Change		change = {0};

	read_arguments(fcinfo, &change);
	look(&change);
	lock_event(&change);
	change.now = GetCurrentTimestamp();
	change.from = present_status(&change);
	check_transition(&change);
	if (is_out(&change.place))
		change_in_batch(&change);
	else
		change_at_rest(&change);
	sagaz_scan_end(change.log);
	UnregisterSnapshot(change.snapshot);
	sagaz_wake_at_commit();
	PG_RETURN_VOID();
}
