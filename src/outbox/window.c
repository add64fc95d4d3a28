/*
 * window.c
 *		Which transactions' events lie between two moments.
 *
 * What is hard: a snapshot's xmax is the latest *completed* xid plus one, so
 * transactions at or above it may be running already and may hold places
 * below the last one drawn.  That is why an end also keeps the next xid, and
 * why its parts are read in one order only: last place drawn, next xid,
 * snapshot.  And a snapshot leaves out the xid of the session that takes it,
 * though that one is running too.
 */
#include "lib/sagaz.h"

#include "access/transam.h"
#include "access/xact.h"
#include "lib/qunique.h"
#include "utils/snapmgr.h"

#include "outbox/place_number.h"
#include "lib/varint.h"
#include "outbox/window.h"

/* The moment before everything. */
void
sagaz_window_end_zero(SagazEnd *end)
{
	memset(end, 0, sizeof(SagazEnd));
	end->next_xid = end->xmin = end->xmax = SAGAZ_FIRST_POS;
}

/* The 64-bit form of an xid that lies within 2^31 of next. */
static uint64
full_xid(uint64 next, TransactionId xid)
{
	uint32		epoch = (uint32) (next >> 32);

	if (xid > (uint32) next)
		epoch--;
	return ((uint64) epoch << 32) | xid;
}

static int
compare_window_xids(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return (x > y) - (x < y);
}

/*
 * next lies above every xid of the snapshot, unlike the end's next_xid.  A
 * transaction that is just being prepared may be listed twice.
 */
static void
add_window_running(SagazEnd *end, Snapshot snapshot, uint64 next, uint64 own)
{
	end->running = palloc((snapshot->xcnt + 1) * sizeof(uint64));
	for (uint32 i = 0; i < snapshot->xcnt; i++)
		end->running[end->nrunning++] = full_xid(next, snapshot->xip[i]);
	if (own != 0 && own < end->xmax)
		end->running[end->nrunning++] = own;
	qsort(end->running, end->nrunning, sizeof(uint64), compare_window_xids);
	end->nrunning = qunique(end->running, end->nrunning, sizeof(uint64),
							compare_window_xids);
}

/*
 * Read the present moment.  The snapshot returned is registered, the caller
 * unregisters it; it is the one to read the log with.  Who moves a cursor
 * holds the lane's lock already.  The epoch is for the caller to set, who
 * finds it with that snapshot.  The end lies in the present memory context.
 */
Snapshot
sagaz_window_end_read(SagazEnd *end)
{
	Snapshot	snapshot;
	uint64		own = U64FromFullTransactionId(GetTopFullTransactionIdIfAny());
	uint64		next;

	memset(end, 0, sizeof(SagazEnd));
	end->last_seq = sagaz_last_seq();
	end->next_xid = U64FromFullTransactionId(ReadNextFullTransactionId());
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	next = U64FromFullTransactionId(ReadNextFullTransactionId());
	end->xmax = full_xid(next, snapshot->xmax);
	add_window_running(end, snapshot, next, own);
	end->xmin = end->nrunning > 0 ? end->running[0] : end->xmax;
	return snapshot;
}

/* The cluster as the end's own snapshot has it. */
void
sagaz_window_end_set_epoch(SagazEnd *end, const SagazCluster *cluster)
{
	end->epoch = cluster->epoch;
}

/* Had the transaction ended, by the xids of the end's own epoch? */
bool
sagaz_window_end_saw_xid(const SagazEnd *end, uint64 xid)
{
	int			low = 0;
	int			high = end->nrunning;

	if (xid < end->xmin || xid < SAGAZ_FIRST_POS)
		return true;
	if (xid >= end->xmax)
		return false;
	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (end->running[middle] < xid)
			low = middle + 1;
		else
			high = middle;
	}
	return low >= end->nrunning || end->running[low] != xid;
}

/* Was the event at this place visible? */
static bool
window_end_saw(const SagazEnd *end, const SagazCluster *cluster,
					 uint64 pos, int64 seq)
{
	uint32		epoch;

	if (pos < SAGAZ_FIRST_POS)
		return true;
	epoch = sagaz_cluster_epoch(cluster, seq);
	if (epoch != end->epoch)
		return epoch < end->epoch;
	return sagaz_window_end_saw_xid(end, pos);
}

/*
 * Does a row that is reading the window and has come to last_seq in it, be it
 * a batch's or the cursor, count the event at this place as handed out?
 */
bool
sagaz_window_counts(const SagazWindow *window, int64 last_seq,
					const SagazCluster *cluster, uint64 pos, int64 seq)
{
	return window_end_saw(&window->from, cluster, pos, seq) ||
		(seq <= last_seq &&
		 window_end_saw(&window->to, cluster, pos, seq));
}

/* Does the event at this place lie in the window? */
bool
sagaz_window_has(const SagazWindow *window, const SagazCluster *cluster,
				 uint64 pos, int64 seq)
{
	return window_end_saw(&window->to, cluster, pos, seq) &&
		!window_end_saw(&window->from, cluster, pos, seq);
}

/*
 * The stored form, column "ends" of outbox_batch: version 1, then the window's
 * "from" end, then its "to" end.  An end is
 *
 *	epoch		of the cluster's activations
 *	last_seq	S, the last place drawn
 *	xmax		of the snapshot, 64 bits
 *	next_xid	N - xmax, 0 where N is lower
 *	nrunning	transactions that were running below xmax
 *	running		so often: how far it lies below the one before, the highest
 *				first and that one below xmax
 *
 * each as a number of lib/varint.h.  With nobody else writing that is 5
 * numbers an end.
 */
#define ENDS_VERSION 1

static void
encode_window_end(StringInfo buffer, const SagazEnd *end)
{
	uint64		above = end->xmax;

	sagaz_varint_put(buffer, end->epoch);
	sagaz_varint_put(buffer, end->last_seq);
	sagaz_varint_put(buffer, end->xmax);
	sagaz_varint_put(buffer, Max(end->next_xid, end->xmax) - end->xmax);
	sagaz_varint_put(buffer, end->nrunning);
	for (int i = end->nrunning - 1; i >= 0; i--)
	{
		sagaz_varint_put(buffer, above - end->running[i]);
		above = end->running[i];
	}
}

static void
decode_window_end(SagazBytes *bytes, SagazEnd *end)
{
	uint64		above;

	end->epoch = (uint32) sagaz_varint_get(bytes);
	end->last_seq = (int64) sagaz_varint_get(bytes);
	end->xmax = above = sagaz_varint_get(bytes);
	end->next_xid = end->xmax + sagaz_varint_get(bytes);
	end->nrunning = sagaz_varint_get_count(bytes);
	end->running = palloc((end->nrunning + 1) * sizeof(uint64));
	for (int i = end->nrunning - 1; i >= 0; i--)
		end->running[i] = above = above - sagaz_varint_get(bytes);
	end->xmin = end->nrunning > 0 ? end->running[0] : end->xmax;
}

/* The stored form, in the present memory context. */
bytea *
sagaz_window_encode(const SagazWindow *window)
{
	StringInfoData buffer;

	initStringInfo(&buffer);
	sagaz_varint_begin(&buffer, ENDS_VERSION);
	encode_window_end(&buffer, &window->from);
	encode_window_end(&buffer, &window->to);
	return sagaz_varint_end(&buffer);
}

/*
 * Both ends, in the present memory context; an error if the value is damaged.
 */
void
sagaz_window_decode(Datum ends, SagazWindow *window)
{
	SagazBytes	bytes;

	sagaz_varint_open(&bytes, ends, "ends", ENDS_VERSION);
	decode_window_end(&bytes, &window->from);
	decode_window_end(&bytes, &window->to);
}
