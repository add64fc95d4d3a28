/*
 * health.h
 *		What the parts of health_check() share.
 *
 * The folder has what people run a database with: health, activation,
 * consumer groups, what deliveries have done.  It lies above all others and
 * is called by nobody but SQL.
 */
#ifndef SAGAZ_HEALTH_H
#define SAGAZ_HEALTH_H

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "utils/snapshot.h"

typedef struct SagazHealth
{
	Snapshot	snapshot;
	TimestampTz now;
	bool		unhealthy;
	bool		degraded;
	StringInfoData message;
	StringInfoData details;		/* JSON text */
} SagazHealth;

/* complaint.c */
extern void sagaz_health_complain(SagazHealth *health, bool *grade,
								  const char *complaint);

/* health_workers.c */
extern void sagaz_health_workers(SagazHealth *health);

#endif							/* SAGAZ_HEALTH_H */
