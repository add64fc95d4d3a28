/*
 * forward.c
 *		The target that is another storage: events become pending events there,
 *		or entries of its stream.
 *
 * The claim is committed before the storage is talked to, and the batch is
 * finished afterwards, so that no transaction, snapshot or lock is held
 * meanwhile.  Who is interrupted in between sends the batch again; the storage
 * leaves an event that it has as it is, so each arrives once.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "outbox/batch.h"
#include "outbox/group.h"
#include "outbox/lost.h"
#include "outbox/outstanding.h"
#include "outbox/event.h"
#include "storage/storage.h"
#include "wakeup/crash.h"
#include "wakeup/shared.h"
#include "worker/binding.h"
#include "worker/forward.h"
#include "worker/process.h"

static bool
forward_serves(const SagazDelivery *delivery)
{
	return delivery->target != NULL;
}

/* Was the delivery at work when the server crashed, since then? */
static bool
has_crashed_since(const SagazDelivery *delivery, TimestampTz since)
{
	SagazCrashes crashes;
	bool		found;

	LWLockAcquire(sagaz_workers_lock, LW_SHARED);
	found = sagaz_crashes_read(MyDatabaseId, delivery->name, delivery->confirmed_at,
							   &crashes);
	LWLockRelease(sagaz_workers_lock);
	return found && crashes.last >= since;
}

/*
 * Give back a batch, whose lock is held.  An event of it may be why the server
 * crashed; a process that was told to end has no such reason.
 */
static void
end_left_over_batch(const SagazRun *run, const SagazDelivery *delivery, int64 batch_id)
{
	SagazLease	lease;
	bool		lost;

	sagaz_batch_lease_open(batch_id, run->worker_id, &lease);
	lost = has_crashed_since(delivery, lease.claimed_at);
	if (lost)
		sagaz_lost_close(&lease, GetCurrentTimestamp(), run->worker_id);
	sagaz_batch_lease_done(&lease);
	if (!lost)
		(void) sagaz_batch_release(batch_id, run->worker_id, "the worker ended", 0);
	CommandCounterIncrement();
}

static void
end_left_over(const SagazRun *run, const SagazDelivery *delivery)
{
	SagazGroup	group;
	ListCell   *cell;

	if (!sagaz_group_find(delivery->consumer_group, &group))
		return;
	foreach(cell, sagaz_outstanding_batches(&group, NULL))
	{
		SagazOutstanding *batch = lfirst(cell);

		if (!sagaz_batch_is_of(batch->batch_id, run->worker_id) ||
			!sagaz_outstanding_lock(batch))
			continue;
		end_left_over_batch(run, delivery, batch->batch_id);
	}
}

/*
 * Once: end the leases of what an earlier process of this delivery held when it
 * ended, so that nobody waits until they run out.
 */
static bool
forward_catch_up(SagazRun *run, const SagazDelivery *delivery)
{
	if (run->once)
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	end_left_over(run, delivery);
	PopActiveSnapshot();
	CommitTransactionCommand();
	run->once = true;
	return true;
}

/* As it is when it arrives: nobody has tried it there. */
static void
forget_claim_to_forward(SagazEvent *event)
{
	event->status = "pending";
	event->claimed_at = 0;
	event->retry_count = 0;
	event->last_error = NULL;
	event->worker_id = NULL;
}

/*
 * The record and its strings lie in the present memory context, the batch's.
 */
void
sagaz_forward_read(TupleTableSlot *slot, SagazHanded *event)
{
	event->record = palloc0(sizeof(SagazRecord));
	event->record->kind = SAGAZ_EVENT;
	slot_getallattrs(slot);
	sagaz_event_of_row(slot->tts_values, slot->tts_isnull, &event->record->event);
	forget_claim_to_forward(&event->record->event);
}

/* The storage is found here, as deliver() has no transaction to do it in. */
void
sagaz_forward_bind(SagazBatch *batch)
{
	batch->bound = palloc(sizeof(SagazStorage));
	sagaz_binding_storage(batch->delivery, batch->bound);
}

/* The storage, opened anew where an error broke it; outside of a transaction. */
SagazStore *
sagaz_forward_open(SagazBatch *batch)
{
	return sagaz_storage_open(batch->bound, batch->delivery->target, SAGAZ_EVENT);
}

static void
forward_deliver(SagazBatch *batch, int first, int end, bool last)
{
	SagazStore *store = sagaz_forward_open(batch);
	SagazRecord *records = palloc((end - first) * sizeof(SagazRecord));
	int			count = 0;

	for (int i = first; i < end; i++)
		if (!batch->events[i].skipped)
			records[count++] = *batch->events[i].record;
	if (batch->delivery->to_stream)
		store->backend->publish(store, records, count);
	else
		(void) sagaz_put(store, records, count, SAGAZ_PUT_MISSING);
}

static void
forward_end(SagazRun *run, bool done)
{
}

const SagazTarget sagaz_forward_target = {
	.name = "storage",
	.serves = forward_serves,
	.catch_up = forward_catch_up,
	.prepare = sagaz_target_no_more,
	.read = sagaz_forward_read,
	.bind = sagaz_forward_bind,
	.begin = sagaz_target_begins,
	.deliver = forward_deliver,
	.judged = sagaz_target_judges_nothing,
	.end = forward_end
};
