/*
 * outstanding.h
 *		The batches of a group that are in the hands of workers.
 */
#ifndef SAGAZ_OUTSTANDING_H
#define SAGAZ_OUTSTANDING_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#include "outbox/group.h"

typedef struct SagazOutstanding
{
	int64		batch_id;
	TimestampTz claimed_at;
	TimestampTz lease_end;		/* this and the next: known once it is locked */
	TimestampTz extended_to;	/* 0 for never */
} SagazOutstanding;

extern List *sagaz_outstanding_in(const SagazGroup *group, const int16 *lane,
								  Snapshot snapshot);
extern List *sagaz_outstanding_batches(const SagazGroup *group,
									   const int16 *lane);
extern bool sagaz_outstanding_lock(SagazOutstanding *batch);

#endif							/* SAGAZ_OUTSTANDING_H */
