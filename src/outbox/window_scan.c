/*
 * window_scan.c
 *		Walking the events of a window in one lane, in order of their places,
 *		but for those with a row of the group in outbox_retry.
 *
 * First come the stragglers: places up to the last one drawn at the window's
 * earlier end, whose transactions were running then.  They are found by
 * transaction, a chunk at a time, and merged by place.  Then comes the rest,
 * straight from the index on (lane, seq).
 *
 * Within a window the order is by place, not by xid: a transaction may have
 * taken its xid early, waited for another's commit, and only then inserted.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

#include "outbox/outbox.h"
#include "outbox/retry.h"
#include "outbox/window_scan.h"

/* From so many transactions on, one walk over their range of xids is cheaper. */
#define MAX_PROBES 64

typedef struct Place
{
	int64		seq;
	uint64		pos;
	ItemPointerData tid;
} Place;

struct SagazWindowScan
{
	const SagazWindow *window;
	const SagazCluster *cluster;
	int16		lane;
	int64		after;			/* places up to here are done */
	int64		upto;
	int			chunk;
	Snapshot	snapshot;
	int64		rows_read;

	int			nstragglers;	/* transactions, sorted */
	uint64	   *stragglers;
	bool		more_stragglers;	/* may there be some behind the chunk? */
	Place	   *places;			/* the present chunk */
	int			nplaces;
	int			places_size;
	int			next_place;
	Relation	rel;			/* to fetch them */
	TupleTableSlot *slot;

	SagazScan  *rest;
	SagazRetryPlaces retries;	/* beside the walk */
	int64		last;			/* the last place that was come to */
};

static void
add_window_straggler(SagazWindowScan *scan, int *size, uint64 xid)
{
	const SagazEnd *from = &scan->window->from;
	const SagazEnd *to = &scan->window->to;

	if (to->epoch == from->epoch && !sagaz_window_end_saw_xid(to, xid))
		return;
	if (scan->nstragglers >= *size)
	{
		*size = Max(16, *size * 2);
		scan->stragglers = scan->stragglers == NULL ?
			palloc(*size * sizeof(uint64)) :
			repalloc_huge(scan->stragglers, *size * sizeof(uint64));
	}
	scan->stragglers[scan->nstragglers++] = xid;
}

/* The transactions that were running at "from" and have ended by "to". */
static void
find_window_stragglers(SagazWindowScan *scan)
{
	const SagazEnd *from = &scan->window->from;
	int			size = 0;

	for (int i = 0; i < from->nrunning; i++)
		add_window_straggler(scan, &size, from->running[i]);
	for (uint64 xid = from->xmax; xid < from->next_xid; xid++)
		add_window_straggler(scan, &size, xid);
	scan->more_stragglers = scan->nstragglers > 0;
}

/*
 * Begin a walk behind the place "after" up to "upto".  Window, cluster and
 * snapshot must outlive it; it lies in the present memory context.  chunk is
 * how many events the caller is likely to want.
 */
SagazWindowScan *
sagaz_window_scan_begin(const SagazWindow *window, const SagazCluster *cluster,
						int16 group_no, int16 lane, int64 after, int64 upto,
						int chunk, Snapshot snapshot)
{
	SagazWindowScan *scan = palloc0(sizeof(SagazWindowScan));

	scan->window = window;
	scan->cluster = cluster;
	scan->lane = lane;
	scan->after = after;
	scan->upto = upto;
	scan->chunk = chunk;
	scan->snapshot = snapshot;
	scan->last = after;
	if (after < window->from.last_seq)
		find_window_stragglers(scan);
	sagaz_retry_places_begin(&scan->retries, group_no, after, snapshot);
	return scan;
}

static void
add_window_place(SagazWindowScan *scan, TupleTableSlot *slot)
{
	Place	   *place;

	if (scan->nplaces >= scan->places_size)
	{
		scan->places_size = Max(256, scan->places_size * 2);
		scan->places = scan->places == NULL ?
			palloc(scan->places_size * sizeof(Place)) :
			repalloc_huge(scan->places, scan->places_size * sizeof(Place));
	}
	place = &scan->places[scan->nplaces++];
	place->seq = DatumGetInt64(sagaz_column(slot, outbox_seq));
	place->pos = DatumGetUInt64(sagaz_column(slot, outbox_pos));
	place->tid = slot->tts_tid;
}

/* Does a row that an index led to lie in the window and the lane? */
static bool
is_wanted_in_window(SagazWindowScan *scan, TupleTableSlot *slot)
{
	CHECK_FOR_INTERRUPTS();
	scan->rows_read++;
	return DatumGetInt16(sagaz_column(slot, outbox_lane)) == scan->lane &&
		sagaz_window_has(scan->window, scan->cluster,
						 DatumGetUInt64(sagaz_column(slot, outbox_pos)),
						 DatumGetInt64(sagaz_column(slot, outbox_seq)));
}

/*
 * Collect the first places of each straggler by a probe of (pos, seq).  What
 * lies behind the last place of a stream that was cut short may be missing,
 * so the chunk ends there; returns that place, or the end of the range.
 */
static int64
probe_window_stragglers(SagazWindowScan *scan, int64 last)
{
	ScanKeyData keys[3];
	SagazScan  *probe = NULL;
	int64		complete_to = last;

	sagaz_key_int8(&keys[1], 2, BTGreaterStrategyNumber, scan->after);
	sagaz_key_int8(&keys[2], 2, BTLessEqualStrategyNumber, last);
	for (int i = 0; i < scan->nstragglers; i++)
	{
		int			found = 0;

		sagaz_key_xid8(&keys[0], 1, BTEqualStrategyNumber, scan->stragglers[i]);
		if (probe == NULL)
			probe = sagaz_scan_begin("outbox", "outbox_pos_seq",
									 scan->snapshot, keys, 3,
									 ForwardScanDirection);
		else
			sagaz_scan_again(probe, keys, 3);
		while (found < scan->chunk && sagaz_scan_next(probe))
		{
			if (!is_wanted_in_window(scan, probe->slot))
				continue;
			add_window_place(scan, probe->slot);
			found++;
		}
		if (found == scan->chunk)
			complete_to = Min(complete_to,
							  scan->places[scan->nplaces - 1].seq);
	}
	sagaz_scan_end(probe);
	return complete_to;
}

/* The same for very many transactions: all their places at once. */
static int64
walk_window_stragglers(SagazWindowScan *scan, int64 last)
{
	ScanKeyData keys[4];
	SagazScan  *walk;

	sagaz_key_xid8(&keys[0], 1, BTGreaterEqualStrategyNumber,
				   scan->stragglers[0]);
	sagaz_key_xid8(&keys[1], 1, BTLessEqualStrategyNumber,
				   scan->stragglers[scan->nstragglers - 1]);
	sagaz_key_int8(&keys[2], 2, BTGreaterStrategyNumber, scan->after);
	sagaz_key_int8(&keys[3], 2, BTLessEqualStrategyNumber, last);
	walk = sagaz_scan_begin("outbox", "outbox_pos_seq", scan->snapshot,
							keys, 4, ForwardScanDirection);
	while (sagaz_scan_next(walk))
		if (is_wanted_in_window(scan, walk->slot))
			add_window_place(scan, walk->slot);
	sagaz_scan_end(walk);
	return last;
}

static int
compare_window_places(const void *a, const void *b)
{
	const Place *x = a;
	const Place *y = b;

	return (x->seq > y->seq) - (x->seq < y->seq);
}

/* Load the next chunk of stragglers; false when there are no more. */
static bool
load_window_stragglers(SagazWindowScan *scan)
{
	int64		last = Min(scan->window->from.last_seq, scan->upto);
	int64		complete_to;

	while (scan->more_stragglers && scan->after < last)
	{
		scan->nplaces = scan->next_place = 0;
		complete_to = scan->nstragglers > MAX_PROBES ?
			walk_window_stragglers(scan, last) : probe_window_stragglers(scan, last);
		qsort(scan->places, scan->nplaces, sizeof(Place), compare_window_places);
		while (scan->nplaces > 0 &&
			   scan->places[scan->nplaces - 1].seq > complete_to)
			scan->nplaces--;
		scan->after = complete_to;
		scan->more_stragglers = complete_to < last;
		if (scan->nplaces > 0)
			return true;
	}
	scan->more_stragglers = false;
	return false;
}

static TupleTableSlot *
fetch_window_place(SagazWindowScan *scan)
{
	Place	   *place = &scan->places[scan->next_place++];

	if (scan->rel == NULL)
	{
		scan->rel = sagaz_relation_hold("outbox", AccessShareLock);
		scan->slot = table_slot_create(scan->rel, NULL);
	}
	if (!table_tuple_fetch_row_version(scan->rel, &place->tid, scan->snapshot,
									   scan->slot))
		elog(ERROR, "event at place " INT64_FORMAT " went away", place->seq);
	slot_getallattrs(scan->slot);
	return scan->slot;
}

static void
begin_window_rest(SagazWindowScan *scan)
{
	ScanKeyData keys[3];
	int64		after = Max(scan->after, scan->window->from.last_seq);

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, scan->lane);
	sagaz_key_int8(&keys[1], 2, BTGreaterStrategyNumber, after);
	sagaz_key_int8(&keys[2], 2, BTLessEqualStrategyNumber, scan->upto);
	scan->rest = sagaz_scan_begin("outbox", "outbox_lane_seq", scan->snapshot,
								  keys, 3, ForwardScanDirection);
}

/* The next row of the rest that belongs to the window. */
static bool
next_of_window_rest(SagazWindowScan *scan)
{
	while (sagaz_scan_next(scan->rest))
		if (is_wanted_in_window(scan, scan->rest->slot))
			return true;
	return false;
}

static TupleTableSlot *
next_of_window(SagazWindowScan *scan)
{
	if (scan->next_place < scan->nplaces)
		return fetch_window_place(scan);
	if (scan->rest == NULL)
	{
		if (load_window_stragglers(scan))
			return fetch_window_place(scan);
		scan->nplaces = scan->next_place = 0;
		begin_window_rest(scan);
	}
	return next_of_window_rest(scan) ? scan->rest->slot : NULL;
}

/*
 * The next event, or NULL at the window's end.  The row is valid until the
 * next call; what the walk still needs it allocates in the present memory
 * context, which must last as long.
 */
TupleTableSlot *
sagaz_window_scan_next(SagazWindowScan *scan)
{
	TupleTableSlot *event;

	while ((event = next_of_window(scan)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		scan->last = DatumGetInt64(sagaz_column(event, outbox_seq));
		if (!sagaz_retry_places_have(&scan->retries, scan->last))
			break;
	}
	return event;
}

/* The last place that the walk came to, also if its event has a retry row. */
int64
sagaz_window_scan_last(const SagazWindowScan *scan)
{
	return scan->last;
}

/* How many rows were looked at, those of others included. */
int64
sagaz_window_scan_rows_read(const SagazWindowScan *scan)
{
	return scan->rows_read;
}

/* Close what the walk has open; its rows are gone then. */
void
sagaz_window_scan_end(SagazWindowScan *scan)
{
	sagaz_retry_places_end(&scan->retries);
	if (scan->rest)
		sagaz_scan_end(scan->rest);
	if (scan->rel)
	{
		ExecDropSingleTupleTableSlot(scan->slot);
		sagaz_relation_let_go(scan->rel, AccessShareLock);
	}
	pfree(scan);
}
