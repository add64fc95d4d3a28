/*
 * locks.h
 *		Locks of the outbox engine.  All last until the transaction ends and
 *		show in pg_locks as type "object", with classid the table they guard.
 *
 * Order, where more than one is taken: delivery, retention, groups, lane, batch; and a
 * claim takes a batch only if it is free.
 */
#ifndef SAGAZ_LOCKS_H
#define SAGAZ_LOCKS_H

extern bool sagaz_lock_lane(int16 group_no, int16 lane, bool wait);
extern bool sagaz_lock_batch(int64 batch_id, bool wait);
extern void sagaz_lock_groups(void);
extern bool sagaz_lock_retention(bool wait);
extern bool sagaz_lock_delivery(const char *name, bool change, bool wait);

#endif							/* SAGAZ_LOCKS_H */
