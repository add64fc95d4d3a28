/*
 * sequences.c
 *		Sequences that must not fall behind the tables.
 *
 * A copy of the data may lack its sequences: logical replication carries none,
 * and a dump can leave them out.  Places that are drawn anew would lie where
 * the groups have read already, and batches would have numbers that are in
 * use.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "storage/lmgr.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "lib/owner.h"
#include "lib/tuples.h"
#include "outbox/outbox.h"
#include "outbox/place_number.h"
#include "outbox/sequences.h"
#include "outbox/window.h"

/*
 * Batches that a group may claim in a second, on average from one activation
 * to the next, if their numbers are never to meet.  With the bits of the group
 * such a number is exact in a double until 2069.
 */
#define BATCHES_A_SECOND	4000

/* The last place of the log that is in it still. */
static int64
last_seq_of_log(Snapshot snapshot)
{
	int64		last = 0;

	for (int16 lane = 0; lane < SAGAZ_LANES; lane++)
	{
		ScanKeyData key;
		SagazScan  *scan;

		sagaz_key_int2(&key, 1, BTEqualStrategyNumber, lane);
		scan = sagaz_scan_begin("outbox", "outbox_lane_seq", snapshot, &key, 1,
								BackwardScanDirection);
		if (sagaz_scan_next(scan))
			last = Max(last, DatumGetInt64(sagaz_column(scan->slot, outbox_seq)));
		sagaz_scan_end(scan);
	}
	return last;
}

/* What the claims tell: the last place that one saw, and the last batch. */
static void
last_of_batches(Snapshot snapshot, int64 *seq, int64 *batch)
{
	Relation	rel = sagaz_relation_hold("outbox_batch", AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		SagazWindow window;

		slot_getallattrs(slot);
		sagaz_window_decode(sagaz_column(slot, batch_ends), &window);
		*seq = Max(*seq, window.to.last_seq);
		*batch = Max(*batch, DatumGetInt64(sagaz_column(slot, batch_batch_id))
					 >> SAGAZ_GROUP_BITS);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	sagaz_relation_let_go(rel, AccessShareLock);
}

/*
 * What a sequence draws next is to be above that.  Several may raise it at
 * once, and others draw meanwhile, so it is looked at under a lock that lasts
 * as long as this.
 */
static void
raise_sequence(const char *name, int64 last)
{
	Oid			sequence = sagaz_relation_id(name);
	SagazUser	user;

	LockRelationOid(sequence, ShareUpdateExclusiveLock);
	if (sagaz_sequence_last(name) < last)
	{
		sagaz_become_owner(&user);
		DirectFunctionCall2(setval_oid, ObjectIdGetDatum(sequence), Int64GetDatum(last));
		sagaz_owner_restore(&user);
	}
	UnlockRelationOid(sequence, ShareUpdateExclusiveLock);
}

/*
 * Before the first place or batch of a copy is drawn.  Reads all rows of
 * outbox_batch, and leaves the sequences raised whatever becomes of the
 * transaction.
 */
void
sagaz_sequences_catch_up(Snapshot snapshot)
{
	int64		seq = last_seq_of_log(snapshot);
	int64		batch = 0;

	last_of_batches(snapshot, &seq, &batch);
	raise_sequence(SAGAZ_SEQUENCE, seq);
	raise_sequence(SAGAZ_BATCH_SEQUENCE, batch);
}

/*
 * Number batches from here on as nobody did: where the data come from, and in
 * other copies, they went on from where these ones stopped.
 */
void
sagaz_sequences_leave_copies(void)
{
	raise_sequence(SAGAZ_BATCH_SEQUENCE,
				   GetCurrentTimestamp() / (USECS_PER_SEC / BATCHES_A_SECOND));
}
