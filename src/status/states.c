/*
 * states.c
 *		What it takes to tell where events stand: the group, its cursors and
 *		the batches and retries behind them, all as of one snapshot.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "lib/words.h"
#include "outbox/outbox.h"
#include "outbox/retry.h"
#include "status/event_state.h"

static void
find_states_datums(SagazStates *states)
{
	for (int status = 0; status < SAGAZ_STATUSES; status++)
		states->status_datum[status] =
			ObjectIdGetDatum(saga_status_word_oid(&event_statuses,
												  event_statuses.words[status]));
}

/*
 * The default group need not exist: then it has read nothing.  The snapshot
 * must outlive the states, and so must the present memory context.
 */
SagazStates *
sagaz_states_open(const char *group, Snapshot snapshot)
{
	SagazStates *states = palloc0(sizeof(SagazStates));

	states->snapshot = snapshot;
	states->context = CurrentMemoryContext;
	states->has_group = sagaz_group_find_in(group, snapshot, &states->group);
	if (!states->has_group && strcmp(group, SAGAZ_DEFAULT_GROUP) != 0)
		sagaz_no_such_group(group);
	if (!states->has_group)
		states->group.name = pstrdup(group);
	states->cluster = sagaz_cluster_read(snapshot);
	find_states_datums(states);
	states->chain_context = AllocSetContextCreate(CurrentMemoryContext,
												  "sagaz chain",
												  ALLOCSET_SMALL_SIZES);
	states->work_context = AllocSetContextCreate(CurrentMemoryContext,
												 "sagaz batch probe",
												 ALLOCSET_SMALL_SIZES);
	return states;
}

/* Close what the states have open.  What they gave out goes with them. */
void
sagaz_states_close(SagazStates *states)
{
	if (states->retry)
		sagaz_scan_end(states->retry);
	if (states->batches)
		sagaz_scan_end(states->batches);
	MemoryContextDelete(states->chain_context);
	MemoryContextDelete(states->work_context);
	pfree(states);
}

/* The lane's cursor, read once; it lasts as long as the states. */
const SagazCursor *
sagaz_states_cursor(SagazStates *states, int16 lane)
{
	if (!states->cursor_read[lane])
	{
		MemoryContext outer = MemoryContextSwitchTo(states->context);

		if (states->has_group)
			sagaz_cursor_read(states->group.no, lane, states->snapshot,
							  &states->cursor[lane]);
		else
		{
			sagaz_window_end_zero(&states->cursor[lane].window.from);
			sagaz_window_end_zero(&states->cursor[lane].window.to);
		}
		states->cursor_read[lane] = true;
		MemoryContextSwitchTo(outer);
	}
	return &states->cursor[lane];
}

/* The group's retry row of a place, or NULL; valid until the next call. */
TupleTableSlot *
sagaz_states_retry_row(SagazStates *states, int64 seq)
{
	ScanKeyData keys[2];

	if (!states->has_group)
		return NULL;
	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, states->group.no);
	sagaz_key_int8(&keys[1], 2, BTEqualStrategyNumber, seq);
	if (states->retry == NULL)
	{
		MemoryContext outer = MemoryContextSwitchTo(states->context);

		states->retry = sagaz_scan_begin("outbox_retry", "outbox_retry_pkey",
										 states->snapshot, keys, 2,
										 ForwardScanDirection);
		MemoryContextSwitchTo(outer);
	}
	else
		sagaz_scan_again(states->retry, keys, 2);
	return sagaz_scan_next(states->retry) ? states->retry->slot : NULL;
}

/* Does a batch, or the cursor, that ends so count the place as handed out? */
bool
sagaz_states_counts(const SagazStates *states, const SagazWindow *window,
					int64 last_seq, uint64 pos, int64 seq)
{
	return sagaz_window_end_saw(&window->from, states->cluster, pos, seq) ||
		(seq <= last_seq &&
		 sagaz_window_end_saw(&window->to, states->cluster, pos, seq));
}

/* Has the group still to come to the place? */
bool
sagaz_states_unread(SagazStates *states, int16 lane, uint64 pos, int64 seq)
{
	const SagazCursor *cursor = sagaz_states_cursor(states, lane);

	return !sagaz_states_counts(states, &cursor->window, cursor->last_seq,
								 pos, seq);
}

/* Does the group get the event off the log at all? */
bool
sagaz_states_is_its(const SagazStates *states, TupleTableSlot *event)
{
	return DatumGetUInt64(sagaz_column(event, outbox_pos)) >= SAGAZ_FIRST_POS &&
		(states->group.start_time == 0 ||
		 DatumGetTimestampTz(sagaz_column(event, outbox_created_at)) >=
		 states->group.start_time);
}

/*
 * The lane's oldest batch with an id from batch_id on; NULL if none.  Valid
 * until the next call.
 */
TupleTableSlot *
sagaz_states_batch_from(SagazStates *states, int16 lane, int64 batch_id)
{
	ScanKeyData keys[3];

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, states->group.no);
	sagaz_key_int2(&keys[1], 2, BTEqualStrategyNumber, lane);
	sagaz_key_int8(&keys[2], 3, BTGreaterEqualStrategyNumber, batch_id);
	if (states->batches == NULL)
	{
		MemoryContext outer = MemoryContextSwitchTo(states->context);

		states->batches = sagaz_scan_begin("outbox_batch", "outbox_batch_key",
										   states->snapshot, keys, 3,
										   ForwardScanDirection);
		MemoryContextSwitchTo(outer);
	}
	else
		sagaz_scan_again(states->batches, keys, 3);
	return sagaz_scan_next(states->batches) ? states->batches->slot : NULL;
}
