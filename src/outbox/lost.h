/*
 * lost.h
 *		Batches whose workers are gone, and how their events go out again.
 */
#ifndef SAGAZ_LOST_H
#define SAGAZ_LOST_H

#include "lib/tuples.h"
#include "outbox/batch.h"
#include "outbox/owed.h"

extern void sagaz_lost_close(SagazLease *lease, TimestampTz now, const char *note);
extern bool sagaz_lost_take_over(const SagazOwed *owed, TimestampTz now,
								 const char *worker_id);
extern char *sagaz_lost_set_limit(SagazOwed *owed);
extern void sagaz_lost_retry_row(SagazWriter *writer, int16 group_no,
								 TupleTableSlot *event, const SagazOwed *owed,
								 const char *worker_id, TimestampTz now);

#endif							/* SAGAZ_LOST_H */
