/*
 * native_change.c
 *		Making an event of the native log like a record, and finishing it.
 *
 * Both happen under the locks of event_change.c, after another look: what was
 * seen before may have been sent meanwhile.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "upkeep/adopt.h"
#include "status/event_change.h"
#include "backends/native/native_store.h"
#include "outbox/group.h"
#include "outbox/outbox.h"
#include "backends/record/record.h"
#include "outbox/retry.h"
#include "lib/words.h"

/* What a record makes of an event. */
typedef struct Replacement
{
	const SagazEvent *event;
	int64		batch_id;		/* if it is claimed */
} Replacement;

/* Set a column to a time as records have it, or clear it for none. */
void
native_set_time(SagazWriter *row, int attnum, TimestampTz time)
{
	if (time == 0)
		sagaz_writer_clear(row, attnum);
	else
		sagaz_writer_set(row, attnum, TimestampTzGetDatum(sagaz_real_time(time)));
}

/* Set a column of text, or clear it for NULL. */
void
native_set_text(SagazWriter *row, int attnum, const char *text)
{
	if (text)
		sagaz_writer_set(row, attnum, CStringGetTextDatum(text));
	else
		sagaz_writer_clear(row, attnum);
}

static int
native_retry_state(EventStatus status)
{
	switch (status)
	{
		case EVENT_CLAIMED:
			return RETRY_OUT;
		case EVENT_SENT:
			return RETRY_SENT;
		case EVENT_DEAD_LETTER:
			return RETRY_DEAD;
		default:
			return RETRY_WAITING;
	}
}

/* Does the row in the log say all there is to say? */
bool
native_is_plain(const SagazEvent *event)
{
	return sagaz_event_status(event->status) == EVENT_PENDING &&
		event->retry_count == 0 && event->last_error == NULL &&
		event->worker_id == NULL && event->claimed_at == 0 &&
		event->sent_at == 0;
}

/* Bring the state that a record has into a retry row. */
void
native_set_retry(SagazWriter *row, const SagazEvent *event, TimestampTz now,
				 int64 batch_id)
{
	EventStatus status = sagaz_event_status(event->status);
	int			state = native_retry_state(status);
	bool		has_failed = status == EVENT_FAILED || status == EVENT_DEAD_LETTER;

	sagaz_writer_set(row, retry_state, Int16GetDatum(state));
	sagaz_writer_set(row, retry_retry_count, Int32GetDatum(event->retry_count));
	native_set_time(row, retry_next_attempt_at, state != RETRY_WAITING ? 0 :
					 event->next_attempt_at ? event->next_attempt_at : now);
	if (state == RETRY_OUT)
		sagaz_writer_set(row, retry_batch_id, Int64GetDatum(batch_id));
	else
		sagaz_writer_clear(row, retry_batch_id);
	native_set_time(row, retry_claimed_at, event->claimed_at);
	native_set_time(row, retry_sent_at, event->sent_at);
	native_set_time(row, retry_failed_at, !has_failed ? 0 :
					 event->claimed_at ? event->claimed_at : event->created_at);
	native_set_text(row, retry_worker_id, event->worker_id);
	native_set_text(row, retry_last_error, event->last_error);
}

static void
set_native_replacement(const SagazEventChange *change, SagazWriter *row, void *arg)
{
	const Replacement *replacement = arg;

	native_set_retry(row, replacement->event, change->now,
					 replacement->batch_id);
	native_set_text(row, retry_event_type, replacement->event->event_type);
}

/* ---------------------------------------------------------------------- */
/* The row in the log */

static bool
native_column_differs(SagazWriter *row, TupleTableSlot *old, int attnum)
{
	Form_pg_attribute column = TupleDescAttr(RelationGetDescr(row->rel), attnum - 1);
	bool		isnull = row->slot->tts_isnull[attnum - 1];

	if (isnull || sagaz_column_is_null(old, attnum))
		return isnull != sagaz_column_is_null(old, attnum);
	return !datum_image_eq(row->slot->tts_values[attnum - 1],
						   sagaz_column(old, attnum), column->attbyval,
						   column->attlen);
}

/*
 * Make the event's row in the log what the record says, if it is not.  Its
 * place stays.
 */
static void
replace_native_content(const SagazEventChange *change, const SagazEvent *event,
					   bool is_plain)
{
	SagazWriter *row = sagaz_writer_begin("outbox");
	bool		any = false;

	sagaz_writer_copy(row, change->event);
	native_set_time(row, outbox_created_at, event->created_at);
	native_set_content(row, event);
	if (is_plain)
		native_set_time(row, outbox_available_at,
						 event->next_attempt_at > change->now ? event->next_attempt_at : 0);
	for (int attnum = 1; attnum <= outbox_columns; attnum++)
		any = any || native_column_differs(row, change->event, attnum);
	if (any)
		sagaz_writer_update(row, change->event, change->snapshot);
	sagaz_writer_end(row);
	CommandCounterIncrement();
}

/* The columns of the log that a record has as they are. */
void
native_set_content(SagazWriter *row, const SagazEvent *event)
{
	bool		is_own = event->aggregate_id == NULL ||
		strcmp(event->aggregate_id, event->saga_id) == 0;

	native_set_text(row, outbox_aggregate_type, event->aggregate_type);
	native_set_text(row, outbox_aggregate_id, is_own ? NULL : event->aggregate_id);
	native_set_text(row, outbox_event_type, event->event_type);
	sagaz_writer_set(row, outbox_payload, JsonbPGetDatum(event->payload));
	sagaz_writer_set(row, outbox_headers, JsonbPGetDatum(event->headers));
	native_set_text(row, outbox_routing_key, event->routing_key);
	native_set_text(row, outbox_partition_key, event->partition_key);
}

/* ---------------------------------------------------------------------- */

static bool
lock_native_event(SagazStore *store, SagazEventChange *change)
{
	sagaz_group_use(store->consumer_group, &change->group);
	if (sagaz_event_change_look(change) && sagaz_event_change_lock(change))
		return true;
	sagaz_event_change_end(change);
	return false;
}

static void
check_changed_saga_id(const SagazEventChange *change, const SagazEvent *event)
{
	if (strcmp(sagaz_column_text(change->event, outbox_saga_id),
			   event->saga_id) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_SERIALIZATION),
				 errmsg("record \"%s\" is refused", event->event_id),
				 errdetail("The native outbox has it with another saga_id.")));
}

static void
replace_native_event(SagazEventChange *change, const SagazEvent *event, bool is_its)
{
	Replacement replacement = {.event = event};
	EventStatus status = sagaz_event_status(event->status);
	bool		is_plain = is_its && change->state.where == WHERE_UNREAD &&
		native_is_plain(event);

	check_changed_saga_id(change, event);
	replace_native_content(change, event, is_plain);
	if (is_plain)
		return;
	if (status == EVENT_CLAIMED)
	{
		int			counts[SAGAZ_LANES] = {0};

		counts[change->lane] = 1;
		replacement.batch_id = native_make_batch(&change->group, counts,
												 event->claimed_at);
	}
	sagaz_event_change(change,
					   status == EVENT_SENT ? EVENT_IS_SENT :
					   status == EVENT_DEAD_LETTER ? EVENT_IS_DEAD : EVENT_GOES_ON,
					   true, set_native_replacement, &replacement);
}

static void
set_native_sent(const SagazEventChange *change, SagazWriter *row, void *arg)
{
	sagaz_retry_sent(row, change->now);
}

static List *
native_group_numbers(void)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SagazScan  *scan = sagaz_scan_begin("consumer_group", "consumer_group_pkey",
										snapshot, NULL, 0, ForwardScanDirection);
	List	   *numbers = NIL;

	while (sagaz_scan_next(scan))
		numbers = lappend_int(numbers, DatumGetInt16(sagaz_column(scan->slot, group_group_no)));
	sagaz_scan_end(scan);
	UnregisterSnapshot(snapshot);
	return numbers;
}

/*
 * Let an event of the log count as sent from now on, for all groups but one.
 * Locks as native_change_event() does, a group after the other.
 */
static void
finish_native_in_groups(Datum event_id, int but_for)
{
	ListCell   *cell;

	foreach(cell, native_group_numbers())
	{
		SagazEventChange change = {.event_id = event_id};

		if (lfirst_int(cell) == but_for)
			continue;
		sagaz_group_by_no((int16) lfirst_int(cell), &change.group);
		if (sagaz_event_change_look(&change) && sagaz_event_change_lock(&change) &&
			change.state.status != EVENT_SENT && change.state.status != EVENT_NONE)
			sagaz_event_change(&change, EVENT_IS_SENT, false, set_native_sent, NULL);
		sagaz_event_change_end(&change);
	}
}

/* The same for all groups, the store's too, which is made if it is not there. */
void
native_finish_event(SagazStore *store, Datum event_id)
{
	SagazGroup	group;

	sagaz_group_use(store->consumer_group, &group);
	finish_native_in_groups(event_id, 0);
}

/*
 * Make an event of the log like the record.  Takes the locks of
 * event_change.c and keeps them until the transaction ends; makes the group
 * if it is not there.  What another storage has sent is sent for all groups.
 */
NativeOutcome
native_change_event(NativePut *put, const SagazRecord *record, Datum event_id)
{
	SagazEventChange change = {.event_id = event_id};
	SagazRecord there = {.kind = SAGAZ_EVENT};
	bool		is_its;
	NativeOutcome outcome = NATIVE_CHANGED;

	if (!lock_native_event(put->store, &change))
		return NATIVE_GONE;
	is_its = change.state.status != EVENT_NONE;
	if (is_its)
	{
		SagazFoundEvent found = {.slot = change.event,.state = change.state};

		native_event_of(change.states, &found, &there.event);
	}
	if (is_its && sagaz_merge_keeps(&there, record, put->over_claims))
		outcome = NATIVE_KEPT;
	else
		replace_native_event(&change, &record->event, is_its);
	sagaz_event_change_end(&change);
	if (put->is_merge && sagaz_event_status(record->event.status) == EVENT_SENT)
		finish_native_in_groups(event_id, change.group.no);
	return outcome;
}

/*
 * A batch of nobody for what is claimed elsewhere.  Waits for the lanes in
 * which there are events, and keeps their locks; the retry rows are the
 * caller's to write.  A time to come counts as now.
 */
int64
native_make_batch(const SagazGroup *group, const int *events,
				  TimestampTz claimed_at)
{
	return sagaz_adopted_batch(group, events,
							   Max(0, Min(sagaz_real_time(claimed_at),
										  GetCurrentTimestamp())));
}
