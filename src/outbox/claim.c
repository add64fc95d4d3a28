/*
 * claim.c
 *		claim_batch(): hand events out to a worker.
 *
 * A claim works lane by lane.  Under the lane's lock it takes one snapshot
 * and serves, in this order: retries that are due, one range that has to be
 * handed out again, and what is new.  Then it writes one row, the lane's new
 * cursor.  See lane_claim.c for that part; here are the arguments, the choice
 * of lanes and the flush of WAL before the rows leave, see claim_rows.c.
 */
#include "lib/sagaz.h"

#include "access/clog.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "lib/words.h"
#include "outbox/claim.h"
#include "outbox/locks.h"
#include "outbox/outbox.h"
#include "lib/rows.h"
#include "outbox/place_number.h"

#if PG_VERSION_NUM >= 170000
#define oldest_clog_xid() (TransamVariables->oldestClogXid)
#else
#define oldest_clog_xid() (ShmemVariableCache->oldestClogXid)
#endif

/* How long a claim waits for a lane when others hold all that matter. */
#define LANE_WAIT_MS 100
#define LANE_POLL_MS 2

PG_FUNCTION_INFO_V1(sagaz_claim_batch);

/*
 * What leaves PostgreSQL must not be undone by a crash: make durable the
 * commits of all transactions whose events are returned.  After synchronous
 * commits there is nothing to do.
 */
static void
flush_claimed_commits(const SagazClaim *claim)
{
	XLogRecPtr	last = InvalidXLogRecPtr;
	TransactionId oldest;

	LWLockAcquire(XactTruncationLock, LW_SHARED);
	oldest = oldest_clog_xid();
	for (int i = 0; i < claim->nxids; i++)
		if (TransactionIdFollowsOrEquals(claim->xids[i], oldest))
			last = Max(last, TransactionIdGetCommitLSN(claim->xids[i]));
	LWLockRelease(XactTruncationLock);
	if (!XLogRecPtrIsInvalid(last))
		XLogFlush(last);
}

/* Serve one lane if it is free; false if it is another's. */
static bool
claim_from_lane(SagazClaim *claim, int16 lane)
{
	MemoryContext outer;

	if (!sagaz_lock_lane(claim->group.no, lane, false))
		return false;
	if (claim->batch_id == 0)
		claim->now = GetCurrentTimestamp();
	outer = MemoryContextSwitchTo(claim->lane_context);
	sagaz_lane_claim(claim, lane);
	MemoryContextSwitchTo(outer);
	MemoryContextReset(claim->lane_context);
	return true;
}

/*
 * Serve the lanes in "taken", so many, as they become free, for a short while;
 * a lane that is taken is not a lane without events.
 */
static void
wait_for_lanes_to_claim(SagazClaim *claim, bool *taken, int ntaken)
{
	for (int waited = 0; waited < LANE_WAIT_MS; waited += LANE_POLL_MS)
	{
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LANE_POLL_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		claim->group_is_known = false;
		for (int16 lane = 0; lane < SAGAZ_LANES; lane++)
			if (taken[lane] && claim_from_lane(claim, lane))
			{
				taken[lane] = false;
				ntaken--;
			}
		if (claim->picked > 0 || ntaken == 0)
			return;
	}
}

/* Go round the lanes, starting at another each time. */
static void
claim_lanes(SagazClaim *claim)
{
	static uint32 first_lane = 0;
	bool		taken[SAGAZ_LANES] = {false};
	int			ntaken = 0;

	if (first_lane == 0)
		first_lane = MyProcPid;
	first_lane++;
	for (int i = 0; i < SAGAZ_LANES && !sagaz_claim_is_full(claim); i++)
	{
		int16		lane = (first_lane + i) % SAGAZ_LANES;

		if (!claim_from_lane(claim, lane))
		{
			taken[lane] = true;
			ntaken++;
		}
	}
	if (claim->picked == 0 && ntaken > 0)
		wait_for_lanes_to_claim(claim, taken, ntaken);
}

static void
check_claim_transaction(void)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_TRANSACTION),
				 errmsg("claim_batch() works in READ COMMITTED transactions only"),
				 errhint("Begin the transaction with ISOLATION LEVEL READ COMMITTED.")));
	PreventCommandDuringRecovery("claim_batch()");
	PreventCommandIfReadOnly("claim_batch()");
	PreventCommandIfParallelMode("claim_batch()");
	sagaz_check_seq_cache();
}

/*
 * Claim for claim->worker_id up to claim->limit events of the group, which go
 * to claim->rows.  The caller has set what claim.h says is his.  Lanes that
 * were looked at stay locked until the transaction ends, or the savepoint is
 * rolled back.  The caller sees the batch after this, and what he gets is
 * durable.
 */
void
sagaz_claim(SagazClaim *claim, const char *consumer_group)
{
	check_claim_transaction();
	/* migrate() pauses all groups before it lets go of the table again */
	LockRelationOid(sagaz_relation_id("outbox_batch"), RowExclusiveLock);
	sagaz_group_use(consumer_group, &claim->group);
	claim->worker_datum = CStringGetTextDatum(claim->worker_id);
	claim->group_datum = CStringGetTextDatum(claim->group.name);
	claim->status_claimed = sagaz_event_status_value(EVENT_CLAIMED);
	claim->next_xid = U64FromFullTransactionId(ReadNextFullTransactionId());
	claim->xids_size = 64;
	claim->xids = palloc(claim->xids_size * sizeof(TransactionId));
	if (claim->for_stream)
	{
		claim->stream_ms = sagaz_stream_next_ms(claim->group.no,
												claim->stream_after);
		sagaz_stream_places_init(&claim->places);
	}
	claim->context = CurrentMemoryContext;
	claim->lane_context = AllocSetContextCreate(CurrentMemoryContext,
												"sagaz claim",
												ALLOCSET_DEFAULT_SIZES);
	sagaz_relations_keep_begin();
	if (!claim->group.paused)
		claim_lanes(claim);
	if (claim->batch_writer)
		sagaz_writer_end(claim->batch_writer);
	sagaz_relations_keep_end();
	if (claim->batch_id != 0)
		CommandCounterIncrement();
	flush_claimed_commits(claim);
	MemoryContextDelete(claim->lane_context);
}

/* claim_batch(worker_id, batch_size, older_than, consumer_group, storage) */
Datum
sagaz_claim_batch(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	SagazClaim	claim = {0};
	char	   *group;

	sagaz_rows_begin(fcinfo);
	claim.worker_id = sagaz_text_argument(fcinfo, 0, "worker_id");
	if (PG_ARGISNULL(1) || PG_GETARG_INT32(1) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("batch_size must be at least 1")));
	claim.limit = PG_GETARG_INT32(1);
	claim.older_than = sagaz_interval_argument(fcinfo, 2, "older_than");
	group = sagaz_group_argument(fcinfo, 3, SAGAZ_DEFAULT_GROUP);
	claim.rows = result->setResult;
	claim.row_type = result->setDesc;
	sagaz_claim(&claim, group);
	return (Datum) 0;
}
