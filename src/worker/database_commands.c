/*
 * database_commands.c
 *		Getting the workers out of the way of commands that need a database
 *		for themselves, and taking notice of others.
 *
 * DROP DATABASE, ALTER DATABASE … RENAME TO or SET TABLESPACE, and CREATE
 * DATABASE … TEMPLATE fail while anybody is connected.  Before such a command
 * runs, the database is closed to our processes and those in it are told to
 * end; when it is over, the launcher looks into the database again.
 *
 * The schema of the extension keeps its name: functions and workers go by it,
 * and another schema could be given it.
 */
#include "lib/sagaz.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "wakeup/wake.h"
#include "wakeup/shared.h"
#include "worker/worker.h"

#if PG_VERSION_NUM >= 160000
#define owns_database(database) \
	object_ownercheck(DatabaseRelationId, database, GetUserId())
#else
#define owns_database(database) pg_database_ownercheck(database, GetUserId())
#endif

static void open_databases_at_end(XactEvent event, void *arg);

/* How long the command waits for our processes to end. */
#define CLOSE_TIMEOUT_MS 5000
#define CLOSE_POLL_MS 5

static ProcessUtility_hook_type previous_hook = NULL;
/* The databases that this transaction closed, one as often as it did. */
static Oid	closed_here[SAGAZ_MAX_CLOSED];
static int	nclosed_here = 0;

/* The process that runs in the database, or 0.  The caller holds the lock. */
static int
process_in_database(Oid database)
{
	if (sagaz_workers->looking == database)
		return sagaz_workers->look_pid;
	for (int i = 0; i < sagaz_workers->nslots; i++)
		if (sagaz_workers->slots[i].database == database &&
			sagaz_workers->slots[i].pid != 0)
			return sagaz_workers->slots[i].pid;
	return 0;
}

/* End our processes in the database, and keep others from starting there. */
static void
close_database(Oid database)
{
	static bool registered = false;
	TimestampTz start = GetCurrentTimestamp();

	if (!registered)
		RegisterXactCallback(open_databases_at_end, NULL);
	registered = true;
	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	if (sagaz_workers->nclosed < SAGAZ_MAX_CLOSED)
	{
		sagaz_workers->closed[sagaz_workers->nclosed++] = database;
		closed_here[nclosed_here++] = database;
	}
	LWLockRelease(sagaz_workers_lock);
	for (;;)
	{
		int			pid;

		LWLockAcquire(sagaz_workers_lock, LW_SHARED);
		pid = process_in_database(database);
		LWLockRelease(sagaz_workers_lock);
		if (pid == 0 ||
			TimestampDifferenceExceeds(start, GetCurrentTimestamp(),
									   CLOSE_TIMEOUT_MS))
			return;
		(void) kill(pid, SIGTERM);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 CLOSE_POLL_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
open_database(Oid database)
{
	LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
	for (int i = 0; i < sagaz_workers->nclosed; i++)
		if (sagaz_workers->closed[i] == database)
		{
			sagaz_workers->closed[i] =
				sagaz_workers->closed[--sagaz_workers->nclosed];
			break;
		}
	for (int i = 0; i < sagaz_workers->nslots; i++)
		if (sagaz_workers->slots[i].database == database)
		{
			sagaz_workers->slots[i].not_before = 0;
			sagaz_workers->slots[i].quick_ends = 0;
		}
	LWLockRelease(sagaz_workers_lock);
	sagaz_shared_database_changed(database);
}

/*
 * Open databases again once the command's transaction has ended, however it
 * did: only then the launcher sees what became of them.  Of the end of a
 * prepared one nobody would tell.
 */
static void
open_databases_at_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_PREPARE && nclosed_here > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has renamed a database")));
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	while (nclosed_here > 0)
		open_database(closed_here[--nclosed_here]);
}

static bool
is_template_database(Oid database)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool		result = HeapTupleIsValid(tuple) &&
		((Form_pg_database) GETSTRUCT(tuple))->datistemplate;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return result;
}

static const char *
template_database_of(const CreatedbStmt *create)
{
	ListCell   *cell;

	foreach(cell, create->options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, "template") == 0 && option->arg)
			return defGetString(option);
	}
	return NULL;
}

static bool
command_sets_tablespace(const AlterDatabaseStmt *alter)
{
	ListCell   *cell;

	foreach(cell, alter->options)
		if (strcmp(((DefElem *) lfirst(cell))->defname, "tablespace") == 0)
			return true;
	return false;
}

/*
 * The database that the command needs for itself, if it has one and the user
 * may use it so; the command itself complains of anything else.
 */
static Oid
database_of(Node *statement)
{
	const char *name = NULL;
	Oid			database;

	if (IsA(statement, DropdbStmt))
		name = ((DropdbStmt *) statement)->dbname;
	else if (IsA(statement, CreatedbStmt))
		name = template_database_of((CreatedbStmt *) statement);
	else if (IsA(statement, RenameStmt) &&
			 ((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
		name = ((RenameStmt *) statement)->subname;
	else if (IsA(statement, AlterDatabaseStmt) &&
			 command_sets_tablespace((AlterDatabaseStmt *) statement))
		name = ((AlterDatabaseStmt *) statement)->dbname;
	if (name == NULL || sagaz_workers == NULL || !IsTransactionState())
		return InvalidOid;
	database = get_database_oid(name, true);
	/* the present one can only be copied */
	if (database == MyDatabaseId && !IsA(statement, CreatedbStmt))
		return InvalidOid;
	if (OidIsValid(database) &&
		(owns_database(database) ||
		 (IsA(statement, CreatedbStmt) && is_template_database(database))))
		return database;
	return InvalidOid;
}

static bool
command_commits_prepared(Node *statement)
{
	return IsA(statement, TransactionStmt) &&
		((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED;
}

/* Does the extension come or go with it?  Its schema goes only with it. */
static bool
command_changes_extension(Node *statement)
{
	ListCell   *cell;

	if (IsA(statement, CreateExtensionStmt))
		return strcmp(((CreateExtensionStmt *) statement)->extname, "sagaz") == 0;
	if (!IsA(statement, DropStmt) ||
		((DropStmt *) statement)->removeType != OBJECT_EXTENSION)
		return false;
	foreach(cell, ((DropStmt *) statement)->objects)
		if (strcmp(strVal(lfirst(cell)), "sagaz") == 0)
			return true;
	return false;
}

static void
refuse_new_name_of_schema(Node *statement)
{
	RenameStmt *rename = (RenameStmt *) statement;

	if (!IsA(statement, RenameStmt) || rename->renameType != OBJECT_SCHEMA ||
		strcmp(rename->subname, SAGAZ_SCHEMA) != 0 ||
		!IsTransactionState() || !OidIsValid(sagaz_schema_find()))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("schema \"%s\" of the extension sagaz cannot be renamed", SAGAZ_SCHEMA)));
}

static void
run_statement(PlannedStmt *pstmt, const char *query, bool read_only,
			  ProcessUtilityContext context, ParamListInfo params,
			  QueryEnvironment *environment, DestReceiver *dest,
			  QueryCompletion *completion)
{
	if (previous_hook)
		previous_hook(pstmt, query, read_only, context, params, environment,
					  dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only, context, params,
								environment, dest, completion);
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *dest,
				QueryCompletion *completion)
{
	Node	   *statement = pstmt->utilityStmt;
	Oid			database = database_of(statement);
	bool		wake = command_commits_prepared(statement);
	bool		look = command_changes_extension(statement);
	bool		look_everywhere = IsA(statement, AlterDatabaseStmt);

	refuse_new_name_of_schema(statement);
	if (OidIsValid(database))
		close_database(database);
	/* the statement's memory may be gone once it has run */
	run_statement(pstmt, query, read_only, context, params, environment, dest,
				  completion);
	if (wake)
		sagaz_wake_all();
	if (look)
		sagaz_wake_for_deliveries();
	if (look_everywhere && sagaz_workers)
		sagaz_wake_for_databases();
}

/* Called while shared_preload_libraries are loaded. */
void
sagaz_commands_install(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
