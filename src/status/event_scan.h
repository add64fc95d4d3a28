/*
 * event_scan.h
 *		Events with their state in one consumer group, wherever they are kept:
 *		in the log, also with a retry row, or in the archive.
 *
 * The folder finds events by where they stand, for those who look, and has
 * the changes that operators make by hand.  What a single event's state is,
 * outbox/state.h tells.  It calls src/outbox and what lies below, with the
 * caller's snapshot: but for the changes it takes no lock.
 */
#ifndef SAGAZ_EVENT_SCAN_H
#define SAGAZ_EVENT_SCAN_H

#include "fmgr.h"

#include "outbox/state.h"

/* One event; everything in it is valid until the next one is asked for. */
typedef struct SagazFoundEvent
{
	TupleTableSlot *slot;		/* a row of outbox, or of outbox_archive */
	bool		archived;
	SagazEventState state;		/* not of an archived event but for the status */
} SagazFoundEvent;

typedef struct SagazEventScan SagazEventScan;

/*
 * Statuses is a set of status_bit().  A scan keeps what it needs in the
 * memory context in which it was begun.
 */
extern SagazEventScan *sagaz_scan_by_status(SagazStates *states, int statuses);
extern SagazEventScan *sagaz_scan_by_ids(SagazStates *states, int statuses,
										 Datum *event_ids, int count);
extern SagazEventScan *sagaz_scan_by_saga(SagazStates *states, int statuses,
										  Datum saga_id);
extern const SagazFoundEvent *sagaz_event_scan_next(SagazEventScan *scan);
extern void sagaz_event_scan_end(SagazEventScan *scan);

/* ask.c: for a function that returns rows of type outbox_event */
extern void sagaz_ask_event_now(FunctionCallInfo fcinfo, char *group, Datum event_id);

/* event_row.c */
extern void sagaz_event_row(const SagazStates *states,
							const SagazFoundEvent *event, Datum *values,
							bool *nulls);

#endif							/* SAGAZ_EVENT_SCAN_H */
