/*
 * crash.h
 *		Which deliveries were at work when the server crashed.
 */
#ifndef SAGAZ_CRASH_H
#define SAGAZ_CRASH_H

#include "datatype/timestamp.h"

/* So many are remembered of one delivery. */
#define SAGAZ_CRASHES 10

/* What a delivery has on its account; all zero: nothing.  Stored like this. */
typedef struct SagazCrashes
{
	TimestampTz confirmed_at;	/* of the delivery as it was then */
	TimestampTz last;
	TimestampTz times[SAGAZ_CRASHES];	/* the oldest first */
	Oid			database;
	int32		count;			/* within ten minutes */
	NameData	delivery;
} SagazCrashes;

/* What the process of a slot is at, in the file. */
typedef struct SagazCrashMark
{
	TimestampTz confirmed_at;
	Oid			database;
	NameData	delivery;
	int32		busy;			/* 1, or 0 */
} SagazCrashMark;

extern Size sagaz_crashes_size(int nslots);
extern void sagaz_crashes_start(SagazCrashes *memory, int nslots, bool fresh);
extern bool sagaz_crashes_read(Oid database, const char *delivery,
							   TimestampTz confirmed_at, SagazCrashes *crashes);
extern void sagaz_crashes_forget(Oid database, const char *delivery);
extern TimestampTz sagaz_crashes_not_before(const SagazCrashes *crashes);
extern bool sagaz_crashes_are_too_many(const SagazCrashes *crashes);

/* in the worker of a slot */
extern void sagaz_crash_attach(int slot, const SagazCrashMark *mark);
extern void sagaz_crash_busy(bool busy);

#endif							/* SAGAZ_CRASH_H */
