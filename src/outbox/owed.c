/*
 * owed.c
 *		The stored form of what a lane still owes, column "owed" of
 *		outbox_batch.
 *
 * Version 2, then entry by entry up to the end of the value, each of the
 * numbers of lib/varint.h:
 *
 *	holder		the row's batch_id - holder
 *	flags		the sum of OWED_…
 *	claimed_at	the row's claimed_at - the entry's, microseconds, signed
 *
 * and, without OWED_NO_RANGE:
 *
 *	root		holder - root, with OWED_OTHER_ROOT; else it is the holder
 *	window		root - window_batch, with OWED_OTHER_WINDOW; else it is the root
 *	hi			with OWED_OTHER_HI; else it is the row's last_seq
 *	lo			hi - lo
 *	nacked		with OWED_ACKED; else 0
 *	acked		so often: the place - the one before, from lo on
 *	limit		with OWED_LIMITED; else 0
 *
 * Version 1 has no limits, and is the same otherwise.
 *
 * In the usual case, one range that ends at the row's last place and is held
 * by the row's own batch, an entry takes four bytes.
 */
#include "lib/sagaz.h"

#include "fmgr.h"

#include "outbox/owed.h"
#include "lib/varint.h"

#define OWED_VERSION		2

#define OWED_NO_RANGE		1
#define OWED_OTHER_ROOT		2
#define OWED_OTHER_WINDOW	4
#define OWED_OTHER_HI		8
#define OWED_ACKED			16
#define OWED_LIMITED		32

static void
encode_owed_entry(StringInfo buffer, const SagazOwed *owed,
				  const SagazOwedBase *base)
{
	int			flags = 0;

	if (!owed->range)
		flags |= OWED_NO_RANGE;
	if (owed->root != owed->holder)
		flags |= OWED_OTHER_ROOT;
	if (owed->window_batch != owed->root)
		flags |= OWED_OTHER_WINDOW;
	if (owed->hi != base->last_seq)
		flags |= OWED_OTHER_HI;
	if (owed->nacked > 0)
		flags |= OWED_ACKED;
	if (owed->range && owed->limit > 0)
		flags |= OWED_LIMITED;
	sagaz_varint_put(buffer, base->batch_id - owed->holder);
	sagaz_varint_put(buffer, flags);
	sagaz_varint_put_signed(buffer, base->claimed_at - owed->claimed_at);
	if (!owed->range)
		return;
	if (flags & OWED_OTHER_ROOT)
		sagaz_varint_put(buffer, owed->holder - owed->root);
	if (flags & OWED_OTHER_WINDOW)
		sagaz_varint_put(buffer, owed->root - owed->window_batch);
	if (flags & OWED_OTHER_HI)
		sagaz_varint_put(buffer, owed->hi);
	sagaz_varint_put(buffer, owed->hi - owed->lo);
	if (flags & OWED_ACKED)
	{
		int64		previous = owed->lo;

		sagaz_varint_put(buffer, owed->nacked);
		for (int i = 0; i < owed->nacked; i++)
		{
			sagaz_varint_put(buffer, owed->acked[i] - previous);
			previous = owed->acked[i];
		}
	}
	if (flags & OWED_LIMITED)
		sagaz_varint_put(buffer, owed->limit);
}

static SagazOwed *
decode_owed_entry(SagazBytes *bytes, const SagazOwedBase *base)
{
	SagazOwed  *owed = palloc0(sizeof(SagazOwed));
	int			flags;

	owed->holder = base->batch_id - sagaz_varint_get(bytes);
	flags = (int) sagaz_varint_get(bytes);
	owed->claimed_at = base->claimed_at - sagaz_varint_get_signed(bytes);
	owed->range = (flags & OWED_NO_RANGE) == 0;
	owed->root = owed->window_batch = owed->holder;
	if (!owed->range)
		return owed;
	if (flags & OWED_OTHER_ROOT)
		owed->root -= sagaz_varint_get(bytes);
	owed->window_batch = owed->root;
	if (flags & OWED_OTHER_WINDOW)
		owed->window_batch -= sagaz_varint_get(bytes);
	owed->hi = flags & OWED_OTHER_HI ?
		(int64) sagaz_varint_get(bytes) : base->last_seq;
	owed->lo = owed->hi - sagaz_varint_get(bytes);
	if (flags & OWED_ACKED)
	{
		int64		previous = owed->lo;

		owed->nacked = sagaz_varint_get_count(bytes);
		owed->acked = palloc(owed->nacked * sizeof(int64));
		for (int i = 0; i < owed->nacked; i++)
			owed->acked[i] = previous += sagaz_varint_get(bytes);
	}
	if (flags & OWED_LIMITED)
		owed->limit = (int) sagaz_varint_get(bytes);
	return owed;
}

/*
 * The stored form of a list of SagazOwed, in the present memory context.
 * Entries must not be newer than the row.
 */
bytea *
sagaz_owed_encode(List *owed, const SagazOwedBase *base)
{
	StringInfoData buffer;
	ListCell   *cell;

	initStringInfo(&buffer);
	sagaz_varint_begin(&buffer, OWED_VERSION);
	foreach(cell, owed)
		encode_owed_entry(&buffer, lfirst(cell), base);
	return sagaz_varint_end(&buffer);
}

/*
 * The list, in the present memory context; an error if the value is damaged.
 */
List *
sagaz_owed_decode(Datum value, const SagazOwedBase *base)
{
	SagazBytes	bytes;
	List	   *owed = NIL;

	sagaz_varint_open(&bytes, value, "owed", OWED_VERSION);
	while (bytes.at < bytes.end)
		owed = lappend(owed, decode_owed_entry(&bytes, base));
	return owed;
}

/* Is this place of the range finished already? */
bool
sagaz_owed_acked(const SagazOwed *owed, int64 seq)
{
	int			low = 0;
	int			high = owed->nacked;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (owed->acked[middle] < seq)
			low = middle + 1;
		else
			high = middle;
	}
	return low < owed->nacked && owed->acked[low] == seq;
}
