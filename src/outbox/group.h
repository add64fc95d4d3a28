/*
 * group.h
 *		Consumer groups.
 */
#ifndef SAGAZ_GROUP_H
#define SAGAZ_GROUP_H

#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "nodes/pg_list.h"
#include "utils/snapshot.h"

enum group_column
{
	group_group_no = 1,
	group_consumer_group,
	group_ordering,
	group_start_time,
	group_paused_at,
	group_created_at
};

#define SAGAZ_DEFAULT_GROUP "sagaz-workers"

typedef struct SagazGroup
{
	int16		no;
	const char *name;
	bool		ordered;		/* ordering = 'saga' */
	bool		paused;
	TimestampTz start_time;		/* events created earlier are none of its; 0: all are */
} SagazGroup;

/* Is an event that was created then not from before the group's start? */
static inline bool
sagaz_group_begins_by(const SagazGroup *group, TimestampTz created_at)
{
	return group->start_time == 0 || created_at >= group->start_time;
}

extern char *sagaz_group_argument(FunctionCallInfo fcinfo, int argno, const char *own);
extern void sagaz_no_such_group(const char *name);
extern bool sagaz_group_gets(const SagazGroup *group, TupleTableSlot *event);
extern List *sagaz_group_names(Snapshot snapshot);
extern bool sagaz_group_find_in(const char *name, Snapshot snapshot,
								SagazGroup *group);
extern bool sagaz_group_find(const char *name, SagazGroup *group);
extern void sagaz_group_get(const char *name, SagazGroup *group);
extern void sagaz_group_use(const char *name, SagazGroup *group);
extern bool sagaz_group_find_by_no(int16 no, SagazGroup *group);
extern void sagaz_group_by_no(int16 no, SagazGroup *group);
extern void sagaz_group_check(SagazGroup *group);
extern bool sagaz_group_make(const char *name, const char *ordering,
							 TimestampTz start_time, SagazGroup *group);

#endif							/* SAGAZ_GROUP_H */
