/*
 * lane.h
 *		A lane as it is at one moment, and whose turn it is to be handed out.
 */
#ifndef SAGAZ_LANE_H
#define SAGAZ_LANE_H

#include "outbox/cursor.h"
#include "outbox/group.h"
#include "outbox/window_scan.h"

/* May something be handed out? */
typedef enum SagazTurn
{
	TURN_NOW,
	TURN_NEVER,					/* it is none of the group's, or nothing is left */
	TURN_TOO_YOUNG,				/* and so, by their places, are those behind it */
	TURN_SCHEDULED,				/* at a time of its own */
	TURN_HELD,					/* when those of its saga before it are through */
	TURN_OUT,					/* when its lease ends, or a release lets it */
	TURN_EXPIRED				/* once its lease, which ran out, is taken over */
} SagazTurn;

/* What a claim or a peek asks of; the first four are the caller's to set. */
typedef struct SagazLane
{
	const SagazGroup *group;
	int16		no;
	TimestampTz now;			/* by the clock */
	int64		older_than;		/* microseconds; no younger events are wanted */

	Snapshot	snapshot;
	SagazEnd	end;			/* the moment of the snapshot */
	SagazCluster *cluster;
	bool		blocking;		/* may a retry row block sagas? */
} SagazLane;

extern void sagaz_lane_look(SagazLane *lane);
extern SagazWindowScan *sagaz_lane_scan(const SagazLane *lane,
										const SagazWindow *window, int64 after,
										int64 upto, int chunk);
extern SagazTurn sagaz_lane_turn_of_event(const SagazLane *lane,
										  TupleTableSlot *event);
extern SagazTurn sagaz_lane_turn_of_retry(const SagazLane *lane,
										  TupleTableSlot *retry);
extern SagazTurn sagaz_lane_turn_of_owed(const SagazLane *lane,
										 const SagazOwed *owed, TimestampTz *at);

#endif							/* SAGAZ_LANE_H */
