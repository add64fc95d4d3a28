/*
 * group.h
 *		Consumer groups.
 */
#ifndef SAGAZ_GROUP_H
#define SAGAZ_GROUP_H

#include "datatype/timestamp.h"
#include "utils/snapshot.h"

#define SAGAZ_DEFAULT_GROUP "sagaz-workers"

typedef struct SagazGroup
{
	int16		no;
	const char *name;
	bool		ordered;		/* ordering = 'saga' */
	bool		paused;
	TimestampTz start_time;		/* events created earlier are none of its; 0: all are */
} SagazGroup;

extern bool sagaz_group_find(const char *name, SagazGroup *group);
extern void sagaz_group_get(const char *name, SagazGroup *group);
extern void sagaz_group_use(const char *name, SagazGroup *group);
extern void sagaz_group_by_no(int16 no, SagazGroup *group);

#endif							/* SAGAZ_GROUP_H */
