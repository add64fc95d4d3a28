/*
 * locks.c
 *		Locks of the outbox engine: objects of ours, not numbers among the
 *		application's advisory locks.
 */
#include "sagaz.h"

#include "miscadmin.h"
#include "storage/lock.h"

#include "locks.h"
#include "outbox.h"

/* Take an exclusive lock; false if it is another's and we do not wait. */
static bool
lock_object(const char *table, uint32 object, uint16 sub_object, bool wait)
{
	LOCKTAG		tag;

	PreventCommandDuringRecovery("a change of the outbox");
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, sagaz_relation_id(table),
					   object, sub_object);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) !=
		LOCKACQUIRE_NOT_AVAIL;
}

/* The right to move a group's cursor in a lane. */
bool
sagaz_lock_lane(int16 group_no, int16 lane, bool wait)
{
	return lock_object("consumer_group", group_no, lane + 1, wait);
}

/* The right to say what became of a batch. */
bool
sagaz_lock_batch(int64 batch_id, bool wait)
{
	return lock_object("outbox_batch", (uint32) (batch_id >> SAGAZ_GROUP_BITS),
					   sagaz_batch_group(batch_id), wait);
}

/* The right to make and drop groups. */
void
sagaz_lock_groups(void)
{
	(void) lock_object("consumer_group", 0, 0, true);
}

/* The right to remove old events. */
void
sagaz_lock_retention(void)
{
	(void) lock_object("outbox", 0, 0, true);
}
