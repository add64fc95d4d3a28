/*
 * batch_events.h
 *		The events that a batch handed out in one lane.
 */
#ifndef SAGAZ_BATCH_EVENTS_H
#define SAGAZ_BATCH_EVENTS_H

#include "nodes/pg_list.h"
#include "utils/snapshot.h"

#include "group.h"

extern List *sagaz_batch_events(const SagazGroup *group, int16 lane,
								int64 batch_id, Snapshot snapshot);

#endif							/* SAGAZ_BATCH_EVENTS_H */
