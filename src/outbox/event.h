/*
 * event.h
 *		Rows of the log, and events as rows: the columns of type outbox_event,
 *		with which those of outbox_archive begin.
 *
 * Who fills a row has arrays of its columns' values and nulls, as a writer's
 * slot has.  What is made is palloc'd, what is copied lasts as its source.
 */
#ifndef SAGAZ_OUTBOX_EVENT_H
#define SAGAZ_OUTBOX_EVENT_H

#include "backends/record/record.h"
#include "lib/tuples.h"
#include "outbox/state.h"

extern TupleTableSlot *sagaz_event_fetch(SagazScan **scan, Datum event_id,
										 Snapshot snapshot);
SAGAZ_NORETURN extern void sagaz_event_no_such(Datum event_id);
extern void sagaz_event_row_of_log(TupleTableSlot *event, Datum *values,
								   bool *nulls);
extern void sagaz_event_row_set_state(const SagazEventState *state,
									  Datum *values, bool *nulls);
extern void sagaz_event_row_of_record(const SagazEvent *event, Datum event_id,
									  Datum *values, bool *nulls);
extern void sagaz_event_of_row(const Datum *values, const bool *nulls,
							   SagazEvent *event);
extern void sagaz_event_of_log(TupleTableSlot *row, SagazEvent *event);

#endif							/* SAGAZ_OUTBOX_EVENT_H */
