/*
 * chain.c
 *		All the handings-out of what a batch handed out first in one lane.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "outbox/state.h"
#include "outbox/outbox.h"
#include "outbox/receipt.h"

typedef struct BatchWindow
{
	int64		batch_id;
	bool		found;
	SagazWindow window;
} BatchWindow;

static int
compare_chain_acked(const void *a, const void *b)
{
	int64		x = ((const SagazAckedPlace *) a)->seq;
	int64		y = ((const SagazAckedPlace *) b)->seq;

	return (x > y) - (x < y);
}

static void
add_acked_to_link(SagazChainLink *holder, TupleTableSlot *receipt)
{
	Datum	   *values;
	int			count;

	deconstruct_array(DatumGetArrayTypeP(sagaz_column(receipt, receipt_seqs)),
					  INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &values,
					  NULL, &count);
	if (count == 0)
		return;
	holder->acked = holder->acked == NULL ?
		palloc(count * sizeof(SagazAckedPlace)) :
		repalloc(holder->acked,
				 (holder->nacked + count) * sizeof(SagazAckedPlace));
	for (int i = 0; i < count; i++)
	{
		SagazAckedPlace *place = &holder->acked[holder->nacked++];

		place->seq = DatumGetInt64(values[i]);
		place->at = DatumGetTimestampTz(sagaz_column(receipt, receipt_at));
	}
	pfree(values);
}

static void
add_receipt_to_chain(SagazChainLink *holder, TupleTableSlot *receipt)
{
	int			kind = DatumGetInt16(sagaz_column(receipt, receipt_kind));
	TimestampTz until = sagaz_column_is_null(receipt, receipt_until) ? 0 :
		DatumGetTimestampTz(sagaz_column(receipt, receipt_until));

	if (kind == RECEIPT_EVENTS_SENT)
		add_acked_to_link(holder, receipt);
	else if (kind == RECEIPT_EXTENDED)
		holder->until = holder->closed_by ? holder->until :
			Max(holder->until, until);
	else if (kind <= RECEIPT_TAKEN_OVER)
	{
		holder->closed_by = kind;
		holder->closed_at = DatumGetTimestampTz(sagaz_column(receipt, receipt_at));
		holder->until = until;
		if (kind == RECEIPT_RELEASED)
			holder->error = sagaz_column_text(receipt, receipt_note);
	}
}

static void
read_chain_receipts(SagazStates *states, SagazChainLink *holder)
{
	static const char *const indexes[] = {
		"outbox_receipt_closing", "outbox_receipt_other"
	};
	ScanKeyData key;

	sagaz_key_int8(&key, 1, BTEqualStrategyNumber, holder->batch_id);
	for (int i = 0; i < (int) lengthof(indexes); i++)
	{
		SagazScan  *scan = sagaz_scan_begin("outbox_receipt", indexes[i],
											states->snapshot, &key, 1,
											ForwardScanDirection);

		while (sagaz_scan_next(scan))
			add_receipt_to_chain(holder, scan->slot);
		sagaz_scan_end(scan);
	}
	if (holder->nacked > 1)
		qsort(holder->acked, holder->nacked, sizeof(SagazAckedPlace),
			  compare_chain_acked);
}

/* What a row of outbox_batch handed out of the chain's root. */
static void
add_chain_link(SagazStates *states, SagazChain *chain, TupleTableSlot *row)
{
	SagazChainLink *holder = palloc0(sizeof(SagazChainLink));
	SagazOwedBase base;
	ListCell   *cell;

	base.batch_id = holder->batch_id =
		DatumGetInt64(sagaz_column(row, batch_batch_id));
	base.claimed_at = holder->claimed_at =
		DatumGetTimestampTz(sagaz_column(row, batch_claimed_at));
	base.last_seq = DatumGetInt64(sagaz_column(row, batch_last_seq));
	holder->worker_id = sagaz_column_text(row, batch_worker_id);
	foreach(cell, sagaz_owed_decode(sagaz_column(row, batch_owed), &base))
	{
		SagazOwed  *owed = lfirst(cell);

		if (owed->holder == holder->batch_id && owed->range &&
			owed->root == chain->root)
			holder->entries = lappend(holder->entries, owed);
	}
	read_chain_receipts(states, holder);
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
		closed_by = ((SagazChainLink *) linitial(chain->holders))->closed_by;
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

/* What a receipt of the holder says of a single place, or NULL. */
const SagazAckedPlace *
sagaz_chain_acked(const SagazChainLink *holder, int64 seq)
{
	SagazAckedPlace key = {seq, 0};

	if (holder->nacked == 0)
		return NULL;
	return bsearch(&key, holder->acked, holder->nacked,
				   sizeof(SagazAckedPlace), compare_chain_acked);
}
