/*
 * housekeeping.h
 *		What the worker does besides delivering.
 *
 * The folder has what keeps the tables in order: retention and archive, dead
 * letters, and taking over the Python library's tables.  It runs beside
 * claims and gives way to them; it calls src/status, src/outbox and below.
 */
#ifndef SAGAZ_HOUSEKEEPING_H
#define SAGAZ_HOUSEKEEPING_H

#include "datatype/timestamp.h"

/* What one slice of house-keeping did. */
typedef struct SagazHousekeeping
{
	int64		archived;
	int64		inbox_removed;
	bool		more;			/* there is more to do at once */
} SagazHousekeeping;

extern void sagaz_housekeep(SagazHousekeeping *done);

#endif							/* SAGAZ_HOUSEKEEPING_H */
