/*
 * locks.c
 *		Locks of the outbox engine: objects of ours, not numbers among the
 *		application's advisory locks.
 */
#include "lib/sagaz.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"

#include "outbox/locks.h"
#include "outbox/outbox.h"

/* Take a lock; false if another is in the way and we do not wait. */
static bool
lock_object_as(LOCKMODE mode, const char *table, uint32 object,
			   uint16 sub_object, bool wait)
{
	LOCKTAG		tag;

	PreventCommandDuringRecovery("a change of the outbox");
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, sagaz_relation_id(table),
					   object, sub_object);
	return LockAcquire(&tag, mode, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

static bool
lock_object(const char *table, uint32 object, uint16 sub_object, bool wait)
{
	return lock_object_as(ExclusiveLock, table, object, sub_object, wait);
}

/*
 * The right to move a group's cursor in a lane, and to change its retry rows
 * that are not out.  What was read of them before is worth nothing.
 */
bool
sagaz_lock_lane(int16 group_no, int16 lane, bool wait)
{
	return lock_object("consumer_group", group_no, lane + 1, wait);
}

/*
 * The right to say what became of a batch, and to change its retry rows.
 * What was read of them before is worth nothing.
 */
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
bool
sagaz_lock_retention(bool wait)
{
	return lock_object("outbox", 0, 0, wait);
}

/*
 * The right to change a delivery, or, shared, to deliver a batch of it.  Two
 * names may share a lock by chance; it does no harm.
 */
bool
sagaz_lock_delivery(const char *name, bool change, bool wait)
{
	uint32		hash = DatumGetUInt32(hash_any((const unsigned char *) name,
											   strlen(name)));

	return lock_object_as(change ? ExclusiveLock : ShareLock, "delivery", hash,
						  0, wait);
}
