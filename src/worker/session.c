/*
 * session.c
 *		What a handler leaves in its session is gone before the next call.
 *
 * The worker's session lasts for days, and the next batch must find what the
 * first one found.  This is DISCARD ALL in parts: settings are handler.c's, as
 * it undoes them call by call; plans and compiled functions stay, as nobody
 * can tell but by the time it takes; LISTEN is an error in a background
 * process.  Each part is some nanoseconds where nothing was left.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "storage/lock.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "worker/process.h"
#include "worker/session.h"

/* Has this session ever made a temporary object? */
static bool
has_temporary_schema(void)
{
	Oid			schema;
	Oid			toast_schema;

	GetTempNamespaceState(&schema, &toast_schema);
	return OidIsValid(schema);
}

/*
 * Before a call, in its transaction: several calls may share one.  A lock
 * that an earlier one of these took for the session is kept for as long as its
 * effects are not committed.
 */
void
sagaz_session_clear(void)
{
	PortalHashTableDeleteAll();
	DropAllPreparedStatements();
	if (has_temporary_schema())
		ResetTempTableNamespace();
}

/*
 * After the transaction of a call, however that ended.  Runs one of its own
 * where it has to look for temporary objects.
 */
void
sagaz_session_end(void)
{
	Assert(!IsTransactionState());
	LockReleaseAll(USER_LOCKMETHOD, true);
	ResetSequenceCaches();
	PortalHashTableDeleteAll();
	DropAllPreparedStatements();
	if (!has_temporary_schema())
		return;
	sagaz_process_begin();
	PushActiveSnapshot(GetTransactionSnapshot());
	ResetTempTableNamespace();
	PopActiveSnapshot();
	CommitTransactionCommand();
}
