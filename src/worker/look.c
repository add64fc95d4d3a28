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
#include "worker/delivery.h"
#include "worker/obstacle.h"
#include "worker/process.h"
#include "wakeup/shared.h"

PGDLLEXPORT void sagaz_look_main(Datum main_arg);

typedef struct FoundDelivery
{
	char	   *name;
	Oid			owner;
	bool		wanted;
} FoundDelivery;

static void
end_look(int code, Datum arg)
{
	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	sagaz_workers->looking = InvalidOid;
	sagaz_workers->look_pid = 0;
	LWLockRelease(sagaz_workers_lock);
	sagaz_launcher_wake();
}

/* Say that this process looks; false if the database is closed. */
static bool
begin_look(Oid database)
{
	bool		closed;

	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	closed = sagaz_database_is_closed(database);
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
take_slot(const char *name)
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
		if ((int) pg_atomic_read_u32(&sagaz_workers->nused) <= i)
			pg_atomic_write_u32(&sagaz_workers->nused, i + 1);
		return slot;
	}
	return NULL;
}

static void
set_slot(const FoundDelivery *found)
{
	SagazWorkerSlot *slot = sagaz_worker_slot(MyDatabaseId, found->name);

	if (slot == NULL)
		slot = take_slot(found->name);
	if (slot == NULL)
	{
		sagaz_workers->no_slot = true;
		return;
	}
	slot->exists = true;
	slot->wanted = found->wanted;
	slot->owner = found->owner;
	slot->look_first = false;
	if (slot->wanted && sagaz_workers->look_is_told)
		slot->not_before = 0;
	if (slot->latch)
		SetLatch(slot->latch);
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
set_slots(List *deliveries)
{
	bool		no_slot;
	ListCell   *cell;

	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	for (int i = 0; i < sagaz_workers->nslots; i++)
	{
		SagazWorkerSlot *slot = &sagaz_workers->slots[i];

		if (slot->database != MyDatabaseId ||
			is_found(deliveries, NameStr(slot->name)))
			continue;
		slot->exists = slot->wanted = false;
		if (slot->latch)
			SetLatch(slot->latch);
	}
	foreach(cell, deliveries)
		set_slot(lfirst(cell));
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
	Oid			schema = get_namespace_oid(SAGAZ_SCHEMA, true);

	return OidIsValid(get_extension_oid("sagaz", true)) &&
		OidIsValid(schema) && OidIsValid(get_relname_relid("delivery", schema));
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
	set_slots(has_deliveries() ? find_deliveries() : NIL);
	PopActiveSnapshot();
	CommitTransactionCommand();
	proc_exit(0);
}
