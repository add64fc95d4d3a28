/*
 * place_number.c
 *		Places in the outbox log: lane and sequence number of an event.
 *
 * Every claim relies on one rule: a transaction has its xid before it draws
 * a sequence number.  Then whoever reads the last number drawn, and after it
 * the next xid, knows that the owner of each number up to the first lies
 * below the second.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "commands/sequence.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "outbox/epoch.h"
#include "outbox/place_number.h"
#include "wakeup/wake.h"

PG_FUNCTION_INFO_V1(sagaz_next_seq);
PG_FUNCTION_INFO_V1(sagaz_lane);

/*
 * Draw the next number for an event that this transaction inserts.  The
 * transaction gets its xid first, on which every claim relies, and wakes
 * those who wait when it commits.
 */
int64
sagaz_draw_place_number(void)
{
	int64		seq;

	(void) GetTopTransactionId();
	sagaz_epoch_note_first_use();
	seq = nextval_internal(sagaz_relation_id(SAGAZ_SEQUENCE), false);
	sagaz_wake_at_commit();
	return seq;
}

Datum
sagaz_next_seq(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(sagaz_draw_place_number());
}

/*
 * FNV-1a, folded: it is part of the stored data, so it must never change,
 * not with the server's version nor with the platform.
 */
int16
sagaz_lane_of(const char *saga_id, int length)
{
	uint32		hash = 2166136261u;

	for (int i = 0; i < length; i++)
		hash = (hash ^ (unsigned char) saga_id[i]) * 16777619u;
	hash ^= hash >> 16;
	return (int16) (hash % SAGAZ_LANES);
}

Datum
sagaz_lane(PG_FUNCTION_ARGS)
{
	text	   *saga_id;

	if (PG_ARGISNULL(0) ||
		VARSIZE_ANY_EXHDR(saga_id = PG_GETARG_TEXT_PP(0)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("saga_id must not be %s",
						PG_ARGISNULL(0) ? "null" : "empty")));
	PG_RETURN_INT16(sagaz_lane_of(VARDATA_ANY(saga_id),
								  VARSIZE_ANY_EXHDR(saga_id)));
}

/* For qsort() and bsearch() of places, or of other numbers of 64 bits. */
int
sagaz_place_compare(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return (x > y) - (x < y);
}
