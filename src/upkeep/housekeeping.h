/*
 * housekeeping.h
 *		What the worker does besides delivering.
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
