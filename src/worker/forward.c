/*
 * forward.c
 *		Handing a claimed batch to another storage: its events become pending
 *		events there.
 *
 * The claim is committed before the target is talked to, and the batch is
 * finished afterwards, so that no transaction, snapshot or lock is held
 * meanwhile.  Who is interrupted in between sends the batch again; the target
 * leaves an event that it has as it is, so each arrives once.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "outbox/batch.h"
#include "status/event_record.h"
#include "worker/forward.h"
#include "outbox/group.h"
#include "outbox/outstanding.h"
#include "storage/storage.h"

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

/* Take the claimed rows, while their transaction lasts. */
SagazRecord *
sagaz_forward_read(SagazBatch *batch)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(batch->claim.row_type,
													&TTSOpsMinimalTuple);
	SagazRecord *records = palloc0(batch->claim.picked * sizeof(SagazRecord));
	int			count = 0;

	while (tuplestore_gettupleslot(batch->claim.rows, true, false, slot))
	{
		SagazEvent *event = &records[count].event;

		slot_getallattrs(slot);
		records[count++].kind = SAGAZ_EVENT;
		sagaz_event_of_columns(slot->tts_values, slot->tts_isnull, event);
		forget_claim_to_forward(event);
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(batch->claim.rows);
	return records;
}

/* Until sagaz_forward_end() the target has so long; no transaction is open. */
void
sagaz_forward_begin(int timeout_ms)
{
	enable_timeout_after(STATEMENT_TIMEOUT, timeout_ms);
}

void
sagaz_forward_end(void)
{
	disable_timeout(STATEMENT_TIMEOUT, false);
	if (get_timeout_indicator(STATEMENT_TIMEOUT, true))
		QueryCancelPending = false;
}

/* Send them, as events or as entries of a stream; outside of a transaction. */
void
sagaz_forward_send(SagazStore *store, const SagazBatch *batch,
				   SagazRecord *records)
{
	sagaz_forward_begin(batch->delivery->timeout_ms);
	if (batch->delivery->to_stream)
		store->backend->publish(store, records, batch->claim.picked);
	else
		(void) sagaz_put(store, records, batch->claim.picked, SAGAZ_PUT_MISSING);
	sagaz_forward_end();
}

/*
 * Give back what an earlier process of this delivery held when it ended, so
 * that nobody waits for the leases to run out.
 */
void
sagaz_forward_release_left_over(const char *consumer_group,
								const char *worker_id)
{
	SagazGroup	group;
	ListCell   *cell;

	if (!sagaz_group_find(consumer_group, &group))
		return;
	foreach(cell, sagaz_outstanding_batches(&group, NULL))
	{
		SagazOutstanding *batch = lfirst(cell);

		if (!sagaz_batch_is_of(batch->batch_id, worker_id) ||
			!sagaz_outstanding_lock(batch))
			continue;
		(void) sagaz_batch_release(batch->batch_id, worker_id,
								   "the worker ended", 0);
		CommandCounterIncrement();
	}
}
