/*
 * saga_events.c
 *		The events of a saga, in the order of the log.
 *
 * The index on saga_id is a BRIN: it leads to ranges of pages that may hold
 * the saga, not to rows.  Those pages are read, what belongs to the saga is
 * noted by place and returned in that order.
 *
 * Pages that vacuum has not seen yet may hold anything.  Where there are many
 * of them, to walk the saga's lane costs less than to read them all.
 */
#include "lib/sagaz.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "nodes/tidbitmap.h"
#include "utils/memutils.h"

#include "status/event_walk.h"
#include "outbox/outbox.h"

#if PG_VERSION_NUM >= 180000
#define begin_bitmap_scan(index, snapshot, nkeys) \
	index_beginscan_bitmap(index, snapshot, NULL, nkeys)
#define begin_blocks(bitmap) tbm_begin_private_iterate(bitmap)
#define end_blocks(blocks) tbm_end_private_iterate(blocks)
typedef TBMPrivateIterator Blocks;
#else
#define begin_bitmap_scan(index, snapshot, nkeys) \
	index_beginscan_bitmap(index, snapshot, nkeys)
#define begin_blocks(bitmap) tbm_begin_iterate(bitmap)
#define end_blocks(blocks) tbm_end_iterate(blocks)
typedef TBMIterator Blocks;
#endif

#define INDEX_NAME "outbox_saga"
/* The bitmap of pages may take so much memory. */
#define BITMAP_BYTES (4 * 1024 * 1024)

/* From so many pages on the lane is walked. */
#define MANY_PAGES 8192

typedef struct EventPlace
{
	int64		seq;
	ItemPointerData tid;
} EventPlace;

struct SagazSagaWalk
{
	Relation	rel;
	Snapshot	snapshot;
	TupleTableSlot *slot;
	text	   *saga_id;
	TableScanDesc pages;
	EventPlace *places;
	int			nplaces;
	int			places_size;
	int			next_place;
};

/* The next block that the bitmap names; false at the end. */
static bool
next_events_block(Blocks *blocks, BlockNumber *block)
{
#if PG_VERSION_NUM >= 180000
	TBMIterateResult result;

	if (!tbm_private_iterate(blocks, &result))
		return false;
	*block = result.blockno;
#else
	TBMIterateResult *result = tbm_iterate(blocks);

	if (result == NULL)
		return false;
	*block = result->blockno;
#endif
	return true;
}

static bool
is_of_saga(const SagazSagaWalk *walk, TupleTableSlot *slot)
{
	bool		isnull;
	text	   *saga_id = DatumGetTextPP(slot_getattr(slot, outbox_saga_id, &isnull));
	bool		same = VARSIZE_ANY_EXHDR(saga_id) == VARSIZE_ANY_EXHDR(walk->saga_id) &&
		memcmp(VARDATA_ANY(saga_id), VARDATA_ANY(walk->saga_id),
			   VARSIZE_ANY_EXHDR(saga_id)) == 0;

	if ((Pointer) saga_id != DatumGetPointer(slot->tts_values[outbox_saga_id - 1]))
		pfree(saga_id);
	return same;
}

static void
note_event_place(SagazSagaWalk *walk, TupleTableSlot *slot)
{
	EventPlace *place;
	bool		isnull;

	if (walk->nplaces >= walk->places_size)
	{
		walk->places_size = Max(64, walk->places_size * 2);
		walk->places = walk->places == NULL ?
			palloc(walk->places_size * sizeof(EventPlace)) :
			repalloc_huge(walk->places, walk->places_size * sizeof(EventPlace));
	}
	place = &walk->places[walk->nplaces++];
	place->seq = DatumGetInt64(slot_getattr(slot, outbox_seq, &isnull));
	place->tid = slot->tts_tid;
}

/* Read the pages from one to another. */
static void
read_events_pages(SagazSagaWalk *walk, BlockNumber first, BlockNumber last)
{
	ItemPointerData min;
	ItemPointerData max;

	CHECK_FOR_INTERRUPTS();
	ItemPointerSet(&min, first, FirstOffsetNumber);
	ItemPointerSet(&max, last, MaxOffsetNumber);
	if (walk->pages == NULL)
		walk->pages = table_beginscan_tidrange(walk->rel, walk->snapshot,
											   &min, &max);
	else
		table_rescan_tidrange(walk->pages, &min, &max);
	while (table_scan_getnextslot_tidrange(walk->pages, ForwardScanDirection,
										   walk->slot))
		if (is_of_saga(walk, walk->slot))
			note_event_place(walk, walk->slot);
}

/* Read all pages that the bitmap names, neighbours in one go. */
static void
read_events_bitmap(SagazSagaWalk *walk, TIDBitmap *bitmap)
{
	Blocks	   *blocks = begin_blocks(bitmap);
	BlockNumber block;
	BlockNumber first = InvalidBlockNumber;
	BlockNumber last = InvalidBlockNumber;

	while (next_events_block(blocks, &block))
	{
		if (first != InvalidBlockNumber && block != last + 1)
			read_events_pages(walk, first, last);
		if (first == InvalidBlockNumber || block != last + 1)
			first = block;
		last = block;
	}
	if (first != InvalidBlockNumber)
		read_events_pages(walk, first, last);
	end_blocks(blocks);
}

/* Read all events of the saga's lane, by the index on (lane, seq). */
static void
read_events_lane(SagazSagaWalk *walk)
{
	ScanKeyData key;
	SagazScan  *scan;

	sagaz_key_int2(&key, 1, BTEqualStrategyNumber,
				   sagaz_lane_of(VARDATA_ANY(walk->saga_id),
								 VARSIZE_ANY_EXHDR(walk->saga_id)));
	scan = sagaz_scan_begin("outbox", "outbox_lane_seq", walk->snapshot, &key,
							1, ForwardScanDirection);
	/* not sagaz_scan_next(), which looks at all columns */
	while (index_getnext_slot(scan->scan, ForwardScanDirection, scan->slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (is_of_saga(walk, scan->slot))
			note_event_place(walk, scan->slot);
	}
	sagaz_scan_end(scan);
}

static int
compare_event_places(const void *a, const void *b)
{
	int64		x = ((const EventPlace *) a)->seq;
	int64		y = ((const EventPlace *) b)->seq;

	return (x > y) - (x < y);
}

/*
 * All places of the saga are found here, and rows are fetched one by one;
 * saga_id and snapshot must outlive the walk.
 */
SagazSagaWalk *
sagaz_saga_events_begin(Datum saga_id, Snapshot snapshot)
{
	SagazSagaWalk *walk = palloc0(sizeof(SagazSagaWalk));
	Relation	index = index_open(sagaz_relation_id(INDEX_NAME),
								   AccessShareLock);
	TIDBitmap  *bitmap = tbm_create(BITMAP_BYTES, NULL);
	ScanKeyData key;
	IndexScanDesc scan;
	int64		pages;

	walk->rel = sagaz_relation_open("outbox", AccessShareLock);
	walk->snapshot = snapshot;
	walk->slot = table_slot_create(walk->rel, NULL);
	walk->saga_id = DatumGetTextPP(saga_id);
	sagaz_key_text(&key, 1, saga_id);
	key.sk_strategy = 1;		/* equality, in a bloom operator class */
	scan = begin_bitmap_scan(index, snapshot, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	pages = index_getbitmap(scan, bitmap) / 10;	/* BRIN reports ten a page */
	index_endscan(scan);
	index_close(index, AccessShareLock);

	if (pages > MANY_PAGES)
		read_events_lane(walk);
	else
		read_events_bitmap(walk, bitmap);
	tbm_free(bitmap);
	if (walk->pages)
		table_endscan(walk->pages);
	walk->pages = NULL;
	if (walk->nplaces > 1)
		qsort(walk->places, walk->nplaces, sizeof(EventPlace), compare_event_places);
	return walk;
}

/* The next event, or NULL. */
TupleTableSlot *
sagaz_saga_events_next(SagazSagaWalk *walk)
{
	if (walk->next_place >= walk->nplaces)
		return NULL;
	if (!table_tuple_fetch_row_version(walk->rel,
									   &walk->places[walk->next_place++].tid,
									   walk->snapshot, walk->slot))
		elog(ERROR, "an event of the saga went away");
	slot_getallattrs(walk->slot);
	return walk->slot;
}

/* At any row; the lock on the table goes with it. */
void
sagaz_saga_events_end(SagazSagaWalk *walk)
{
	ExecDropSingleTupleTableSlot(walk->slot);
	table_close(walk->rel, AccessShareLock);
	pfree(walk);
}
