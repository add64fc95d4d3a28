/*
 * owed.h
 *		What a lane still owes a consumer group: ranges of events that are out
 *		in a batch, or were and have to be handed out again.
 *
 * The newest row of a lane in outbox_batch carries the whole list, so no
 * closed batch is ever looked at again.
 */
#ifndef SAGAZ_OWED_H
#define SAGAZ_OWED_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

/*
 * The events of a window at places above lo up to hi.  holder is the batch
 * whose receipt tells what became of them; root is the batch that handed them
 * out first; the row of window_batch holds the window.  A batch that handed
 * out nothing but retries owes no range: its rows in outbox_retry name it.
 * A limit is on what is left over of a range whose batch was lost, see lost.c.
 */
typedef struct SagazOwed
{
	int64		holder;
	int64		root;
	int64		window_batch;
	int64		lo;
	int64		hi;
	TimestampTz claimed_at;
	bool		range;
	int			limit;			/* the batch that has it next may have so many events,
								 * 0: any number */
	int			nacked;
	int64	   *acked;			/* places in the range that are finished, sorted */
} SagazOwed;

/* What the numbers of a list are relative to: the row that carries it. */
typedef struct SagazOwedBase
{
	int64		batch_id;
	int64		last_seq;
	TimestampTz claimed_at;
} SagazOwedBase;

extern bytea *sagaz_owed_encode(List *owed, const SagazOwedBase *base);
extern List *sagaz_owed_decode(Datum value, const SagazOwedBase *base);
extern bool sagaz_owed_acked(const SagazOwed *owed, int64 seq);

#endif							/* SAGAZ_OWED_H */
