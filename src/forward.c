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
#include "sagaz.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "batch.h"
#include "event_scan.h"
#include "forward.h"
#include "group.h"
#include "outstanding.h"
#include "storage.h"

static char *
column_text(TupleTableSlot *slot, int column)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column + 1, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

static Jsonb *
column_json(TupleTableSlot *slot, int column)
{
	bool		isnull;

	return DatumGetJsonbPCopy(slot_getattr(slot, column + 1, &isnull));
}

/* The event as it is when it arrives: nobody has tried it there. */
static void
read_event(TupleTableSlot *slot, SagazEvent *event)
{
	bool		isnull;

	event->event_id =
		DatumGetCString(DirectFunctionCall1(uuid_out,
											slot_getattr(slot, event_event_id + 1, &isnull)));
	event->saga_id = column_text(slot, event_saga_id);
	event->aggregate_type = column_text(slot, event_aggregate_type);
	event->aggregate_id = column_text(slot, event_aggregate_id);
	event->event_type = column_text(slot, event_event_type);
	event->payload = column_json(slot, event_payload);
	event->headers = column_json(slot, event_headers);
	event->status = "pending";
	event->created_at =
		sagaz_record_time(DatumGetTimestampTz(slot_getattr(slot, event_created_at + 1,
														   &isnull)));
	event->routing_key = column_text(slot, event_routing_key);
	event->partition_key = column_text(slot, event_partition_key);
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
		records[count].kind = SAGAZ_EVENT;
		read_event(slot, &records[count++].event);
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(batch->claim.rows);
	return records;
}

/* Send them; outside of a transaction. */
void
sagaz_forward_put(SagazStore *store, SagazRecord *records, int count,
				  int timeout_ms)
{
	enable_timeout_after(STATEMENT_TIMEOUT, timeout_ms);
	(void) sagaz_put(store, records, count, SAGAZ_PUT_MISSING);
	disable_timeout(STATEMENT_TIMEOUT, false);
	if (get_timeout_indicator(STATEMENT_TIMEOUT, true))
		QueryCancelPending = false;
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
