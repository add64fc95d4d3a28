/*
 * handed_out.c
 *		The events that a group was handed, in some of the statuses.
 *
 * What is sent is found batch by batch, oldest first: each batch knows the
 * ranges it handed out first.  What is claimed, or waits to be handed out
 * again, is in the ranges that a lane's cursor still owes, so the closed
 * batches are not looked at.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "status/event_walk.h"
#include "outbox/outbox.h"
#include "outbox/receipt.h"
#include "outbox/window_scan.h"

/* Stragglers of a window are loaded so many at a time. */
#define CHUNK 256

struct SagazHandedOutWalk
{
	SagazStates *states;
	int			statuses;
	int16		lane;			/* -1 before the first */
	SagazScan  *batches;		/* of the lane, where sent ones are wanted */
	List	   *ranges;			/* of SagazOwed */
	int			next_range;

	SagazChain *chain;			/* of the present range */
	SagazWindow window;
	SagazWindowScan *events;	/* NULL between two ranges */
	MemoryContext context;
	MemoryContext ranges_context;	/* reset with each list of ranges */
	MemoryContext range_context;	/* reset with each range */
};

/* A walk over what was handed out that is in one of the statuses. */
SagazHandedOutWalk *
sagaz_handed_out_begin(SagazStates *states, int statuses)
{
	SagazHandedOutWalk *walk = palloc0(sizeof(SagazHandedOutWalk));

	walk->states = states;
	walk->statuses = statuses;
	walk->lane = states->has_group ? -1 : SAGAZ_LANES;
	walk->context = CurrentMemoryContext;
	walk->ranges_context = AllocSetContextCreate(CurrentMemoryContext,
												 "sagaz ranges",
												 ALLOCSET_SMALL_SIZES);
	walk->range_context = AllocSetContextCreate(CurrentMemoryContext,
												"sagaz range",
												ALLOCSET_SMALL_SIZES);
	return walk;
}

/* Can the range hold an event in one of the statuses wanted? */
static bool
handed_out_is_of_use(const SagazHandedOutWalk *walk, const SagazOwed *owed)
{
	TimestampTz until;

	switch (sagaz_receipt_closing(owed->holder, walk->states->snapshot, &until))
	{
		case 0:
			return (walk->statuses & status_bit(EVENT_CLAIMED)) != 0;
		case RECEIPT_SENT:
			return false;
		default:
			return (walk->statuses & status_bit(EVENT_PENDING)) != 0;
	}
}

static void
load_handed_owed_ranges(SagazHandedOutWalk *walk)
{
	const SagazCursor *cursor = sagaz_states_cursor(walk->states, walk->lane);
	ListCell   *cell;

	foreach(cell, cursor->owed)
	{
		SagazOwed  *owed = lfirst(cell);

		if (owed->range && handed_out_is_of_use(walk, owed))
			walk->ranges = lappend(walk->ranges, owed);
	}
}

/* The ranges that the present batch handed out first. */
static void
load_handed_batch_ranges(SagazHandedOutWalk *walk)
{
	TupleTableSlot *row = walk->batches->slot;
	int64		batch_id = DatumGetInt64(sagaz_column(row, batch_batch_id));
	ListCell   *cell;

	if (DatumGetInt32(sagaz_column(row, batch_events)) == 0)
		return;
	foreach(cell, sagaz_cursor_row_owed(row))
	{
		SagazOwed  *owed = lfirst(cell);

		if (owed->range && owed->holder == batch_id &&
			owed->root == batch_id)
			walk->ranges = lappend(walk->ranges, owed);
	}
}

static void
begin_handed_batches(SagazHandedOutWalk *walk)
{
	ScanKeyData keys[2];

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, walk->states->group.no);
	sagaz_key_int2(&keys[1], 2, BTEqualStrategyNumber, walk->lane);
	if (walk->batches)
		sagaz_scan_again(walk->batches, keys, 2);
	else
	{
		MemoryContext outer = MemoryContextSwitchTo(walk->context);

		walk->batches = sagaz_scan_begin("outbox_batch", "outbox_batch_key",
										 walk->states->snapshot, keys, 2,
										 ForwardScanDirection);
		MemoryContextSwitchTo(outer);
	}
}

/* Load the next list of ranges, which may be empty; false at the end. */
static bool
load_handed_ranges(SagazHandedOutWalk *walk)
{
	bool		sent = (walk->statuses & status_bit(EVENT_SENT)) != 0;
	MemoryContext outer;

	walk->ranges = NIL;
	walk->next_range = 0;
	MemoryContextReset(walk->ranges_context);
	if (walk->batches == NULL || walk->lane < 0 || !sagaz_scan_next(walk->batches))
	{
		if (walk->lane >= SAGAZ_LANES - 1)
			return false;
		walk->lane++;
		if (sent)
		{
			begin_handed_batches(walk);
			return true;
		}
	}
	outer = MemoryContextSwitchTo(walk->ranges_context);
	if (sent)
		load_handed_batch_ranges(walk);
	else
		load_handed_owed_ranges(walk);
	MemoryContextSwitchTo(outer);
	return true;
}

static void
begin_handed_range(SagazHandedOutWalk *walk, const SagazOwed *owed)
{
	SagazStates *states = walk->states;
	MemoryContext outer = MemoryContextSwitchTo(walk->range_context);

	walk->chain = sagaz_states_chain(states, walk->lane, owed->root);
	if (sagaz_cursor_window(states->group.no, walk->lane, owed->window_batch,
							states->snapshot, &walk->window))
		walk->events = sagaz_window_scan_begin(&walk->window, states->cluster,
											   states->group.no, walk->lane,
											   owed->lo, owed->hi, CHUNK,
											   states->snapshot);
	MemoryContextSwitchTo(outer);
}

static void
end_handed_range(SagazHandedOutWalk *walk)
{
	if (walk->events)
		sagaz_window_scan_end(walk->events);
	walk->events = NULL;
	MemoryContextReset(walk->range_context);
}

/* The next event of the range in a status wanted, or NULL. */
static TupleTableSlot *
next_of_handed_range(SagazHandedOutWalk *walk, SagazEventState *state)
{
	TupleTableSlot *event;

	while ((event = sagaz_window_scan_next(walk->events)) != NULL)
	{
		if (!sagaz_group_gets(&walk->states->group, event))
			continue;
		sagaz_state_by_chain(walk->states, walk->chain,
							 DatumGetUInt64(sagaz_column(event, outbox_pos)),
							 DatumGetInt64(sagaz_column(event, outbox_seq)),
							 state);
		if (walk->statuses & status_bit(state->status))
			return event;
	}
	return NULL;
}

/*
 * The next event and its state, or NULL.  Texts of the state last as the row
 * does.
 */
TupleTableSlot *
sagaz_handed_out_next(SagazHandedOutWalk *walk, SagazEventState *state)
{
	for (;;)
	{
		TupleTableSlot *event = NULL;

		CHECK_FOR_INTERRUPTS();
		if (walk->events)
		{
			MemoryContext outer = MemoryContextSwitchTo(walk->range_context);

			event = next_of_handed_range(walk, state);
			MemoryContextSwitchTo(outer);
			if (event)
				return event;
			end_handed_range(walk);
		}
		else if (walk->next_range < list_length(walk->ranges))
			begin_handed_range(walk, list_nth(walk->ranges, walk->next_range++));
		else if (!load_handed_ranges(walk))
			return NULL;
	}
}

/* At any row; the states stay open, they are the caller's. */
void
sagaz_handed_out_end(SagazHandedOutWalk *walk)
{
	end_handed_range(walk);
	if (walk->batches)
		sagaz_scan_end(walk->batches);
	MemoryContextDelete(walk->range_context);
	MemoryContextDelete(walk->ranges_context);
	pfree(walk);
}
