/*
 * shares.c
 *		Who gets a process.
 *
 * Background processes are few, and deliveries of all databases and roles
 * want one each, for good.  So:
 *
 * - some are left to others, such as parallel queries: sagaz.spare_processes;
 * - no database and no role gets more than its limit;
 * - the next one goes to the database that has the fewest; and where one waits
 *   for a process, and another database has two more than its own, one of
 *   those is taken away, between two batches.  So the databases that want
 *   more than there are come to have equally many, whoever was first.
 *
 * A database's limit is look.c's to keep, as it is the one for slots, too; the
 * rest is the launcher's.
 */
#include "lib/sagaz.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "replication/logicallauncher.h"
#include "utils/acl.h"
#include "utils/timestamp.h"

#include "worker/shares.h"

/* Has it a process, or will it have one in a moment? */
static bool
has_process(const SagazWorkerSlot *slot)
{
	return OidIsValid(slot->database) &&
		(slot->state != WORKER_NONE || slot->pid != 0);
}

/* Could it be started now, as far as it is concerned? */
static bool
is_ready(const SagazWorkerSlot *slot, TimestampTz now)
{
	return OidIsValid(slot->database) && slot->exists && slot->wanted &&
		slot->state == WORKER_NONE && !slot->look_first &&
		slot->not_before <= now && !sagaz_shared_is_closed(slot->database);
}

/* Processes of a database, a role, or, with InvalidOid for both, of all. */
static int
count_processes(Oid database, Oid role)
{
	int			count = 0;

	for (int i = 0; i < sagaz_workers->nslots; i++)
	{
		const SagazWorkerSlot *slot = &sagaz_workers->slots[i];

		if (has_process(slot) &&
			(!OidIsValid(database) || slot->database == database) &&
			(!OidIsValid(role) || slot->owner == role))
			count++;
	}
	return count;
}

/*
 * How many workers there may be beside the launchers, ours and that of logical
 * replication; always one.  A look takes one of the spare processes.
 */
static int
max_workers(void)
{
	int			others = 1 + (max_logical_replication_workers > 0 ? 1 : 0) +
		sagaz_spare_processes;

	return Max(max_worker_processes - others, 1);
}

static SagazWait
wait_of(const SagazWorkerSlot *slot, bool room)
{
	if (sagaz_max_deliveries_per_role >= 0 &&
		count_processes(InvalidOid, slot->owner) >= sagaz_max_deliveries_per_role)
		return WAIT_ROLE;
	return room ? WAIT_PROCESS : WAIT_SPARE;
}

/*
 * The slot whose worker is to be started next, or -1.  Those that are ready
 * and are not to be get the reason.
 */
int
sagaz_shares_next(void)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		room;
	int			best = -1;
	int			fewest = 0;

	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	room = count_processes(InvalidOid, InvalidOid) < max_workers();
	for (int i = 0; i < sagaz_workers->nslots; i++)
	{
		SagazWorkerSlot *slot = &sagaz_workers->slots[i];
		int			count;

		if (!is_ready(slot, now))
			continue;
		slot->wait = wait_of(slot, room);
		if (slot->wait != WAIT_PROCESS)
			continue;
		count = count_processes(slot->database, InvalidOid);
		if (best >= 0 && count >= fewest)
			continue;
		best = i;
		fewest = count;
	}
	LWLockRelease(sagaz_workers_lock);
	return best;
}

/* Does a delivery wait for a process that another database may have? */
bool
sagaz_shares_wait(void)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		found = false;

	LWLockAcquire(sagaz_workers_lock, LW_SHARED);
	for (int i = 0; i < sagaz_workers->nslots && !found; i++)
		found = is_ready(&sagaz_workers->slots[i], now) &&
			sagaz_workers->slots[i].wait != WAIT_ROLE;
	LWLockRelease(sagaz_workers_lock);
	return found;
}

/* How many processes the poorest has of the databases that wait. */
static int
count_of_poorest(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int			fewest = INT_MAX;

	for (int i = 0; i < sagaz_workers->nslots; i++)
	{
		SagazWorkerSlot *slot = &sagaz_workers->slots[i];

		if (is_ready(slot, now) && slot->wait != WAIT_ROLE)
			fewest = Min(fewest, count_processes(slot->database, InvalidOid));
	}
	return fewest;
}

/*
 * Where a database waits that has less than another, ask a worker of the
 * richest for its process, one at a time; rather an idle one.
 */
void
sagaz_shares_even_out(void)
{
	SagazWorkerSlot *chosen = NULL;
	int			most = 0;
	int			fewest;

	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	fewest = count_of_poorest();
	for (int i = 0; i < sagaz_workers->nslots; i++)
	{
		SagazWorkerSlot *slot = &sagaz_workers->slots[i];
		int			count;

		if (!has_process(slot))
			continue;
		if (slot->yield)
		{
			chosen = NULL;
			break;
		}
		count = count_processes(slot->database, InvalidOid);
		if (slot->latch == NULL || fewest > count - 2 || count < most ||
			(count == most && chosen && chosen->state == WORKER_IDLE))
			continue;
		chosen = slot;
		most = count;
	}
	if (chosen)
	{
		chosen->yield = true;
		SetLatch(chosen->latch);
	}
	LWLockRelease(sagaz_workers_lock);
}

/* So many deliveries of one database may run. */
int
sagaz_shares_of_database(void)
{
	return sagaz_max_deliveries_per_database < 0 ? INT_MAX :
		sagaz_max_deliveries_per_database;
}

/* Why a delivery of this database has no slot.  The caller holds the lock. */
static SagazWait
wait_without_slot(void)
{
	int			running = 0;

	for (int i = 0; i < sagaz_workers->nslots; i++)
		if (sagaz_workers->slots[i].database == MyDatabaseId &&
			sagaz_workers->slots[i].wanted)
			running++;
	if (running >= sagaz_shares_of_database())
		return WAIT_DATABASE;
	if (sagaz_workers->no_slot)
		return WAIT_SLOT;
	/* the launcher cannot even look */
	return sagaz_workers->no_process ? WAIT_PROCESS : WAIT_NONE;
}

/*
 * A copy of the slot of a delivery of this database; where it has none, one
 * that tells why.
 */
SagazWorkerSlot
sagaz_shares_read(const char *delivery)
{
	SagazWorkerSlot copy = {.state = WORKER_NONE};
	SagazWorkerSlot *slot;

	if (sagaz_workers == NULL)
		return copy;
	LWLockAcquire(sagaz_workers_lock, LW_SHARED);
	slot = sagaz_shared_worker_slot(MyDatabaseId, delivery);
	if (slot && slot->exists)
		copy = *slot;
	else
		copy.wait = wait_without_slot();
	LWLockRelease(sagaz_workers_lock);
	return copy;
}

/* Which limit keeps a delivery from running, or NULL. */
char *
sagaz_shares_reason(const SagazWorkerSlot *slot)
{
	switch (slot->wait)
	{
		case WAIT_NONE:
			return NULL;
		case WAIT_PROCESS:
			return pstrdup("max_worker_processes is exhausted");
		case WAIT_SPARE:
			return psprintf("max_worker_processes is exhausted but for those that sagaz.spare_processes (%d) leaves to others",
							sagaz_spare_processes);
		case WAIT_SLOT:
			return psprintf("sagaz.max_deliveries (%d) is reached",
							sagaz_max_deliveries);
		case WAIT_DATABASE:
			return psprintf("sagaz.max_deliveries_per_database (%d) is reached",
							sagaz_max_deliveries_per_database);
		case WAIT_ROLE:
			return psprintf("sagaz.max_deliveries_per_role (%d) is reached by role \"%s\"",
							sagaz_max_deliveries_per_role,
							GetUserNameFromId(slot->owner, true));
	}
	return NULL;
}
