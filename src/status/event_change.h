/*
 * event_change.h
 *		Saying where one event of the log stands for a group.
 */
#ifndef SAGAZ_EVENT_CHANGE_H
#define SAGAZ_EVENT_CHANGE_H

#include "outbox/batch.h"
#include "outbox/state.h"

/* An event that nobody else can hand out or say anything about. */
typedef struct SagazEventChange
{
	SagazGroup	group;
	Datum		event_id;
	TimestampTz now;
	Snapshot	snapshot;		/* of the last look; registered */
	SagazStates *states;		/* this and what follows: as of the snapshot */
	TupleTableSlot *event;		/* in the log */
	int64		seq;
	int16		lane;
	SagazEventState state;
} SagazEventChange;

/*
 * Brings the new state into a retry row, which is the event's present one or
 * a new one that waits.
 */
typedef void (*SagazSetRetry) (const SagazEventChange *change,
							   SagazWriter *row, void *arg);

/* What the event will be. */
typedef enum SagazEventEnd
{
	EVENT_GOES_ON,
	EVENT_IS_DEAD,
	EVENT_IS_SENT
} SagazEventEnd;

extern bool sagaz_event_change_look(SagazEventChange *change);
extern bool sagaz_event_change_lock(SagazEventChange *change);
extern void sagaz_event_change(SagazEventChange *change, SagazEventEnd end,
							   bool needs_row, SagazSetRetry set, void *arg);
extern void sagaz_event_change_end(SagazEventChange *change);

#endif							/* SAGAZ_EVENT_CHANGE_H */
