/*
 * unread.c
 *		The events that a group has still to come to.
 *
 * However long the log is, only its end is walked, in (lane, seq), from a
 * place up to which an event can be ahead for one reason alone: its
 * transaction was running at one of the two ends of the cursor's window.
 * Those are looked up by transaction.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "status/event_walk.h"
#include "outbox/outbox.h"
#include "outbox/retry.h"

/* Transactions from first to last. */
typedef struct XidRange
{
	uint64		first;
	uint64		last;
} XidRange;

struct SagazUnreadWalk
{
	SagazStates *states;
	int16		lane;
	int16		last_lane;
	int64		tail;			/* behind this place the log itself is walked */
	XidRange   *stragglers;		/* disjoint, rising */
	int			nstragglers;
	int			next_straggler;
	SagazScan  *scan;
	bool		in_tail;
	SagazRetryPlaces places;	/* beside the tail */
	bool		have_places;
	MemoryContext context;
	MemoryContext lane_context;
};

static int
compare_unread_ranges(const void *a, const void *b)
{
	uint64		x = ((const XidRange *) a)->first;
	uint64		y = ((const XidRange *) b)->first;

	return (x > y) - (x < y);
}

static void
add_unread_running(SagazUnreadWalk *walk, const SagazEnd *end)
{
	for (int i = 0; i < end->nrunning; i++)
	{
		XidRange   *range = &walk->stragglers[walk->nstragglers++];

		range->first = range->last = end->running[i];
	}
	if (end->next_xid > end->xmax)
	{
		XidRange   *range = &walk->stragglers[walk->nstragglers++];

		range->first = end->xmax;
		range->last = end->next_xid - 1;
	}
}

/* The transactions that ran at either end of the window, none twice. */
static void
find_unread_stragglers(SagazUnreadWalk *walk, const SagazWindow *window)
{
	int			kept = 0;

	walk->stragglers = palloc((window->from.nrunning + window->to.nrunning + 2) *
							  sizeof(XidRange));
	walk->nstragglers = walk->next_straggler = 0;
	add_unread_running(walk, &window->from);
	add_unread_running(walk, &window->to);
	qsort(walk->stragglers, walk->nstragglers, sizeof(XidRange),
		  compare_unread_ranges);
	for (int i = 0; i < walk->nstragglers; i++)
	{
		XidRange   *range = &walk->stragglers[i];
		XidRange   *last = kept > 0 ? &walk->stragglers[kept - 1] : NULL;

		if (last && range->first <= last->last + 1)
			last->last = Max(last->last, range->last);
		else
			walk->stragglers[kept++] = *range;
	}
	walk->nstragglers = kept;
}

/*
 * Up to the tail, an event is ahead only if it is a straggler: what is not
 * behind the last place drawn at "to" and not seen there was running then;
 * what is not behind the last place drawn at "from" and behind the last one
 * handed out was running at "from".
 */
static void
enter_unread_lane(SagazUnreadWalk *walk)
{
	const SagazCursor *cursor = sagaz_states_cursor(walk->states, walk->lane);
	const SagazWindow *window = &cursor->window;

	walk->tail = Min(Max(cursor->last_seq, window->from.last_seq),
					 window->to.last_seq);
	find_unread_stragglers(walk, window);
	walk->in_tail = false;
}

/* A walk over the lanes from one to another, both included. */
SagazUnreadWalk *
sagaz_unread_begin(SagazStates *states, int16 first_lane, int16 last_lane)
{
	SagazUnreadWalk *walk = palloc0(sizeof(SagazUnreadWalk));

	walk->states = states;
	walk->lane = first_lane;
	walk->last_lane = last_lane;
	walk->context = CurrentMemoryContext;
	walk->lane_context = AllocSetContextCreate(CurrentMemoryContext,
											   "sagaz lane",
											   ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(walk->lane_context);
	enter_unread_lane(walk);
	MemoryContextSwitchTo(walk->context);
	return walk;
}

static void
end_unread_scan(SagazUnreadWalk *walk)
{
	if (walk->have_places)
		sagaz_retry_places_end(&walk->places);
	walk->have_places = false;
	if (walk->scan)
		sagaz_scan_end(walk->scan);
	walk->scan = NULL;
}

static void
begin_unread_straggler(SagazUnreadWalk *walk)
{
	const XidRange *range = &walk->stragglers[walk->next_straggler++];
	ScanKeyData keys[3];

	sagaz_key_xid8(&keys[0], 1, BTGreaterEqualStrategyNumber, range->first);
	sagaz_key_xid8(&keys[1], 1, BTLessEqualStrategyNumber, range->last);
	sagaz_key_int8(&keys[2], 2, BTLessEqualStrategyNumber, walk->tail);
	if (walk->scan)
		sagaz_scan_again(walk->scan, keys, 3);
	else
		walk->scan = sagaz_scan_begin("outbox", "outbox_pos_seq",
									  walk->states->snapshot, keys, 3,
									  ForwardScanDirection);
}

static void
begin_unread_tail(SagazUnreadWalk *walk)
{
	ScanKeyData keys[2];

	end_unread_scan(walk);
	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, walk->lane);
	sagaz_key_int8(&keys[1], 2, BTGreaterStrategyNumber, walk->tail);
	walk->scan = sagaz_scan_begin("outbox", "outbox_lane_seq",
								  walk->states->snapshot, keys, 2,
								  ForwardScanDirection);
	walk->in_tail = true;
	if (walk->states->has_group)
	{
		sagaz_retry_places_begin(&walk->places, walk->states->group.no,
								 walk->tail, walk->states->snapshot);
		walk->have_places = true;
	}
}

/* Go on to the next stretch of the lane, or to the next lane. */
static bool
next_unread_stretch(SagazUnreadWalk *walk)
{
	if (walk->in_tail)
	{
		end_unread_scan(walk);
		if (walk->lane >= walk->last_lane)
			return false;
		MemoryContextReset(walk->lane_context);
		walk->lane++;
		enter_unread_lane(walk);
	}
	if (walk->next_straggler < walk->nstragglers)
		begin_unread_straggler(walk);
	else
		begin_unread_tail(walk);
	return true;
}

static bool
is_unread(SagazUnreadWalk *walk, TupleTableSlot *event)
{
	int64		seq = DatumGetInt64(sagaz_column(event, outbox_seq));

	if (DatumGetInt16(sagaz_column(event, outbox_lane)) != walk->lane ||
		!sagaz_group_gets(&walk->states->group, event) ||
		!sagaz_states_unread(walk->states, walk->lane,
							 DatumGetUInt64(sagaz_column(event, outbox_pos)), seq))
		return false;
	if (!walk->in_tail)
		return sagaz_states_retry_row(walk->states, seq) == NULL;
	return !walk->have_places ||
		!sagaz_retry_places_have(&walk->places, seq);
}

/* The next event, or NULL. */
TupleTableSlot *
sagaz_unread_next(SagazUnreadWalk *walk)
{
	TupleTableSlot *event = NULL;
	MemoryContext outer = MemoryContextSwitchTo(walk->lane_context);

	while (event == NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (walk->scan && sagaz_scan_next(walk->scan))
			event = is_unread(walk, walk->scan->slot) ? walk->scan->slot : NULL;
		else if (!next_unread_stretch(walk))
			break;
	}
	MemoryContextSwitchTo(outer);
	return event;
}

/* At any row; the states stay open, they are the caller's. */
void
sagaz_unread_end(SagazUnreadWalk *walk)
{
	end_unread_scan(walk);
	MemoryContextDelete(walk->lane_context);
	pfree(walk);
}
