/*
 * event_change.c
 *		Saying where one event of the log stands for a group.
 *
 * The event may be anywhere: ahead of the group, in an open batch, left over
 * from one, or among the retries.  Under the lane's lock it cannot be handed
 * out, and under the lock of its batch nobody else can say what became of it.
 * An event that the group has not come to gets a retry row: claims pass those
 * that have one.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "status/event_change.h"
#include "outbox/locks.h"
#include "outbox/mark.h"
#include "outbox/outbox.h"
#include "outbox/outstanding.h"
#include "outbox/retry.h"
#include "wakeup/wake.h"

/*
 * Look at the event and where it stands now, with a new snapshot; false if it
 * is not in the log.  The caller has set group and event_id.  Rows of
 * an earlier look are gone.
 */
bool
sagaz_event_change_look(SagazEventChange *change)
{
	sagaz_event_change_end(change);
	change->snapshot = RegisterSnapshot(GetLatestSnapshot());
	change->states = sagaz_states_of_group(&change->group, change->snapshot);
	change->event = sagaz_states_event(change->states, change->event_id);
	if (change->event == NULL)
		return false;
	change->seq = DatumGetInt64(sagaz_column(change->event, outbox_seq));
	change->lane = DatumGetInt16(sagaz_column(change->event, outbox_lane));
	sagaz_state_of(change->states, change->event, &change->state);
	return true;
}

/* Let go of what was looked at; what is locked stays so. */
void
sagaz_event_change_end(SagazEventChange *change)
{
	if (change->states == NULL)
		return;
	sagaz_states_close(change->states);
	change->states = NULL;
	UnregisterSnapshot(change->snapshot);
}

/*
 * Keep the event, which was looked at, where it is: lock its lane, and its
 * batch if it is out.  In an ordered group all batches of the lane are
 * locked, for their workers may let held events of the saga go.  False if it
 * has left the log.
 */
bool
sagaz_event_change_lock(SagazEventChange *change)
{
	int16		lane = change->lane;
	ListCell   *cell;

	(void) sagaz_lock_lane(change->group.no, lane, true);
	sagaz_group_check(&change->group);
	if (change->group.ordered)
		foreach(cell, sagaz_outstanding_batches(&change->group, &lane))
			(void) sagaz_outstanding_lock(lfirst(cell));
	if (!sagaz_event_change_look(change))
		return false;
	if (change->state.status == EVENT_CLAIMED)
	{
		(void) sagaz_lock_batch(change->state.batch_id, true);
		if (!sagaz_event_change_look(change))
			return false;
	}
	change->now = GetCurrentTimestamp();
	return true;
}

/* Start the retry row of an event that has none. */
static void
start_changed_row(const SagazEventChange *change, SagazWriter *writer,
				  const SagazLease *lease)
{
	sagaz_retry_row_of_event(writer, change->group.no, change->event,
							 RETRY_WAITING);
	if (lease == NULL)
		return;
	sagaz_writer_set(writer, retry_claimed_at,
					 TimestampTzGetDatum(lease->claimed_at));
	if (change->state.worker_id)
		sagaz_writer_set(writer, retry_worker_id,
						 CStringGetTextDatum(change->state.worker_id));
}

static void
write_changed_row(const SagazEventChange *change, const SagazLease *lease,
				  SagazSetRetry set, void *arg)
{
	SagazWriter *writer = sagaz_writer_begin("outbox_retry");

	if (change->state.where == WHERE_RETRY)
	{
		TupleTableSlot *old = sagaz_states_retry_row(change->states, change->seq);

		sagaz_writer_copy(writer, old);
		set(change, writer, arg);
		sagaz_writer_update(writer, old, change->snapshot);
	}
	else
	{
		start_changed_row(change, writer, lease);
		set(change, writer, arg);
		sagaz_writer_insert(writer);
	}
	sagaz_writer_end(writer);
	CommandCounterIncrement();
}

/* Change an event that is in an open batch, whose lock is ours. */
static void
change_in_batch(const SagazEventChange *change, SagazEventEnd end,
				bool needs_row, SagazSetRetry set, void *arg)
{
	SagazLease	lease;
	int64		seq = change->seq;
	int			held = 0;

	sagaz_batch_lease_open(change->state.batch_id, NULL, &lease);
	if (change->state.where == WHERE_RETRY || end != EVENT_IS_SENT || needs_row)
		write_changed_row(change, &lease, set, arg);
	sagaz_receipt_events(lease.batch_id,
						 end == EVENT_IS_SENT ?
						 RECEIPT_EVENTS_SENT : RECEIPT_EVENTS_MOVED,
						 change->now, &seq, 1);
	CommandCounterIncrement();
	if (end == EVENT_IS_SENT)
		sagaz_hold_let_go_of(&change->group, seq);
	else if (change->group.ordered)
		held = sagaz_hold_back(&lease, change->lane, seq, change->now);
	sagaz_batch_close_if_done(&lease, 1 + held, change->now);
	sagaz_batch_lease_done(&lease);
}

/*
 * Change the locked event's state.  One that a batch has sent needs no row,
 * unless there is more to be kept than when that was.  What was looked at is
 * old afterwards.
 */
void
sagaz_event_change(SagazEventChange *change, SagazEventEnd end, bool needs_row,
				   SagazSetRetry set, void *arg)
{
	if (change->state.status == EVENT_CLAIMED)
		change_in_batch(change, end, needs_row, set, arg);
	else
	{
		write_changed_row(change, NULL, set, arg);
		if (end != EVENT_GOES_ON)
			sagaz_hold_let_go_of(&change->group, change->seq);
	}
	sagaz_wake_at_commit();
}
