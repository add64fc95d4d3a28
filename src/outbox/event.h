/*
 * event.h
 *		Rows of the log.
 */
#ifndef SAGAZ_OUTBOX_EVENT_H
#define SAGAZ_OUTBOX_EVENT_H

#include "lib/tuples.h"

extern TupleTableSlot *sagaz_event_fetch(SagazScan **scan, Datum event_id,
										 Snapshot snapshot);
SAGAZ_NORETURN extern void sagaz_event_no_such(Datum event_id);

#endif							/* SAGAZ_OUTBOX_EVENT_H */
