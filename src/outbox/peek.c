/*
 * peek.c
 *		Is there something for a consumer group to claim?
 *
 * The same questions as a claim asks, without locks and without writing.
 * What is seen may be gone when the claim comes; what becomes claimable later
 * is announced by a commit or by the clock.
 *
 * New events are looked for in the window up to now before the rest of the
 * window being read: where there are many, the first look finds one.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "outbox/cursor.h"
#include "outbox/group.h"
#include "outbox/lane.h"
#include "outbox/outbox.h"
#include "outbox/peek.h"
#include "outbox/place_number.h"
#include "outbox/retry.h"

/*
 * Having seen so many rows that are not to be handed out, say that there is
 * something: a claim then moves the cursor behind them.
 */
#define MANY_ROWS 1000

typedef struct Peek
{
	SagazGroup	group;
	SagazLane	look;
	SagazCursor cursor;
	TimestampTz next;			/* when the answer may change by itself */
} Peek;

static void
note_peeked_time(Peek *peek, TimestampTz at)
{
	peek->next = Min(peek->next, at);
}

/* Would a claim hand out this event of the log? */
static bool
peek_at_event(Peek *peek, TupleTableSlot *event)
{
	SagazTurn	turn = sagaz_lane_turn_of_event(&peek->look, event);

	if (turn == TURN_SCHEDULED)
		note_peeked_time(peek, DatumGetTimestampTz(sagaz_column(event,
																outbox_available_at)));
	return turn == TURN_NOW;
}

/* Is one of the events of a range to be handed out? */
static bool
peek_at_range(Peek *peek, const SagazWindow *window, int64 after,
			  int64 upto, const SagazOwed *again)
{
	SagazWindowScan *scan = sagaz_lane_scan(&peek->look, window, after, upto,
											MANY_ROWS);
	TupleTableSlot *event;
	bool		found = false;
	bool		many = false;

	while (!found && !many && (event = sagaz_window_scan_next(scan)) != NULL)
	{
		found = (again == NULL ||
				 !sagaz_owed_acked(again, sagaz_window_scan_last(scan))) &&
			peek_at_event(peek, event);
		many = sagaz_window_scan_rows_read(scan) > MANY_ROWS;
	}
	many = sagaz_window_scan_rows_read(scan) > MANY_ROWS &&
		sagaz_window_scan_last(scan) > after;
	sagaz_window_scan_end(scan);
	return found || many;
}

/* Is there an event that no claim has come to? */
static bool
peek_at_new(Peek *peek)
{
	SagazWindow next = {.from = peek->cursor.window.to,.to = peek->look.end};

	return peek_at_range(peek, &next, 0, PG_INT64_MAX, NULL) ||
		peek_at_range(peek, &peek->cursor.window, peek->cursor.last_seq,
					  PG_INT64_MAX, NULL);
}

/* Note when the first retry that waits is due. */
static void
peek_at_next_due(Peek *peek)
{
	ScanKeyData keys[3];
	SagazScan  *scan;

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, peek->group.no);
	sagaz_key_int2(&keys[1], 2, BTEqualStrategyNumber, peek->look.no);
	sagaz_key_time(&keys[2], 3, BTGreaterStrategyNumber, peek->look.now);
	scan = sagaz_scan_begin("outbox_retry", "outbox_retry_due",
							peek->look.snapshot, keys, 3, ForwardScanDirection);
	if (sagaz_scan_next(scan))
		note_peeked_time(peek, DatumGetTimestampTz(sagaz_column(scan->slot,
																retry_next_attempt_at)));
	sagaz_scan_end(scan);
}

/* Is there a retry that is due and waits for no other? */
static bool
peek_at_due_retry(Peek *peek)
{
	SagazScan  *due = sagaz_retry_scan_due(peek->group.no, peek->look.no,
										   peek->look.now, peek->look.snapshot);
	bool		found = false;

	while (!found && sagaz_scan_next(due))
		found = sagaz_lane_turn_of_retry(&peek->look, due->slot) == TURN_NOW;
	sagaz_scan_end(due);
	if (!found)
		peek_at_next_due(peek);
	return found;
}

/*
 * Look at one entry of what the lane owes.  Sets *found if it can be handed
 * out, in whole or in part; returns whether it is still out or waits, so that
 * an ordered group gets nothing else from the lane.
 */
static bool
peek_at_owed(Peek *peek, SagazOwed *owed, bool *found)
{
	SagazWindow window;
	TimestampTz at;

	switch (sagaz_lane_turn_of_owed(&peek->look, owed, &at))
	{
		case TURN_NEVER:
			return false;
		case TURN_OUT:
			note_peeked_time(peek, at);
			return true;
		default:
			break;
	}
	/* an expired batch of retries: a claim takes it over */
	*found = !owed->range ||
		(sagaz_cursor_open_range(owed, peek->group.no, peek->look.no,
								 peek->look.snapshot, &window) &&
		 peek_at_range(peek, &window, owed->lo, owed->hi, owed));
	return false;
}

/* Is there something in the lane? */
static bool
peek_at_lane(Peek *peek)
{
	ListCell   *cell;
	bool		found = false;

	sagaz_cursor_read(peek->group.no, peek->look.no, peek->look.snapshot,
					  &peek->cursor);
	foreach(cell, peek->cursor.owed)
	{
		if (peek_at_owed(peek, lfirst(cell), &found) && peek->group.ordered)
			return false;
		if (found)
			return true;
	}
	return peek_at_due_retry(peek) || peek_at_new(peek);
}

/*
 * Could a claim of the group hand something out now?  If not, *next is when
 * that may change though nothing is committed; PG_INT64_MAX for never.  Takes
 * no lock and no xid, and writes nothing; an error where the outbox is inert.
 * Memory of the look is left in the present context.
 */
bool
sagaz_peek(const char *group_name, TimestampTz now, TimestampTz *next)
{
	Peek		peek = {.look.group = &peek.group,.look.now = now,.next = PG_INT64_MAX};
	bool		found = false;

	/* the default group need not exist to have something to claim */
	if (strcmp(group_name, SAGAZ_DEFAULT_GROUP) != 0)
		sagaz_group_get(group_name, &peek.group);
	else
		(void) sagaz_group_find(group_name, &peek.group);
	sagaz_lane_look(&peek.look);
	while (!found && !peek.group.paused && peek.look.no < SAGAZ_LANES)
	{
		found = peek_at_lane(&peek);
		peek.look.no++;
	}
	UnregisterSnapshot(peek.look.snapshot);
	*next = peek.next;
	return found;
}
