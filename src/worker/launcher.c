/*
 * launcher.c
 *		One process of the cluster that keeps a worker running for each
 *		delivery.
 *
 * The launcher is connected to no database, so it is in nobody's way.  It
 * learns which databases there are from pg_database, and what deliveries one
 * has from a short-lived process that looks into it (look.c), one at a time.
 * It acts when it is told to: a session that changes deliveries names its
 * database in shared memory; a worker that ends sets the launcher's latch.
 */
#include "lib/sagaz.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "lib/times.h"
#include "worker/process.h"
#include "wakeup/shared.h"
#include "worker/shares.h"
#include "worker/worker.h"

/* Registering is tried again after so long where no process is free. */
#define PROCESS_RETRY_MS 1000
/* So is a look that failed, and then ever later. */
#define LOOK_RETRY_MS 100
#define MAX_LOOK_RETRY_MS (LOOK_RETRY_MS << 9)
/* That there are too few is said so often. */
#define COMPLAINT_MS 60000
/* A worker that was registered comes up in this time, or is given up. */
#define START_TIMEOUT_MS 30000

/* A database to be looked into. */
typedef struct Look
{
	Oid			database;
	TimestampTz not_before;
	int			tries;
	bool		told;			/* somebody changed something there */
} Look;

PGDLLEXPORT void sagaz_launcher_main(Datum main_arg);

static List *looks = NIL;		/* of Look, in TopMemoryContext */
static BackgroundWorkerHandle *look_handle = NULL;
static BackgroundWorkerHandle **handles;	/* one a slot, NULL if none */
static TimestampTz next_action;
static TimestampTz complained_at = 0;

static void
launcher_act_at(TimestampTz when)
{
	next_action = Min(next_action, when);
}

static void
forget_launcher(int code, Datum arg)
{
	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	sagaz_workers->launcher = NULL;
	sagaz_workers->launcher_pid = 0;
	LWLockRelease(sagaz_workers_lock);
}

/* Is the database one of those that sagaz.databases names? */
static bool
is_named(const char *database)
{
	char	   *copy = pstrdup(sagaz_databases);
	List	   *names;
	ListCell   *cell;

	if (!SplitIdentifierString(copy, ',', &names))
		return false;
	foreach(cell, names)
	{
		const char *name = lfirst(cell);

		if (strcmp(name, "*") == 0 || strcmp(name, database) == 0)
			return true;
	}
	return false;
}

/* The databases that may be looked into; templates are not. */
static List *
launcher_read_databases(void)
{
	MemoryContext outer = CurrentMemoryContext;
	List	   *databases = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	sagaz_process_begin();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext inner;

		/* a limit of -2 marks a database that a DROP left half done */
		if (!database->datallowconn || database->datistemplate ||
			database->datconnlimit == -2 ||
			!is_named(NameStr(database->datname)))
			continue;
		inner = MemoryContextSwitchTo(outer);
		databases = lappend_oid(databases, database->oid);
		MemoryContextSwitchTo(inner);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(outer);
	return databases;
}

static void
launcher_append_look(Look *look)
{
	MemoryContext outer = MemoryContextSwitchTo(TopMemoryContext);

	looks = lappend(looks, look);
	MemoryContextSwitchTo(outer);
}

static void
launcher_add_look(Oid database, bool told)
{
	ListCell   *cell;
	Look	   *look;

	foreach(cell, looks)
	{
		look = lfirst(cell);
		/* one that is under way may have missed a change */
		if (look->database == database &&
			!(told && look_handle && look == linitial(looks)))
		{
			look->told = look->told || told;
			if (told)
				look->not_before = look->tries = 0;
			return;
		}
	}
	look = MemoryContextAllocZero(TopMemoryContext, sizeof(Look));
	look->database = database;
	look->told = told;
	launcher_append_look(look);
}

/* Workers of databases that are gone, or not named any more, shall end. */
static void
stop_workers_elsewhere(List *databases)
{
	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	for (int i = 0; i < sagaz_workers->nslots; i++)
	{
		SagazWorkerSlot *slot = &sagaz_workers->slots[i];

		if (!OidIsValid(slot->database) ||
			list_member_oid(databases, slot->database))
			continue;
		slot->wanted = slot->exists = false;
		if (slot->latch)
			SetLatch(slot->latch);
	}
	LWLockRelease(sagaz_workers_lock);
}

/* Make a list of what to look into, from what sessions have told. */
static void
launcher_note_changes(void)
{
	Oid			changed[SAGAZ_MAX_CHANGED];
	int			nchanged;
	bool		all;
	List	   *databases;
	ListCell   *cell;

	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	nchanged = sagaz_workers->nchanged;
	memcpy(changed, sagaz_workers->changed, sizeof(changed));
	all = sagaz_workers->all_changed;
	/* whose delivery has no slot is not known */
	if (nchanged > 0 && sagaz_workers->no_slot)
		all = true;
	if (all)
		sagaz_workers->no_slot = false;
	sagaz_workers->nchanged = 0;
	sagaz_workers->all_changed = false;
	LWLockRelease(sagaz_workers_lock);
	if (!all && nchanged == 0)
		return;

	databases = launcher_read_databases();
	stop_workers_elsewhere(databases);
	foreach(cell, databases)
	{
		bool		wanted = all;

		for (int i = 0; i < nchanged; i++)
			wanted = wanted || changed[i] == lfirst_oid(cell);
		if (wanted)
			launcher_add_look(lfirst_oid(cell), true);
	}
}

/* Register a process; false if max_worker_processes leaves none. */
static bool
launch_process(const char *type, const char *name, const char *function,
			   Datum argument, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = {0};
	MemoryContext outer = MemoryContextSwitchTo(TopMemoryContext);
	bool		started;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = argument;
	strlcpy(worker.bgw_library_name, "sagaz", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, function, BGW_MAXLEN);
	strlcpy(worker.bgw_type, type, BGW_MAXLEN);
	strlcpy(worker.bgw_name, name, BGW_MAXLEN);
	started = RegisterDynamicBackgroundWorker(&worker, handle);
	MemoryContextSwitchTo(outer);
	sagaz_workers->no_process = !started;
	if (!started)
		launcher_act_at(GetCurrentTimestamp() + PROCESS_RETRY_MS * INT64CONST(1000));
	return started;
}

static void
complain_of_processes(void)
{
	if (!TimestampDifferenceExceeds(complained_at, GetCurrentTimestamp(),
									COMPLAINT_MS))
		return;
	complained_at = GetCurrentTimestamp();
	ereport(LOG,
			(errmsg("no background process is free for a delivery of sagaz"),
			 errhint("Increase max_worker_processes.")));
}

/*
 * Has the look that is under way ended?  Then take it off the list.  The
 * database may have been named when it began, and not be any more.
 */
static void
launcher_end_look(void)
{
	Look	   *look;
	List	   *databases;
	pid_t		pid;

	if (look_handle == NULL || GetBackgroundWorkerPid(look_handle, &pid) != BGWH_STOPPED)
		return;
	look = linitial(looks);
	pfree(look_handle);
	look_handle = NULL;
	looks = list_delete_first(looks);
	databases = launcher_read_databases();
	stop_workers_elsewhere(databases);
	if (sagaz_workers->looked == look->database ||
		!list_member_oid(databases, look->database))
	{
		pfree(look);
		return;
	}
	look->not_before = GetCurrentTimestamp() +
		sagaz_backoff(LOOK_RETRY_MS, MAX_LOOK_RETRY_MS, look->tries++);
	launcher_append_look(look);
}

/* Start to look into the next database. */
static void
launcher_begin_look(void)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = list_length(looks); i > 0; i--)
	{
		Look	   *look = linitial(looks);
		bool		closed;

		LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
		closed = sagaz_shared_is_closed(look->database);
		sagaz_workers->looked = InvalidOid;
		sagaz_workers->look_is_told = look->told;
		LWLockRelease(sagaz_workers_lock);
		if (!closed && look->not_before <= now)
		{
			if (!launch_process("sagaz look", "sagaz look", "sagaz_look_main",
								ObjectIdGetDatum(look->database), &look_handle))
				complain_of_processes();
			return;
		}
		/* one that is closed now is named again when it opens */
		if (!closed)
			launcher_act_at(look->not_before);
		looks = list_delete_first(looks);
		if (!closed)
			launcher_append_look(look);
	}
}

/* A worker that was registered, and may have failed to come up. */
static void
launcher_check_start(int i)
{
	SagazWorkerSlot *slot = &sagaz_workers->slots[i];
	TimestampTz limit = slot->started_at + START_TIMEOUT_MS * INT64CONST(1000);
	pid_t		pid;
	bool		lost;

	if (handles[i])
		lost = GetBackgroundWorkerPid(handles[i], &pid) == BGWH_STOPPED;
	else
		lost = GetCurrentTimestamp() >= limit;
	launcher_act_at(limit);
	if (!lost)
		return;
	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	if (slot->state == WORKER_STARTING && slot->pid == 0)
		sagaz_process_ended(slot);
	LWLockRelease(sagaz_workers_lock);
}

/* False if there is no process for it. */
static bool
launch_worker(int i)
{
	SagazWorkerSlot *slot = &sagaz_workers->slots[i];
	char	   *name = psprintf("sagaz delivery %s", NameStr(slot->name));
	bool		ready;

	if (handles[i])
		pfree(handles[i]);
	handles[i] = NULL;
	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	ready = slot->wanted && slot->pid == 0 &&
		!sagaz_shared_is_closed(slot->database);
	slot->wait = WAIT_NONE;
	if (ready)
	{
		slot->state = WORKER_STARTING;
		slot->started_at = GetCurrentTimestamp();
	}
	LWLockRelease(sagaz_workers_lock);
	if (!ready)
		return true;
	if (launch_process("sagaz worker", name, "sagaz_worker_main",
					   Int32GetDatum(i), &handles[i]))
		return true;
	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	slot->state = WORKER_NONE;
	slot->wait = WAIT_PROCESS;
	LWLockRelease(sagaz_workers_lock);
	return false;
}

/* Start what may be started, the poorest database first. */
static void
start_workers(void)
{
	int			next;

	while ((next = sagaz_shares_next()) >= 0)
		if (!launch_worker(next))
			break;
	if (!sagaz_shares_wait())
		return;
	complain_of_processes();
	sagaz_shares_even_out();
}

/* Free the slot of a delivery that is no more; another may wait for it. */
static void
launcher_free_slot(SagazWorkerSlot *slot)
{
	bool		awaited = false;

	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	if (!slot->exists && slot->pid == 0)
	{
		slot->database = InvalidOid;
		awaited = sagaz_workers->no_slot;
	}
	LWLockRelease(sagaz_workers_lock);
	if (awaited)
		sagaz_shared_all_changed();
}

static void
launcher_tend_workers(void)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < sagaz_workers->nslots; i++)
	{
		SagazWorkerSlot *slot = &sagaz_workers->slots[i];

		if (!OidIsValid(slot->database))
			continue;
		if (slot->state == WORKER_STARTING)
			launcher_check_start(i);
		if (slot->state != WORKER_NONE)
			continue;
		if (!slot->exists)
			launcher_free_slot(slot);
		else if (slot->look_first)
			launcher_add_look(slot->database, false);
		else if (slot->wanted && slot->not_before > now)
			launcher_act_at(slot->not_before);
	}
	start_workers();
}

static void
launcher_reload(void)
{
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	sagaz_shared_all_changed();
}

static void
attach_launcher(void)
{
	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	sagaz_workers->launcher = MyLatch;
	sagaz_workers->launcher_pid = MyProcPid;
	sagaz_workers->all_changed = true;
	LWLockRelease(sagaz_workers_lock);
	before_shmem_exit(forget_launcher, 0);
}

void
sagaz_launcher_main(Datum main_arg)
{
	MemoryContext work;

	sagaz_process_signals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	sagaz_process_settings();
	handles = MemoryContextAllocZero(TopMemoryContext,
									 sagaz_workers->nslots *
									 sizeof(BackgroundWorkerHandle *));
	work = AllocSetContextCreate(TopMemoryContext, "sagaz launcher",
								 ALLOCSET_DEFAULT_SIZES);
	attach_launcher();
	for (;;)
	{
		ResetLatch(MyLatch);
		sagaz_process_interrupts(1);
		if (ConfigReloadPending)
			launcher_reload();
		MemoryContextSwitchTo(work);
		next_action = PG_INT64_MAX;
		launcher_note_changes();
		launcher_end_look();
		launcher_tend_workers();
		if (look_handle == NULL)
			launcher_begin_look();
		MemoryContextReset(work);
		pgstat_report_activity(STATE_IDLE, NULL);
		sagaz_process_sleep(next_action, true);
	}
}

/* Called while shared_preload_libraries are loaded. */
void
sagaz_launcher_install(void)
{
	BackgroundWorker worker = {0};

	if (IsBinaryUpgrade)
		return;
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "sagaz", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "sagaz_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "sagaz launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "sagaz launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}
