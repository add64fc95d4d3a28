/*
 * event_walk.h
 *		Walks over the events of the log that stand alike for a group.
 *
 * A walk keeps what it needs in the memory context in which it was begun and
 * is read with the snapshot of its states.  The row returned stays valid
 * until the next call.  None of them returns an event with a retry row of
 * the group: outbox_retry tells about those.
 */
#ifndef SAGAZ_EVENT_WALK_H
#define SAGAZ_EVENT_WALK_H

#include "outbox/state.h"

/* unread.c: events that the group has still to come to */
typedef struct SagazUnreadWalk SagazUnreadWalk;

extern SagazUnreadWalk *sagaz_unread_begin(SagazStates *states, int16 first_lane,
										   int16 last_lane);
extern TupleTableSlot *sagaz_unread_next(SagazUnreadWalk *walk);
extern void sagaz_unread_end(SagazUnreadWalk *walk);

/* handed_out.c: events that were handed out, in some of the statuses */
typedef struct SagazHandedOutWalk SagazHandedOutWalk;

extern SagazHandedOutWalk *sagaz_handed_out_begin(SagazStates *states,
												  int statuses);
extern TupleTableSlot *sagaz_handed_out_next(SagazHandedOutWalk *walk,
											 SagazEventState *state);
extern void sagaz_handed_out_end(SagazHandedOutWalk *walk);

/* saga_events.c: the events of a saga, in the order of the log */
typedef struct SagazSagaWalk SagazSagaWalk;

extern SagazSagaWalk *sagaz_saga_events_begin(Datum saga_id, Snapshot snapshot);
extern TupleTableSlot *sagaz_saga_events_next(SagazSagaWalk *walk);
extern void sagaz_saga_events_end(SagazSagaWalk *walk);

#endif							/* SAGAZ_EVENT_WALK_H */
