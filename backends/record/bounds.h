/*
 * bounds.h
 *		How large the parts of an event may be.
 */
#ifndef SAGAZ_BOUNDS_H
#define SAGAZ_BOUNDS_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

#include "backends/record/record.h"

extern char *sagaz_bounds_of_text(const char *field, size_t bytes);
extern char *sagaz_bounds_of_time(const char *field, TimestampTz time);
extern char *sagaz_bounds_of_json(const char *field, const Jsonb *json);
extern char *sagaz_bounds_for_library(const SagazRecord *record, const SagazRecord *before);
extern char *sagaz_bounds_of_event(const SagazEvent *event);

#endif							/* SAGAZ_BOUNDS_H */
