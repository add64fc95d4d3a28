/*
 * group.c
 *		Consumer groups: look-up, and the making of their rows.
 *
 * Group numbers are given out under one lock; a number becomes free again
 * when drop_consumer_group() has removed all that the group left behind.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "outbox/cursor.h"
#include "outbox/group.h"
#include "outbox/locks.h"
#include "outbox/outbox.h"
#include "lib/tuples.h"

static void
read_group(TupleTableSlot *slot, SagazGroup *group)
{
	char	   *ordering = sagaz_column_text(slot, group_ordering);

	group->no = DatumGetInt16(sagaz_column(slot, group_group_no));
	group->name = sagaz_column_text(slot, group_consumer_group);
	group->ordered = strcmp(ordering, "saga") == 0;
	group->paused = !sagaz_column_is_null(slot, group_paused_at);
	group->start_time = sagaz_column_is_null(slot, group_start_time) ? 0 :
		DatumGetTimestampTz(sagaz_column(slot, group_start_time));
}

static bool
find_group_by_key(const char *index, ScanKey key, Snapshot snapshot,
				  SagazGroup *group)
{
	SagazScan  *scan = sagaz_scan_begin("consumer_group", index, snapshot,
										key, 1, ForwardScanDirection);
	bool		found = sagaz_scan_next(scan);

	if (found)
		read_group(scan->slot, group);
	sagaz_scan_end(scan);
	return found;
}

/* The group as the snapshot has it. */
bool
sagaz_group_find_in(const char *name, Snapshot snapshot, SagazGroup *group)
{
	ScanKeyData key;

	sagaz_key_text(&key, 1, CStringGetTextDatum(name));
	return find_group_by_key("consumer_group_consumer_group_key", &key, snapshot,
							 group);
}

/*
 * The group as it is now, whatever the caller's snapshot; false if there is
 * none.  Its name lies in the present memory context.
 */
bool
sagaz_group_find(const char *name, SagazGroup *group)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		found = sagaz_group_find_in(name, snapshot, group);

	UnregisterSnapshot(snapshot);
	return found;
}

/* The argument consumer_group of a function on a storage whose own is that. */
char *
sagaz_group_argument(FunctionCallInfo fcinfo, int argno, const char *own)
{
	return PG_ARGISNULL(argno) ? pstrdup(own) :
		sagaz_text_argument(fcinfo, argno, "consumer_group");
}

/* The error that a group of that name does not exist; does not return. */
void
sagaz_no_such_group(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_NOT_FOUND),
			 errmsg("consumer group \"%s\" does not exist", name),
			 errhint("Create it with SELECT %s.create_consumer_group(%s).",
					 SAGAZ_SCHEMA, quote_literal_cstr(name))));
}

/* The group as it is now; an error if there is none. */
void
sagaz_group_get(const char *name, SagazGroup *group)
{
	if (!sagaz_group_find(name, group))
		sagaz_no_such_group(name);
}

/* As sagaz_group_find(); the group of a transaction that is open is not found. */
bool
sagaz_group_find_by_no(int16 no, SagazGroup *group)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData key;
	bool		found;

	sagaz_key_int2(&key, 1, BTEqualStrategyNumber, no);
	found = find_group_by_key("consumer_group_pkey", &key, snapshot, group);
	UnregisterSnapshot(snapshot);
	return found;
}

/*
 * The group as it is now; an error if it was dropped.  A drop locks the
 * group's open batches, so who has locked one keeps the group.
 */
void
sagaz_group_by_no(int16 no, SagazGroup *group)
{
	if (!sagaz_group_find_by_no(no, group))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_NOT_FOUND),
				 errmsg("the batch's consumer group does not exist")));
}

/* The names of all groups as of the snapshot, the first that was made first. */
List *
sagaz_group_names(Snapshot snapshot)
{
	SagazScan  *scan = sagaz_scan_begin("consumer_group", "consumer_group_pkey",
										snapshot, NULL, 0, ForwardScanDirection);
	List	   *names = NIL;

	while (sagaz_scan_next(scan))
		names = lappend(names, sagaz_column_text(scan->slot, group_consumer_group));
	sagaz_scan_end(scan);
	return names;
}

/* The lowest number that no group has; the caller holds the groups' lock. */
static int16
free_group_number(Snapshot snapshot)
{
	SagazScan  *scan = sagaz_scan_begin("consumer_group", "consumer_group_pkey",
										snapshot, NULL, 0, ForwardScanDirection);
	int			number = 1;

	while (sagaz_scan_next(scan) &&
		   DatumGetInt16(sagaz_column(scan->slot, group_group_no)) == number)
		number++;
	sagaz_scan_end(scan);
	if (number > SAGAZ_MAX_GROUP)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CAPACITY),
				 errmsg("there are %d consumer groups already", SAGAZ_MAX_GROUP),
				 errhint("Drop one with SELECT %s.drop_consumer_group(name).",
						 SAGAZ_SCHEMA)));
	return (int16) number;
}

/*
 * False if a group of that name is there already.  Takes the locks of
 * retention and of groups, in this order, until the transaction ends.
 */
bool
sagaz_group_make(const char *name, const char *ordering,
				 TimestampTz start_time, SagazGroup *group)
{
	Snapshot	snapshot;
	SagazWriter *writer;

	/* retention must not remove what the new group is to get */
	(void) sagaz_lock_retention(true);
	sagaz_lock_groups();
	if (sagaz_group_find(name, group))
		return false;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	writer = sagaz_writer_begin("consumer_group");
	sagaz_writer_row(writer);
	sagaz_writer_set(writer, group_group_no,
					 Int16GetDatum(free_group_number(snapshot)));
	sagaz_writer_set(writer, group_consumer_group, CStringGetTextDatum(name));
	sagaz_writer_set(writer, group_ordering, CStringGetTextDatum(ordering));
	if (start_time != 0)
		sagaz_writer_set(writer, group_start_time,
						 TimestampTzGetDatum(start_time));
	sagaz_writer_set(writer, group_created_at,
					 TimestampTzGetDatum(GetCurrentTimestamp()));
	sagaz_writer_insert(writer);
	sagaz_writer_end(writer);
	UnregisterSnapshot(snapshot);
	CommandCounterIncrement();
	sagaz_group_get(name, group);
	return true;
}

/*
 * Is the event of the log for the group to read?  Others it has only if they
 * have a retry row of the group.
 */
bool
sagaz_group_gets(const SagazGroup *group, TupleTableSlot *event)
{
	return DatumGetUInt64(sagaz_column(event, outbox_pos)) >= SAGAZ_FIRST_POS &&
		sagaz_group_begins_by(group,
							  DatumGetTimestampTz(sagaz_column(event, outbox_created_at)));
}

/*
 * Under a lane's lock: is the group still the one that was looked up before?
 * It may have been paused, or dropped and its number given to another, meanwhile.
 */
void
sagaz_group_check(SagazGroup *group)
{
	SagazGroup	now;

	if (!sagaz_group_find(group->name, &now) || now.no != group->no)
		sagaz_no_such_group(group->name);
	group->paused = now.paused;
}

/* A group that must exist, except that the default one arises on first use. */
void
sagaz_group_use(const char *name, SagazGroup *group)
{
	if (sagaz_group_find(name, group))
		return;
	if (strcmp(name, SAGAZ_DEFAULT_GROUP) != 0)
		sagaz_no_such_group(name);
	(void) sagaz_group_make(name, "none", 0, group);
}
