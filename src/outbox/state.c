/*
 * state.c
 *		Where an event stands for one consumer group.
 *
 * No row says so by itself.  A row in outbox_retry overrides everything.
 * Otherwise the lane's cursor tells whether the group has come to the event;
 * if it has, the event was handed out first by the "root", the oldest batch
 * whose cursor counts it as handed out, and again by the batches that name
 * that root and whose range covers it.  The receipts of the last of those
 * tell the rest.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "backends/record/record.h"
#include "outbox/batch.h"
#include "outbox/outbox.h"
#include "outbox/retry.h"
#include "outbox/state.h"

/* The root of a place that the lane still owes; 0 if it owes it not. */
static int64
find_owed_root(SagazStates *states, int16 lane, uint64 pos, int64 seq)
{
	ListCell   *cell;

	foreach(cell, sagaz_states_cursor(states, lane)->owed)
	{
		const SagazOwed *owed = lfirst(cell);

		if (sagaz_cursor_range_has(owed, states->group.no, lane, pos, seq,
								   states->cluster, states->snapshot))
			return owed->root;
	}
	return 0;
}

/*
 * The oldest batch of the lane that counts the place as handed out; the
 * cursor does.  Later ones all do, so the ids can be bisected.
 */
static int64
bisect_state_root(SagazStates *states, int16 lane, uint64 pos, int64 seq)
{
	int64		low = 0;
	int64		root = sagaz_states_cursor(states, lane)->batch_id;
	int64		high = root >> SAGAZ_GROUP_BITS;
	MemoryContext outer = MemoryContextSwitchTo(states->work_context);

	while (low < high)
	{
		int64		middle = low + (high - low) / 2;
		TupleTableSlot *row = sagaz_states_batch_from(states, lane,
													  middle << SAGAZ_GROUP_BITS);
		SagazWindow window;

		if (row == NULL)
			elog(ERROR, "batch " INT64_FORMAT " went away", root);
		sagaz_window_decode(sagaz_column(row, batch_ends), &window);
		if (sagaz_window_counts(&window,
								DatumGetInt64(sagaz_column(row, batch_last_seq)),
								states->cluster, pos, seq))
		{
			root = DatumGetInt64(sagaz_column(row, batch_batch_id));
			high = middle;
		}
		else
			low = (DatumGetInt64(sagaz_column(row, batch_batch_id)) >>
				   SAGAZ_GROUP_BITS) + 1;
		MemoryContextReset(states->work_context);
	}
	MemoryContextSwitchTo(outer);
	return root;
}

static void
state_by_holder(const SagazChainLink *holder, int64 seq, SagazEventState *state)
{
	const SagazReceipts *receipts = &holder->receipts;
	const SagazNamedPlace *named = sagaz_receipts_find(receipts, seq);
	bool		acked = named && named->sent;

	state->batch_id = holder->batch_id;
	state->claimed_at = holder->claimed_at;
	state->worker_id = holder->worker_id;
	if (acked || receipts->closed_by == RECEIPT_SENT)
	{
		state->status = EVENT_SENT;
		state->where = WHERE_DONE;
		state->sent_at = acked ? named->at : receipts->closed_at;
		state->last_error = NULL;
		return;
	}
	if (receipts->closed_by == 0)
	{
		state->status = EVENT_CLAIMED;
		state->where = WHERE_OUT;
		state->lease_end = sagaz_batch_lease_end(holder->claimed_at, receipts->until,
												 GetCurrentTimestamp());
		state->last_error = NULL;
		return;
	}
	state->status = EVENT_PENDING;
	state->where = WHERE_RETURNED;
	state->closed_by = receipts->closed_by;
	state->lost += receipts->closed_by == RECEIPT_TAKEN_OVER;
	state->next_attempt_at = receipts->until;
	if (receipts->error)
		state->last_error = receipts->error;
}

/*
 * The state of an event that a chain's root handed out first and that has no
 * retry row.  An event of the range that no holder covers was passed over,
 * for it is none of the group's.
 */
void
sagaz_state_by_chain(SagazStates *states, SagazChain *chain, uint64 pos,
					 int64 seq, SagazEventState *state)
{
	ListCell   *cell;

	memset(state, 0, sizeof(SagazEventState));
	state->status = EVENT_NONE;
	state->where = WHERE_NOT_ITS;
	foreach(cell, chain->holders)
	{
		const SagazChainLink *holder = lfirst(cell);

		if (!sagaz_chain_covers(states, chain, holder, pos, seq, false))
			continue;
		state_by_holder(holder, seq, state);
		if (state->where != WHERE_RETURNED)
			return;
	}
	if (state->where == WHERE_RETURNED)
	{
		state->claimed_at = 0;
		state->worker_id = NULL;
	}
}

static TimestampTz
time_column(TupleTableSlot *slot, int attnum)
{
	return sagaz_column_is_null(slot, attnum) ? 0 :
		DatumGetTimestampTz(sagaz_column(slot, attnum));
}

/* A time that may have come with a record, and be the one that 0 stands for. */
static TimestampTz
record_time_column(TupleTableSlot *slot, int attnum)
{
	return sagaz_column_is_null(slot, attnum) ? 0 :
		sagaz_record_time(time_column(slot, attnum));
}

/*
 * A waiting row counts as failed while it remembers when it failed; one that
 * an operator or the end of a hold sent back forgets that.
 */
static EventStatus
state_status_of_retry(TupleTableSlot *retry)
{
	switch (DatumGetInt16(sagaz_column(retry, retry_state)))
	{
		case RETRY_WAITING:
			return sagaz_column_is_null(retry, retry_failed_at) ?
				EVENT_PENDING : EVENT_FAILED;
		case RETRY_OUT:
			return EVENT_CLAIMED;
		case RETRY_DEAD:
			return EVENT_DEAD_LETTER;
		case RETRY_SENT:
			return EVENT_SENT;
		default:
			return EVENT_PENDING;
	}
}

/*
 * The state that a row of outbox_retry tells; texts lie in the present memory
 * context.
 */
void
sagaz_state_of_retry(TupleTableSlot *retry, SagazEventState *state)
{
	memset(state, 0, sizeof(SagazEventState));
	state->where = WHERE_RETRY;
	state->retry_state = DatumGetInt16(sagaz_column(retry, retry_state));
	state->retry_count = DatumGetInt32(sagaz_column(retry, retry_retry_count));
	state->last_error = sagaz_column_text(retry, retry_last_error);
	if (!sagaz_column_is_null(retry, retry_batch_limit))
		state->batch_limit = DatumGetInt32(sagaz_column(retry, retry_batch_limit));
	state->next_attempt_at = time_column(retry, retry_next_attempt_at);
	state->failed_at = record_time_column(retry, retry_failed_at);
	state->status = state_status_of_retry(retry);
	if (state->retry_state == RETRY_HELD)
		return;
	state->claimed_at = record_time_column(retry, retry_claimed_at);
	state->worker_id = sagaz_column_text(retry, retry_worker_id);
	state->sent_at = record_time_column(retry, retry_sent_at);
	if ((state->status == EVENT_SENT || state->status == EVENT_CLAIMED) &&
		!sagaz_column_is_null(retry, retry_batch_id))
		state->batch_id = DatumGetInt64(sagaz_column(retry, retry_batch_id));
}

/* When the lease ends of the batch that a claimed event is out in. */
TimestampTz
sagaz_state_lease_end(const SagazStates *states, const SagazEventState *state)
{
	SagazReceipts receipts;

	if (state->where == WHERE_OUT)
		return state->lease_end;
	sagaz_receipts_read(state->batch_id, states->snapshot, &receipts);
	return sagaz_batch_lease_end(sagaz_real_time(state->claimed_at), receipts.until,
								 GetCurrentTimestamp());
}

/* The state of an event that the group has still to come to. */
void
sagaz_state_unread(TupleTableSlot *event, SagazEventState *state)
{
	memset(state, 0, sizeof(SagazEventState));
	state->status = EVENT_PENDING;
	state->where = WHERE_UNREAD;
	state->next_attempt_at = time_column(event, outbox_available_at);
}

/* The chain of an event; neighbours in the log mostly share it. */
static SagazChain *
state_chain_of(SagazStates *states, int16 lane, uint64 pos, int64 seq)
{
	SagazChain *chain = states->chain;
	int64		root;

	if (chain && chain->lane == lane && chain->holders != NIL &&
		sagaz_chain_covers(states, chain, linitial(chain->holders), pos, seq,
						   true))
		return chain;
	root = find_owed_root(states, lane, pos, seq);
	if (root == 0)
		root = bisect_state_root(states, lane, pos, seq);
	return sagaz_states_chain(states, lane, root);
}

/*
 * The state of any event of the log; texts lie in the present memory context
 * or last until another event is asked about.  It stays so only while the
 * lock of the event's lane, or of the batch that it is out in, is held and
 * the snapshot was taken after it.
 */
void
sagaz_state_of(SagazStates *states, TupleTableSlot *event,
			   SagazEventState *state)
{
	uint64		pos = DatumGetUInt64(sagaz_column(event, outbox_pos));
	int64		seq = DatumGetInt64(sagaz_column(event, outbox_seq));
	int16		lane = DatumGetInt16(sagaz_column(event, outbox_lane));
	TupleTableSlot *retry = sagaz_states_retry_row(states, seq);

	if (retry)
		sagaz_state_of_retry(retry, state);
	else if (!sagaz_group_gets(&states->group, event))
	{
		memset(state, 0, sizeof(SagazEventState));
		state->status = EVENT_NONE;
		state->where = WHERE_NOT_ITS;
	}
	else if (sagaz_states_unread(states, lane, pos, seq))
		sagaz_state_unread(event, state);
	else
		sagaz_state_by_chain(states, state_chain_of(states, lane, pos, seq), pos, seq,
							 state);
}
