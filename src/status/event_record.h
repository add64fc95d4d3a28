/*
 * event_record.h
 *		Rows of events as records of storages.
 */
#ifndef SAGAZ_EVENT_RECORD_H
#define SAGAZ_EVENT_RECORD_H

#include "executor/tuptable.h"

#include "backends/record/record.h"

extern void sagaz_event_of_columns(const Datum *values, const bool *nulls,
								   SagazEvent *event);
extern void sagaz_event_of_log(TupleTableSlot *row, SagazEvent *event);

#endif							/* SAGAZ_EVENT_RECORD_H */
