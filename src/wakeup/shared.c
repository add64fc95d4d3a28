/*
 * shared.c
 *		Shared memory: what workers there are, and waking them.
 */
#include "lib/sagaz.h"

#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "wakeup/shared.h"

SagazWorkers *sagaz_workers = NULL;
LWLock	   *sagaz_workers_lock = NULL;

/*
 * Asked before shared memory is there, by the hook that requests it; the
 * setting is final by then.
 */
Size
sagaz_shared_size(void)
{
	return add_size(offsetof(SagazWorkers, slots),
					mul_size(sagaz_max_deliveries, sizeof(SagazWorkerSlot)));
}

/* A fresh start, or one after a crash: nothing is known of any database. */
static void
init_shared_workers(void)
{
	memset(sagaz_workers, 0, sagaz_shared_size());
	sagaz_workers->nslots = sagaz_max_deliveries;
	sagaz_workers->all_changed = true;
	pg_atomic_init_u32(&sagaz_workers->nused, 0);
	for (int i = 0; i < sagaz_workers->nslots; i++)
		pg_atomic_init_u32(&sagaz_workers->slots[i].nudged, 0);
}

/* Take the shared memory and its lock; fresh: as yet it holds nothing. */
void
sagaz_shared_attach(void *memory, LWLock *lock, bool fresh)
{
	sagaz_workers = memory;
	sagaz_workers_lock = lock;
	if (fresh)
		init_shared_workers();
}

/*
 * No lock: latches lie in memory that stays, and who wakes for nothing
 * sleeps again.
 */
void
sagaz_shared_wake_launcher(void)
{
	Latch	   *latch = sagaz_workers->launcher;

	if (latch)
		SetLatch(latch);
}

/*
 * Wake the workers of a database; nudge: they shall look at their delivery,
 * too.  Takes no lock, as it runs at the end of each commit that emits events:
 * who wakes for nothing sleeps again.
 */
void
sagaz_shared_wake_workers(Oid database, bool nudge)
{
	uint32		nused;

	if (sagaz_workers == NULL)
		return;
	nused = pg_atomic_read_u32(&sagaz_workers->nused);
	for (uint32 i = 0; i < nused; i++)
	{
		SagazWorkerSlot *slot = &sagaz_workers->slots[i];
		Latch	   *latch = slot->latch;

		if (slot->database != database || latch == NULL)
			continue;
		if (nudge)
			pg_atomic_write_u32(&slot->nudged, 1);
		SetLatch(latch);
	}
}

/*
 * The launcher shall look into a database.  Takes the lock in the last steps
 * of a commit, so nothing here may fail; where the list is full all are
 * looked into.
 */
void
sagaz_shared_database_changed(Oid database)
{
	bool		known = false;

	if (sagaz_workers == NULL)
		return;
	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	for (int i = 0; i < sagaz_workers->nchanged; i++)
		if (sagaz_workers->changed[i] == database)
			known = true;
	if (!known && sagaz_workers->nchanged < SAGAZ_MAX_CHANGED)
		sagaz_workers->changed[sagaz_workers->nchanged++] = database;
	else if (!known)
		sagaz_workers->all_changed = true;
	LWLockRelease(sagaz_workers_lock);
	sagaz_shared_wake_launcher();
}

/* The same for all databases; only where the modules are preloaded. */
void
sagaz_shared_all_changed(void)
{
	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	sagaz_workers->all_changed = true;
	LWLockRelease(sagaz_workers_lock);
	sagaz_shared_wake_launcher();
}

/* Does a command want the database for itself?  The caller holds the lock. */
bool
sagaz_shared_is_closed(Oid database)
{
	for (int i = 0; i < sagaz_workers->nclosed; i++)
		if (sagaz_workers->closed[i] == database)
			return true;
	return false;
}

/* The slot of a delivery, or NULL.  The caller holds the lock. */
SagazWorkerSlot *
sagaz_shared_worker_slot(Oid database, const char *name)
{
	uint32		nused = pg_atomic_read_u32(&sagaz_workers->nused);

	for (uint32 i = 0; i < nused; i++)
	{
		SagazWorkerSlot *slot = &sagaz_workers->slots[i];

		if (slot->database == database &&
			strcmp(NameStr(slot->name), name) == 0)
			return slot;
	}
	return NULL;
}
