/*
 * look.c
 *		A short look into one database: which deliveries does it have?
 *
 * A process of its own, as a process can be connected to one database only,
 * and whoever is connected is in the way of DROP DATABASE.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "outbox/cluster.h"
#include "wakeup/crash.h"
#include "worker/delivery.h"
#include "worker/obstacle.h"
#include "worker/process.h"
#include "wakeup/shared.h"
#include "worker/shares.h"

PGDLLEXPORT void sagaz_look_main(Datum main_arg);

typedef struct FoundDelivery
{
	char	   *name;
	Oid			owner;
	TimestampTz confirmed_at;
	bool		wanted;
} FoundDelivery;

static void
end_look(int code, Datum arg)
{
	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	sagaz_workers->looking = InvalidOid;
	sagaz_workers->look_pid = 0;
	LWLockRelease(sagaz_workers_lock);
	sagaz_shared_wake_launcher();
}

/* Say that this process looks; false if the database is closed. */
static bool
begin_look(Oid database)
{
	bool		closed;

	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	closed = sagaz_shared_is_closed(database);
	if (!closed)
	{
		sagaz_workers->looking = database;
		sagaz_workers->look_pid = MyProcPid;
	}
	LWLockRelease(sagaz_workers_lock);
	if (!closed)
		before_shmem_exit(end_look, 0);
	return !closed;
}

/* Can a worker be started for it? */
static bool
can_run(const SagazDelivery *delivery)
{
	char	   *obstacle;

	if (delivery->paused)
		return false;
	obstacle = sagaz_delivery_obstacle(delivery);
	if (obstacle == NULL)
		return true;
	ereport(LOG,
			(errmsg("delivery \"%s\" of database \"%s\" stands still: %s",
					delivery->name, get_database_name(MyDatabaseId), obstacle),
			 errhint("Once its owner has seen to that: SELECT %s.resume_delivery(%s).",
					 SAGAZ_SCHEMA, quote_literal_cstr(delivery->name))));
	return false;
}

/* The rows of sagaz.delivery, as FoundDelivery. */
static List *
find_deliveries(void)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SagazScan  *scan = sagaz_scan_begin("delivery", "delivery_pkey", snapshot,
										NULL, 0, ForwardScanDirection);
	bool		active = true;
	List	   *found = NIL;

	if (sagaz_scan_next(scan))
	{
		active = sagaz_cluster_is_active(snapshot);
		do
		{
			FoundDelivery *one = palloc(sizeof(FoundDelivery));
			SagazDelivery delivery;

			sagaz_delivery_read(scan->slot, &delivery);
			one->name = delivery.name;
			one->owner = delivery.owner_id;
			one->confirmed_at = delivery.confirmed_at;
			one->wanted = active && can_run(&delivery);
			found = lappend(found, one);
		} while (sagaz_scan_next(scan));
	}
	if (!active)
		ereport(LOG,
				(errmsg("the outbox of database \"%s\" is not active, so its deliveries do not run",
						get_database_name(MyDatabaseId)),
				 errhint("If this copy is to deliver events, run SELECT %s.activate().",
						 SAGAZ_SCHEMA)));
	sagaz_scan_end(scan);
	UnregisterSnapshot(snapshot);
	return found;
}

static SagazWorkerSlot *
look_take_slot(const char *name)
{
	for (int i = 0; i < sagaz_workers->nslots; i++)
	{
		SagazWorkerSlot *slot = &sagaz_workers->slots[i];

		if (OidIsValid(slot->database) || slot->pid != 0)
			continue;
		memset(&slot->done, 0, sizeof(slot->done));
		slot->database = MyDatabaseId;
		namestrcpy(&slot->name, name);
		slot->state = WORKER_NONE;
		slot->quick_ends = 0;
		slot->not_before = 0;
		slot->look_first = false;
		slot->yield = false;
		if ((int) pg_atomic_read_u32(&sagaz_workers->nused) <= i)
			pg_atomic_write_u32(&sagaz_workers->nused, i + 1);
		return slot;
	}
	return NULL;
}

/* Where the delivery was at work in a crash: wait, and say so. */
static void
heed_crashes(SagazWorkerSlot *slot)
{
	SagazCrashes crashes;

	if (!sagaz_crashes_read(MyDatabaseId, NameStr(slot->name),
							slot->confirmed_at, &crashes))
	{
		sagaz_crashes_forget(MyDatabaseId, NameStr(slot->name));
		return;
	}
	slot->not_before = Max(slot->not_before, sagaz_crashes_not_before(&crashes));
	if (slot->done.last_error_at >= crashes.last)
		return;
	slot->done.last_error_at = crashes.last;
	strlcpy(slot->done.last_error, "it was at work when the server crashed",
			SAGAZ_ERROR_LENGTH);
}

/*
 * granted: its database's limit has room for it.  What is beyond keeps a slot
 * that it has, but takes none.
 */
static void
look_set_slot(const FoundDelivery *found, bool granted)
{
	SagazWorkerSlot *slot = sagaz_shared_worker_slot(MyDatabaseId, found->name);

	if (slot == NULL && (granted || !found->wanted))
		slot = look_take_slot(found->name);
	if (slot == NULL)
	{
		sagaz_workers->no_slot = sagaz_workers->no_slot || granted;
		return;
	}
	slot->exists = true;
	slot->wanted = found->wanted && granted;
	slot->wait = found->wanted && !granted ? WAIT_DATABASE : WAIT_NONE;
	slot->owner = found->owner;
	slot->confirmed_at = found->confirmed_at;
	slot->look_first = false;
	if (slot->wanted && sagaz_workers->look_is_told)
		slot->not_before = 0;
	heed_crashes(slot);
	if (slot->latch)
		SetLatch(slot->latch);
}

static bool
runs(const FoundDelivery *found)
{
	SagazWorkerSlot *slot = sagaz_shared_worker_slot(MyDatabaseId, found->name);

	return slot && slot->exists && slot->wanted;
}

/*
 * Of the deliveries that may run, those that do, or do not, so far.  Returns
 * how many of the database's limit are left.
 */
static int
grant(List *deliveries, bool running, int left)
{
	ListCell   *cell;

	foreach(cell, deliveries)
	{
		const FoundDelivery *found = lfirst(cell);

		if (found->wanted && runs(found) == running)
			look_set_slot(found, left-- > 0);
	}
	return Max(left, 0);
}

static bool
is_found(List *deliveries, const char *name)
{
	ListCell   *cell;

	foreach(cell, deliveries)
		if (strcmp(((FoundDelivery *) lfirst(cell))->name, name) == 0)
			return true;
	return false;
}

/*
 * Bring this database's slots to what was found.  Workers look at "wanted"
 * without the lock, so it is false only where it stays so.
 */
static void
look_set_slots(List *deliveries)
{
	bool		no_slot;
	int			left;
	ListCell   *cell;

	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	for (int i = 0; i < sagaz_workers->nslots; i++)
	{
		SagazWorkerSlot *slot = &sagaz_workers->slots[i];

		if (slot->database != MyDatabaseId ||
			is_found(deliveries, NameStr(slot->name)))
			continue;
		sagaz_crashes_forget(MyDatabaseId, NameStr(slot->name));
		slot->exists = slot->wanted = false;
		if (slot->latch)
			SetLatch(slot->latch);
	}
	left = grant(deliveries, true, sagaz_shares_of_database());
	(void) grant(deliveries, false, left);
	foreach(cell, deliveries)
		if (!((FoundDelivery *) lfirst(cell))->wanted)
			look_set_slot(lfirst(cell), false);
	no_slot = sagaz_workers->no_slot;
	sagaz_workers->looked = MyDatabaseId;
	LWLockRelease(sagaz_workers_lock);
	if (no_slot)
		ereport(LOG,
				(errmsg("there are more deliveries than sagaz.max_deliveries"),
				 errhint("Increase sagaz.max_deliveries and restart the server.")));
}

/* Is there the extension, with a table of deliveries? */
static bool
has_deliveries(void)
{
	Oid			schema = sagaz_schema_find();

	return OidIsValid(schema) && OidIsValid(get_relname_relid("delivery", schema));
}

void
sagaz_look_main(Datum main_arg)
{
	Oid			database = DatumGetObjectId(main_arg);

	sagaz_process_signals();
	if (!begin_look(database))
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	sagaz_process_settings();
	sagaz_process_begin();
	PushActiveSnapshot(GetTransactionSnapshot());
	look_set_slots(has_deliveries() ? find_deliveries() : NIL);
	PopActiveSnapshot();
	CommitTransactionCommand();
	proc_exit(0);
}
