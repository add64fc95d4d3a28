/*
 * place.h
 *		Which batch holds an event.
 */
#ifndef SAGAZ_PLACE_H
#define SAGAZ_PLACE_H

#include "outbox/cursor.h"
#include "outbox/group.h"

typedef enum SagazPlaceState
{
	PLACE_UNREAD,				/* the group has not come to it */
	PLACE_HELD_OUT,				/* in an open batch: holder */
	PLACE_RETURNED,				/* was in a batch that ended without it */
	PLACE_FINISHED,				/* sent, off the log */
	PLACE_RETRY					/* has a row in outbox_retry, which tells */
} SagazPlaceState;

typedef struct SagazPlace
{
	SagazPlaceState state;
	int64		holder;			/* of a place that is out, also as a retry */
	int64		seq;
	int16		lane;
	int			retry_state;	/* of PLACE_RETRY */
} SagazPlace;

extern TupleTableSlot *sagaz_place_fetch_event(SagazScan **scan, Datum event_id,
											   Snapshot snapshot);
extern void sagaz_place_find(const SagazGroup *group, TupleTableSlot *event,
							 Snapshot snapshot, SagazPlace *place);
extern bool sagaz_place_is_owed(const SagazOwed *owed, int16 group_no,
								int16 lane, uint64 pos, int64 seq,
								const SagazCluster *cluster, Snapshot snapshot);

#endif							/* SAGAZ_PLACE_H */
