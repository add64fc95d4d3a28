/*
 * chain.c
 *		All the handings-out of what a batch handed out first in one lane.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "outbox/state.h"
#include "outbox/outbox.h"

typedef struct BatchWindow
{
	int64		batch_id;
	bool		found;
	SagazWindow window;
} BatchWindow;

/* What a row of outbox_batch handed out of the chain's root. */
static void
add_chain_link(SagazStates *states, SagazChain *chain, TupleTableSlot *row)
{
	SagazChainLink *holder = palloc0(sizeof(SagazChainLink));
	ListCell   *cell;

	holder->batch_id = DatumGetInt64(sagaz_column(row, batch_batch_id));
	holder->claimed_at = DatumGetTimestampTz(sagaz_column(row, batch_claimed_at));
	holder->worker_id = sagaz_column_text(row, batch_worker_id);
	foreach(cell, sagaz_cursor_row_owed(row))
	{
		SagazOwed  *owed = lfirst(cell);

		if (owed->holder == holder->batch_id && owed->range &&
			owed->root == chain->root)
			holder->entries = lappend(holder->entries, owed);
	}
	sagaz_receipts_read(holder->batch_id, states->snapshot, &holder->receipts);
	chain->holders = lappend(chain->holders, holder);
}

static int
compare_chain_links(const ListCell *a, const ListCell *b)
{
	int64		x = ((const SagazChainLink *) lfirst(a))->batch_id;
	int64		y = ((const SagazChainLink *) lfirst(b))->batch_id;

	return (x > y) - (x < y);
}

/* Add those who handed out again what the root handed out in this lane. */
static void
add_later_links_to_chain(SagazStates *states, SagazChain *chain)
{
	ScanKeyData key;
	SagazScan  *scan;

	sagaz_key_int8(&key, 1, BTEqualStrategyNumber, chain->root);
	scan = sagaz_scan_begin("outbox_batch", "outbox_batch_root",
							states->snapshot, &key, 1, ForwardScanDirection);
	while (sagaz_scan_next(scan))
		if (DatumGetInt16(sagaz_column(scan->slot, batch_lane)) == chain->lane)
			add_chain_link(states, chain, scan->slot);
	sagaz_scan_end(scan);
	list_sort(chain->holders, compare_chain_links);
}

/*
 * The chain of a root batch, in memory of the states; valid until another one
 * is asked for.
 */
SagazChain *
sagaz_states_chain(SagazStates *states, int16 lane, int64 root)
{
	MemoryContext outer;
	SagazChain *chain = states->chain;
	TupleTableSlot *row;
	int			closed_by;

	if (chain && chain->root == root && chain->lane == lane)
		return chain;
	states->chain = NULL;
	MemoryContextReset(states->chain_context);
	outer = MemoryContextSwitchTo(states->chain_context);
	chain = palloc0(sizeof(SagazChain));
	chain->root = root;
	chain->lane = lane;
	row = sagaz_states_batch_from(states, lane, root);
	if (row && DatumGetInt64(sagaz_column(row, batch_batch_id)) == root)
	{
		add_chain_link(states, chain, row);
		closed_by = ((SagazChainLink *) linitial(chain->holders))->receipts.closed_by;
		if (closed_by != 0 && closed_by != RECEIPT_SENT)
			add_later_links_to_chain(states, chain);
	}
	MemoryContextSwitchTo(outer);
	states->chain = chain;
	return chain;
}

static const BatchWindow *
chain_window_of(SagazStates *states, SagazChain *chain, int64 batch_id)
{
	BatchWindow *window;
	ListCell   *cell;
	MemoryContext outer;

	foreach(cell, chain->windows)
	{
		window = lfirst(cell);
		if (window->batch_id == batch_id)
			return window;
	}
	outer = MemoryContextSwitchTo(states->chain_context);
	window = palloc0(sizeof(BatchWindow));
	window->batch_id = batch_id;
	window->found = sagaz_cursor_window(states->group.no, chain->lane, batch_id,
										states->snapshot, &window->window);
	chain->windows = lappend(chain->windows, window);
	MemoryContextSwitchTo(outer);
	return window;
}

/*
 * Did the holder hand out the event at this place?  first: in one of the
 * ranges that were handed out for the first time then.
 */
bool
sagaz_chain_covers(SagazStates *states, SagazChain *chain,
				   const SagazChainLink *holder, uint64 pos, int64 seq,
				   bool first)
{
	ListCell   *cell;

	foreach(cell, holder->entries)
	{
		const SagazOwed *owed = lfirst(cell);
		const BatchWindow *window;

		if (seq <= owed->lo || seq > owed->hi ||
			(first && owed->root != holder->batch_id))
			continue;
		window = chain_window_of(states, chain, owed->window_batch);
		if (window->found &&
			sagaz_window_has(&window->window, states->cluster, pos, seq))
			return true;
	}
	return false;
}
