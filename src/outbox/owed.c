/*
 * owed.c
 *		The stored form of what a lane still owes, column "owed" of
 *		outbox_batch.
 *
 * In the usual case, one range that ends at the row's last place and is held
 * by the row's own batch, an entry takes four bytes.
 */
#include "lib/sagaz.h"

#include "fmgr.h"

#include "outbox/owed.h"
#include "lib/varint.h"

#define OWED_NO_RANGE		1
#define OWED_OTHER_ROOT		2
#define OWED_OTHER_WINDOW	4
#define OWED_OTHER_HI		8
#define OWED_ACKED			16

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
}

static SagazOwed *
decode_owed_entry(SagazBytes *reader, const SagazOwedBase *base)
{
	SagazOwed  *owed = palloc0(sizeof(SagazOwed));
	int			flags;

	owed->holder = base->batch_id - sagaz_varint_get(reader);
	flags = (int) sagaz_varint_get(reader);
	owed->claimed_at = base->claimed_at - sagaz_varint_get_signed(reader);
	owed->range = (flags & OWED_NO_RANGE) == 0;
	owed->root = owed->window_batch = owed->holder;
	if (!owed->range)
		return owed;
	if (flags & OWED_OTHER_ROOT)
		owed->root -= sagaz_varint_get(reader);
	owed->window_batch = owed->root;
	if (flags & OWED_OTHER_WINDOW)
		owed->window_batch -= sagaz_varint_get(reader);
	owed->hi = flags & OWED_OTHER_HI ?
		(int64) sagaz_varint_get(reader) : base->last_seq;
	owed->lo = owed->hi - sagaz_varint_get(reader);
	if (flags & OWED_ACKED)
	{
		int64		previous = owed->lo;

		owed->nacked = (int) sagaz_varint_get(reader);
		owed->acked = palloc(owed->nacked * sizeof(int64));
		for (int i = 0; i < owed->nacked; i++)
			owed->acked[i] = previous += sagaz_varint_get(reader);
	}
	return owed;
}

bytea *
sagaz_owed_encode(List *owed, const SagazOwedBase *base)
{
	StringInfoData buffer;
	ListCell   *cell;

	initStringInfo(&buffer);
	appendStringInfoSpaces(&buffer, VARHDRSZ);
	foreach(cell, owed)
		encode_owed_entry(&buffer, lfirst(cell), base);
	SET_VARSIZE(buffer.data, buffer.len);
	return (bytea *) buffer.data;
}

List *
sagaz_owed_decode(Datum value, const SagazOwedBase *base)
{
	SagazBytes reader;
	List	   *owed = NIL;

	sagaz_varint_begin(&reader, value);
	while (reader.at < reader.end)
		owed = lappend(owed, decode_owed_entry(&reader, base));
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
