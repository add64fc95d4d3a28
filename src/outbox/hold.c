/*
 * hold.c
 *		Ordered groups: after a failure, the later events of its saga that are
 *		in the same batch must not be sent before it.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "catalog/pg_collation.h"
#include "utils/datum.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "outbox/cursor.h"
#include "outbox/mark.h"
#include "outbox/outbox.h"
#include "outbox/retry.h"
#include "outbox/window_scan.h"

typedef struct Hold
{
	SagazLease *lease;
	int16		lane;
	int64		seq;			/* of the event that failed */
	Datum		saga_id;
	Snapshot	snapshot;		/* sees what this command wrote so far */
	SagazWriter *writer;
	int64	   *seqs;			/* held */
	int			nseqs;
	int			size;
} Hold;

static bool
hold_is_of_saga(const Hold *hold, Datum saga_id)
{
	return DatumGetBool(DirectFunctionCall2Coll(texteq, DEFAULT_COLLATION_OID,
												hold->saga_id, saga_id));
}

static void
note_held(Hold *hold, int64 seq)
{
	if (hold->nseqs >= hold->size)
	{
		hold->size = Max(16, hold->size * 2);
		hold->seqs = hold->seqs == NULL ? palloc(hold->size * sizeof(int64)) :
			repalloc(hold->seqs, hold->size * sizeof(int64));
	}
	hold->seqs[hold->nseqs++] = seq;
}

/* Hold the saga's later events in one range that the batch holds. */
static void
hold_in_range(Hold *hold, SagazOwed *owed, const SagazCluster *cluster)
{
	SagazWindow window;
	SagazWindowScan *scan;
	TupleTableSlot *event;
	int64		after = Max(owed->lo, hold->seq);

	if (owed->hi <= after ||
		!sagaz_cursor_open_range(owed, hold->lease->group.no, hold->lane,
								 hold->snapshot, &window))
		return;
	scan = sagaz_window_scan_begin(&window, cluster, hold->lease->group.no,
								   hold->lane, after, owed->hi, 100,
								   hold->snapshot);
	while ((event = sagaz_window_scan_next(scan)) != NULL)
	{
		int64		seq = DatumGetInt64(sagaz_column(event, outbox_seq));

		if (!hold_is_of_saga(hold, sagaz_column(event, outbox_saga_id)) ||
			sagaz_owed_acked(owed, seq))
			continue;
		sagaz_retry_row_of_event(hold->writer, hold->lease->group.no, event,
								 RETRY_HELD);
		sagaz_writer_insert(hold->writer);
		note_held(hold, seq);
	}
	sagaz_window_scan_end(scan);
}

/* Hold those that are out in the batch as retries. */
static void
hold_retries(Hold *hold)
{
	SagazScan  *scan = sagaz_retry_scan_batch(hold->lease->batch_id,
											  hold->snapshot);

	while (sagaz_scan_next(scan))
	{
		int64		seq = DatumGetInt64(sagaz_column(scan->slot, retry_seq));

		if (seq <= hold->seq ||
			!hold_is_of_saga(hold, sagaz_column(scan->slot, retry_saga_id)))
			continue;
		sagaz_writer_copy(hold->writer, scan->slot);
		sagaz_writer_set(hold->writer, retry_state, Int16GetDatum(RETRY_HELD));
		sagaz_writer_clear(hold->writer, retry_batch_id);
		sagaz_retry_forget_claim(hold->writer);
		sagaz_writer_update(hold->writer, scan->slot, hold->snapshot);
		note_held(hold, seq);
	}
	sagaz_scan_end(scan);
}

/* The saga of a place, and whether its event still blocks it. */
static bool
read_failed(Hold *hold)
{
	SagazScan  *scan = sagaz_retry_row_of(hold->lease->group.no, hold->seq,
										  hold->snapshot);
	bool		blocks;

	if (!sagaz_scan_next(scan))
		elog(ERROR, "retry row went away");
	hold->saga_id = datumCopy(sagaz_column(scan->slot, retry_saga_id), false, -1);
	blocks = DatumGetInt16(sagaz_column(scan->slot, retry_state)) == RETRY_WAITING;
	sagaz_scan_end(scan);
	return blocks;
}

/*
 * The event at seq of an ordered group has failed, which is written already
 * and visible to a new snapshot; the lease is open.  Take the later events of
 * its saga out of the batch and return how many.  They wait for it; if it is
 * dead, the first of them is due at once.  The worker need not tell the two
 * cases apart: after a failure the rest of the saga is not its business.
 */
int
sagaz_hold_back(SagazLease *lease, int16 lane, int64 seq, TimestampTz now)
{
	Hold		hold = {.lease = lease,.lane = lane,.seq = seq};
	SagazCursor cursor;
	SagazCluster *cluster;
	ListCell   *cell;

	bool		dead;

	hold.snapshot = RegisterSnapshot(GetLatestSnapshot());
	dead = !read_failed(&hold);
	cluster = sagaz_cluster_read(hold.snapshot);
	sagaz_cursor_read(lease->group.no, lane, hold.snapshot, &cursor);
	hold.writer = sagaz_writer_begin("outbox_retry");
	foreach(cell, cursor.owed)
	{
		SagazOwed  *owed = lfirst(cell);

		if (owed->holder == lease->batch_id && owed->range)
			hold_in_range(&hold, owed, cluster);
	}
	hold_retries(&hold);
	sagaz_writer_end(hold.writer);
	UnregisterSnapshot(hold.snapshot);
	if (hold.nseqs > 0)
		sagaz_receipt_events(lease->batch_id, RECEIPT_EVENTS_MOVED, now,
							 hold.seqs, hold.nseqs);
	CommandCounterIncrement();
	if (dead)
		sagaz_retry_let_go(&lease->group, hold.saga_id, now);
	return hold.nseqs;
}

/*
 * The retry at seq was sent, which is written already: let the next of its
 * saga go.  The caller holds the lock of its batch, or of its lane.
 */
void
sagaz_hold_let_go_of(const SagazGroup *group, int64 seq)
{
	Snapshot	snapshot;
	SagazScan  *scan;

	if (!group->ordered)
		return;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = sagaz_retry_row_of(group->no, seq, snapshot);
	if (sagaz_scan_next(scan))
		sagaz_retry_let_go(group, sagaz_column(scan->slot, retry_saga_id),
						   GetCurrentTimestamp());
	sagaz_scan_end(scan);
	UnregisterSnapshot(snapshot);
}
