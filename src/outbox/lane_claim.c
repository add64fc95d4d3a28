/*
 * lane_claim.c
 *		What one claim takes from one lane, under the lane's lock.
 *
 * Nothing here may look at the log, the cursor, receipts or retries with a
 * snapshot from before the lock: another claim may have moved the cursor
 * while we waited.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "outbox/batch.h"
#include "outbox/claim.h"
#include "outbox/event.h"
#include "outbox/lane.h"
#include "outbox/lost.h"
#include "outbox/outbox.h"
#include "outbox/place_number.h"
#include "outbox/receipt.h"
#include "outbox/retry.h"

/* A claim that read so many rows for nothing moves the cursor all the same. */
#define MANY_ROWS 1000
/* … but not more often than this. */
#define EMPTY_ROW_INTERVAL_US USECS_PER_SEC
/* So many events with which alone a worker was lost are failed by one claim. */
#define MAX_LOST_AT_ONCE 1000

typedef struct LaneClaim
{
	SagazClaim *claim;
	SagazLane	look;
	SagazCursor cursor;			/* as found */

	List	   *owed;			/* of the new row: SagazOwed */
	int64		root;			/* of the range handed out again, or 0 */
	int			picked;			/* events from this lane */
	int			diverted;		/* events that became retry rows */
	int64		rows_read;
	bool		stopped;		/* an event was too young, or the claim is full */
	bool		moved;			/* a range that was owed is done, or shorter */
	SagazWriter *retry_writer;	/* opened when needed */
	SagazScan  *log;			/* by event_id, opened when needed */
} LaneClaim;

static SagazWriter *
lane_retry_writer(LaneClaim *lane)
{
	if (lane->retry_writer == NULL)
		lane->retry_writer = sagaz_writer_begin("outbox_retry");
	return lane->retry_writer;
}

/* A cursor ahead of this cluster was written elsewhere. */
static void
check_lane_cursor(const LaneClaim *lane)
{
	const SagazEnd *to = &lane->cursor.window.to;

	if (!lane->cursor.found || to->epoch != lane->look.end.epoch)
		return;
	if (to->xmax > Max(lane->look.end.next_xid, lane->look.end.xmax))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_STORAGE),
				 errmsg("the outbox is not active in this database"),
				 errdetail("A consumer group's position lies beyond the transactions of this cluster."),
				 errhint("If this copy is to deliver events, run SELECT %s.activate().",
						 SAGAZ_SCHEMA)));
	if (to->last_seq > lane->look.end.last_seq)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("sequence \"%s.outbox_seq\" was set back", SAGAZ_SCHEMA),
				 errdetail("Its last value is " INT64_FORMAT ", a consumer group has read up to " INT64_FORMAT ".",
						   lane->look.end.last_seq, to->last_seq),
				 errhint("Set it to the highest value ever reached with setval().")));
}

/*
 * Turn an event into a retry row of this group instead of handing it out.
 */
static void
divert(LaneClaim *lane, TupleTableSlot *event, int state)
{
	SagazWriter *writer = lane_retry_writer(lane);

	sagaz_retry_row_of_event(writer, lane->claim->group.no, event, state);
	if (state == RETRY_SCHEDULED)
		sagaz_writer_set(writer, retry_next_attempt_at,
						 sagaz_column(event, outbox_available_at));
	sagaz_writer_insert(writer);
	lane->diverted++;
}

/* Deal with the next event of a window; false to end before it. */
static bool
claim_event(LaneClaim *lane, TupleTableSlot *event)
{
	switch (sagaz_lane_turn_of_event(&lane->look, event))
	{
		case TURN_NOW:
			sagaz_claim_emit(lane->claim, event, NULL, lane->look.cluster);
			lane->picked++;
			return true;
		case TURN_SCHEDULED:
			divert(lane, event, RETRY_SCHEDULED);
			return true;
		case TURN_HELD:
			divert(lane, event, RETRY_HELD);
			return true;
		case TURN_TOO_YOUNG:
			return false;
		default:
			return true;
	}
}

/*
 * Hand out the events of a window at places above "after" up to "upto" that
 * are not in "again" as finished.  Returns the last place that was dealt
 * with; it is upto unless the claim stopped before.
 */
static int64
claim_range(LaneClaim *lane, const SagazWindow *window, int64 after, int64 upto,
			const SagazOwed *again)
{
	SagazClaim *claim = lane->claim;
	SagazWindowScan *scan;
	TupleTableSlot *event;
	int64		last = after;

	lane->stopped = sagaz_claim_is_full(claim);
	if (lane->stopped)
		return after;
	scan = sagaz_lane_scan(&lane->look, window, after, upto,
						   claim->limit - claim->picked);
	while (!lane->stopped && (event = sagaz_window_scan_next(scan)) != NULL)
	{
		int64		seq = DatumGetInt64(sagaz_column(event, outbox_seq));
		bool		finished = again && sagaz_owed_acked(again, seq);

		if (sagaz_claim_is_full(claim) ||
			(!finished && !claim_event(lane, event)))
			lane->stopped = true;
		else
			last = seq;
	}
	if (!lane->stopped)
		last = upto == PG_INT64_MAX ? sagaz_window_scan_last(scan) : upto;
	lane->rows_read += sagaz_window_scan_rows_read(scan);
	sagaz_window_scan_end(scan);
	return last;
}

/* Hand a retry row's event out. */
static void
claim_retry(LaneClaim *lane, TupleTableSlot *retry)
{
	SagazClaim *claim = lane->claim;
	SagazWriter *writer = lane_retry_writer(lane);
	TupleTableSlot *event =
		sagaz_event_fetch(&lane->log, sagaz_column(retry, retry_event_id),
						  lane->look.snapshot);

	if (event == NULL)
		return;
	sagaz_claim_emit(claim, event, retry, lane->look.cluster);
	lane->picked++;
	sagaz_writer_copy(writer, retry);
	sagaz_writer_set(writer, retry_state, Int16GetDatum(RETRY_OUT));
	sagaz_writer_set(writer, retry_batch_id,
					 Int64GetDatum(sagaz_claim_batch_id(claim)));
	sagaz_writer_set(writer, retry_claimed_at, TimestampTzGetDatum(claim->now));
	sagaz_writer_set(writer, retry_worker_id, claim->worker_datum);
	sagaz_writer_clear(writer, retry_next_attempt_at);
	sagaz_writer_clear(writer, retry_batch_limit);
	sagaz_writer_update(writer, retry, lane->look.snapshot);
}

/*
 * What was in a lost batch goes with nothing else: may a retry of that limit,
 * 0 for none, go with the so many that the claim has?  The first one decides,
 * and the lowest limit counts.
 */
static bool
may_go_with_claim(SagazClaim *claim, int limit, int picked)
{
	bool		lost = limit > 0;

	if (picked == 0)
		claim->among_lost = lost;
	if (lost != claim->among_lost || (lost && limit <= picked))
		return false;
	if (lost)
		claim->limit = Min(claim->limit, limit);
	return true;
}

static int
limit_of_retry(TupleTableSlot *retry)
{
	return sagaz_column_is_null(retry, retry_batch_limit) ? 0 :
		DatumGetInt32(sagaz_column(retry, retry_batch_limit));
}

/* The held rows right behind a retry of an ordered group go with it. */
static void
claim_followers(LaneClaim *lane, TupleTableSlot *retry)
{
	SagazScan  *scan =
		sagaz_retry_scan_saga(lane->claim->group.no,
							  sagaz_column(retry, retry_saga_id),
							  DatumGetInt64(sagaz_column(retry, retry_seq)),
							  lane->look.snapshot);

	while (!sagaz_claim_is_full(lane->claim) && sagaz_scan_next(scan) &&
		   DatumGetInt16(sagaz_column(scan->slot, retry_state)) == RETRY_HELD)
		claim_retry(lane, scan->slot);
	sagaz_scan_end(scan);
}

/*
 * Hand out an ordered group's retries whose time has come, in the order of
 * their places: behind a failure, what has a later place is held back, and
 * scheduled events may be due in another order.
 */
static void
claim_in_order(LaneClaim *lane, SagazScan *due)
{
	SagazClaim *claim = lane->claim;
	StringInfoData buffer;
	int64	   *seqs;
	int			nseqs = 0;

	initStringInfo(&buffer);
	while (!sagaz_claim_is_full(claim) && claim->picked + nseqs < claim->limit &&
		   sagaz_scan_next(due))
	{
		int64		seq = DatumGetInt64(sagaz_column(due->slot, retry_seq));

		if (sagaz_lane_turn_of_retry(&lane->look, due->slot) != TURN_NOW ||
			!may_go_with_claim(claim, limit_of_retry(due->slot),
							   claim->picked + nseqs))
			continue;
		appendBinaryStringInfo(&buffer, (char *) &seq, sizeof(seq));
		nseqs++;
	}
	seqs = (int64 *) buffer.data;
	qsort(seqs, nseqs, sizeof(int64), sagaz_place_compare);
	for (int i = 0; i < nseqs && !sagaz_claim_is_full(claim); i++)
	{
		SagazScan  *scan = sagaz_retry_row_of(claim->group.no, seqs[i],
											  lane->look.snapshot);

		if (sagaz_scan_next(scan))
		{
			claim_retry(lane, scan->slot);
			if (!claim->among_lost)
				claim_followers(lane, scan->slot);
		}
		sagaz_scan_end(scan);
	}
	pfree(buffer.data);
}

/* Hand out the retries whose time has come. */
static void
claim_due_retries(LaneClaim *lane)
{
	SagazClaim *claim = lane->claim;
	SagazScan  *due = sagaz_retry_scan_due(claim->group.no, lane->look.no,
										   claim->now, lane->look.snapshot);

	if (claim->group.ordered)
		claim_in_order(lane, due);
	else
		while (!sagaz_claim_is_full(claim) && sagaz_scan_next(due))
			if (may_go_with_claim(claim, limit_of_retry(due->slot), claim->picked))
				claim_retry(lane, due->slot);
	sagaz_scan_end(due);
	claim->alone |= claim->among_lost && claim->picked > 0;
}

/* Note a range that this claim's batch holds from now on. */
static void
owe_lane_range(LaneClaim *lane, int64 root, int64 window_batch, int64 lo, int64 hi,
			   const SagazOwed *again)
{
	SagazOwed  *owed = palloc0(sizeof(SagazOwed));

	owed->holder = sagaz_claim_batch_id(lane->claim);
	owed->root = root == 0 ? owed->holder : root;
	owed->window_batch = window_batch == 0 ? owed->root : window_batch;
	owed->range = true;
	owed->lo = lo;
	owed->hi = hi;
	owed->claimed_at = lane->claim->now;
	if (again)
	{
		owed->acked = palloc((again->nacked + 1) * sizeof(int64));
		for (int i = 0; i < again->nacked; i++)
			if (again->acked[i] > lo && again->acked[i] <= hi)
				owed->acked[owed->nacked++] = again->acked[i];
	}
	lane->owed = lappend(lane->owed, owed);
}

/* Make ready to walk what is left of the entry's range. */
static void
open_owed_range(LaneClaim *lane, SagazOwed *owed, SagazWindow *window)
{
	if (!sagaz_cursor_open_range(owed, lane->claim->group.no, lane->look.no,
								 lane->look.snapshot, window))
		elog(ERROR, "batch " INT64_FORMAT " went away", owed->window_batch);
}

/*
 * Hand out again what an ended lease left; what does not fit stays owed.  It
 * keeps its place at the head of the list.
 */
static void
claim_again(LaneClaim *lane, SagazOwed *again)
{
	List	   *others = lane->owed;
	SagazWindow window;
	int			before = lane->picked;
	int64		last;

	open_owed_range(lane, again, &window);
	last = claim_range(lane, &window, again->lo, again->hi, again);
	lane->moved |= last > again->lo;
	lane->owed = NIL;
	if (lane->picked > before)
	{
		owe_lane_range(lane, again->root, again->window_batch, again->lo, last, again);
		lane->root = again->root;
	}
	if (last < again->hi)
	{
		again->lo = last;
		lane->owed = lappend(lane->owed, again);
	}
	lane->owed = list_concat(lane->owed, others);
}

/* Hand out what is new: the rest of the cursor's window, then the next. */
static void
claim_new(LaneClaim *lane, SagazCursor *row)
{
	int			before = lane->picked;
	int64		last;

	last = claim_range(lane, &row->window, row->last_seq, PG_INT64_MAX, NULL);
	if (lane->picked > before)
		owe_lane_range(lane, 0, row->found ? row->batch_id : 0, row->last_seq, last, NULL);
	row->last_seq = last;
	if (lane->stopped)
		return;

	before = lane->picked;
	row->window.from = row->window.to;
	row->window.to = lane->look.end;
	row->last_seq = claim_range(lane, &row->window, 0, PG_INT64_MAX, NULL);
	if (lane->picked > before)
		owe_lane_range(lane, 0, 0, 0, row->last_seq, NULL);
}

/*
 * The turn of an entry, of which one that has run out is taken over if it may
 * be: then what was looked at is old.
 */
static SagazTurn
find_owed_turn(LaneClaim *lane, const SagazOwed *owed, bool may_take,
			   bool *taken_over)
{
	SagazClaim *claim = lane->claim;
	TimestampTz at;
	SagazTurn	turn = sagaz_lane_turn_of_owed(&lane->look, owed, &at);

	if (turn != TURN_EXPIRED)
		return turn;
	if (!may_take || !sagaz_lost_take_over(owed, claim->now, claim->worker_id))
		return TURN_OUT;
	*taken_over = true;
	return owed->range ? TURN_NOW : TURN_NEVER;
}

/* How many events of the entry's range are still to be handed out; 2 for more. */
static int
count_owed_events(LaneClaim *lane, SagazOwed *owed)
{
	SagazWindow window;
	SagazWindowScan *scan;
	TupleTableSlot *event;
	int			count = 0;

	open_owed_range(lane, owed, &window);
	scan = sagaz_lane_scan(&lane->look, &window, owed->lo, owed->hi, 1);
	while (count < 2 && (event = sagaz_window_scan_next(scan)) != NULL)
		if (sagaz_group_gets(lane->look.group, event) &&
			!sagaz_owed_acked(owed, sagaz_window_scan_last(scan)))
			count++;
	sagaz_window_scan_end(scan);
	return count;
}

/*
 * A worker was lost with one event alone: it has failed.  False if there are
 * more in the range.  The lane is to be looked at anew behind this.
 */
static bool
fail_lost_event(LaneClaim *lane, SagazOwed *owed, const char *worker_id)
{
	SagazWriter *writer = lane_retry_writer(lane);
	SagazWindow window;
	SagazWindowScan *scan;
	TupleTableSlot *event;

	if (count_owed_events(lane, owed) > 1)
		return false;
	open_owed_range(lane, owed, &window);
	scan = sagaz_lane_scan(&lane->look, &window, owed->lo, owed->hi, 1);
	while ((event = sagaz_window_scan_next(scan)) != NULL)
	{
		if (!sagaz_group_gets(lane->look.group, event) ||
			sagaz_owed_acked(owed, sagaz_window_scan_last(scan)))
			continue;
		sagaz_lost_retry_row(writer, lane->claim->group.no, event, owed, worker_id,
							 lane->claim->now);
		sagaz_writer_insert(writer);
		lane->diverted++;
	}
	sagaz_window_scan_end(scan);
	return true;
}

/*
 * Go through what the lane owes, lane->owed.  Leaves there what stays owed as
 * it is and returns the entry to hand out again, if any, with its limit; those
 * that were alone in a batch that was lost are dealt with, but not too many at
 * once.  In an ordered group only the first entry counts; *busy says that the
 * lane must wait for it.
 */
static SagazOwed *
find_owed(LaneClaim *lane, bool *busy)
{
	SagazOwed  *again = NULL;
	List	   *all = lane->owed;
	bool		changed = false;
	int			failed = 0;
	bool		ordered = lane->claim->group.ordered;
	ListCell   *cell;

	*busy = false;
	lane->owed = NIL;
	foreach(cell, all)
	{
		SagazOwed  *owed = lfirst(cell);
		SagazTurn	turn = find_owed_turn(lane, owed, again == NULL && !*busy, &changed);

		if (turn == TURN_NEVER)
			continue;
		if (turn == TURN_NOW && again == NULL && !*busy && failed < MAX_LOST_AT_ONCE)
		{
			char	   *alone = sagaz_lost_set_limit(owed);

			if (alone && fail_lost_event(lane, owed, alone))
				failed++;
			else
				again = owed;
			continue;
		}
		if (ordered && again == NULL)
			*busy = true;
		lane->owed = lappend(lane->owed, owed);
	}
	if (failed > 0)
		CommandCounterIncrement();
	if (changed || failed > 0)
		sagaz_lane_look(&lane->look);
	return again;
}

/*
 * Hand out the entry that find_owed() found; of a lost batch, if the claim has
 * nothing else.  Where an ordered group finds nothing left in it, the next
 * entry's turn has come.
 */
static void
claim_owed(LaneClaim *lane, SagazOwed *again)
{
	SagazClaim *claim = lane->claim;

	while (again && !sagaz_claim_is_full(claim) &&
		   (again->limit == 0 || claim->picked == 0))
	{
		int			limit = claim->limit;
		bool		lost = again->limit > 0;
		bool		busy;

		if (lost)
			claim->limit = Min(limit, again->limit);
		claim_again(lane, again);
		claim->alone = lost && claim->picked > 0;
		if (claim->picked == 0)
			claim->limit = limit;
		again = NULL;
		if (claim->group.ordered && lane->root == 0 && !lane->stopped)
			again = find_owed(lane, &busy);
	}
	if (again)
		lane->owed = lcons(again, lane->owed);
}

/* Is it worth a row that so much was read in vain? */
static bool
lane_was_read_in_vain(const LaneClaim *lane)
{
	return lane->rows_read > MANY_ROWS && !lane->stopped &&
		lane->cursor.claimed_at + EMPTY_ROW_INTERVAL_US < lane->claim->now;
}

/* Give the row its entries in the stream. */
static void
number_claimed_entries(SagazClaim *claim, SagazCursor *row)
{
	row->stream_ms = claim->stream_ms++;
	row->stream_places = sagaz_stream_places_encode(&claim->places);
	claim->stream_rows[claim->nstream_rows].ms = row->stream_ms;
	claim->stream_rows[claim->nstream_rows++].count = claim->places.count;
}

static SagazWriter *
lane_batch_writer(SagazClaim *claim)
{
	MemoryContext outer;

	if (claim->batch_writer)
		return claim->batch_writer;
	outer = MemoryContextSwitchTo(claim->context);
	claim->batch_writer = sagaz_writer_begin("outbox_batch");
	MemoryContextSwitchTo(outer);
	return claim->batch_writer;
}

static void
write_lane_cursor(LaneClaim *lane, SagazCursor *row)
{
	SagazClaim *claim = lane->claim;

	row->batch_id = sagaz_claim_batch_id(claim);
	row->claimed_at = claim->now;
	row->owed = lane->owed;
	if (claim->for_stream && lane->picked > 0)
		number_claimed_entries(claim, row);
	sagaz_cursor_write(lane_batch_writer(claim), claim->group.no, lane->look.no, row,
					   lane->root, lane->picked,
					   lane->picked > 0 ? claim->worker_id : NULL);
}

/* A batch that holds nothing but retries is out all the same. */
static void
owe_lane_retries(LaneClaim *lane)
{
	SagazOwed  *owed = palloc0(sizeof(SagazOwed));

	owed->holder = owed->root = owed->window_batch =
		sagaz_claim_batch_id(lane->claim);
	owed->claimed_at = lane->claim->now;
	lane->owed = lappend(lane->owed, owed);
}

/*
 * Take what the claim still wants from a lane that waits for nobody.  What is
 * handed out again goes before retries in an ordered group, and of a lost batch
 * as it goes alone.
 */
static void
serve_free_lane(LaneClaim *lane, SagazOwed *again, SagazCursor *row)
{
	SagazClaim *claim = lane->claim;
	int			retries;

	if (again == NULL ||
		(!claim->group.ordered && (again->limit == 0 || claim->picked > 0)))
		claim_due_retries(lane);
	retries = lane->picked;
	claim_owed(lane, again);
	if (claim->group.ordered && again && lane->picked == 0 && lane->owed == NIL)
	{
		/* those that were handed out before wait for one that failed */
		claim_due_retries(lane);
		retries = lane->picked;
	}
	if (!sagaz_claim_is_full(claim) && !lane->stopped &&
		!(claim->group.ordered && lane->owed != NIL))
		claim_new(lane, row);
	if (retries > 0 && retries == lane->picked)
		owe_lane_retries(lane);
}

/* Take from the lane what the claim still wants. */
static void
serve_lane(LaneClaim *lane)
{
	SagazCursor row;
	SagazOwed  *again;
	bool		busy;

	lane->owed = lane->cursor.owed;
	again = find_owed(lane, &busy);
	row = lane->cursor;
	if (!busy)
		serve_free_lane(lane, again, &row);
	if (lane->picked > 0 || lane->diverted > 0 || lane->moved ||
		lane_was_read_in_vain(lane))
		write_lane_cursor(lane, &row);
}

/*
 * The lane's lock is held.  Where the lane was claimed after this claim drew
 * its batch id, it is left alone: ids of a lane's rows only rise.  The
 * present memory context is reset when this lane is done; only the writer of
 * outbox_batch lives longer.
 */
void
sagaz_lane_claim(SagazClaim *claim, int16 lane_no)
{
	LaneClaim	lane = {.claim = claim,.look = {.group = &claim->group,.no = lane_no,
	.now = claim->now,.older_than = claim->older_than}};

	if (claim->for_stream)
		sagaz_stream_places_reset(&claim->places);
	sagaz_lane_look(&lane.look);
	sagaz_cursor_read(claim->group.no, lane_no, lane.look.snapshot, &lane.cursor);
	if (!claim->group_is_known || !lane.cursor.found)
		sagaz_group_check(&claim->group);
	claim->group_is_known = true;
	check_lane_cursor(&lane);
	if (!claim->group.paused &&
		(claim->batch_id == 0 || lane.cursor.batch_id < claim->batch_id))
		serve_lane(&lane);
	if (lane.log)
		sagaz_scan_end(lane.log);
	if (lane.retry_writer)
		sagaz_writer_end(lane.retry_writer);
	UnregisterSnapshot(lane.look.snapshot);
}
