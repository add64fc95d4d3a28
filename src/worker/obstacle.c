/*
 * obstacle.c
 *		Why a delivery does not run, asked by those who start workers, by the
 *		workers themselves and by those who look.
 *
 * A process that could only fail is not started: it would be started again
 * and again.  The delivery stands still instead, and says what is in its way,
 * until resume_delivery(), or a reload, has us look again.
 */
#include "lib/sagaz.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "wakeup/crash.h"
#include "worker/binding.h"
#include "worker/obstacle.h"
#include "wakeup/shared.h"

#if PG_VERSION_NUM >= 160000
#define may(class_id, object, role, mode) \
	(object_aclcheck(class_id, object, role, mode) == ACLCHECK_OK)
#define may_execute(function, role) may(ProcedureRelationId, function, role, ACL_EXECUTE)
#define may_use_server(server, role) may(ForeignServerRelationId, server, role, ACL_USAGE)
#define may_connect(role) may(DatabaseRelationId, MyDatabaseId, role, ACL_CONNECT)
#else
#define may_execute(function, role) \
	(pg_proc_aclcheck(function, role, ACL_EXECUTE) == ACLCHECK_OK)
#define may_use_server(server, role) \
	(pg_foreign_server_aclcheck(server, role, ACL_USAGE) == ACLCHECK_OK)
#define may_connect(role) \
	(pg_database_aclcheck(MyDatabaseId, role, ACL_CONNECT) == ACLCHECK_OK)
#endif
/* Before, a background process could not run as a role without LOGIN. */
#define OWNER_MUST_LOGIN (PG_VERSION_NUM < 170000)

/* May a background process be connected as the role? */
bool
sagaz_role_can_run(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		can_log_in = HeapTupleIsValid(tuple) &&
		((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return can_log_in || !OWNER_MUST_LOGIN;
}

/* May the role call the function, or send to the storage? */
bool
sagaz_role_may_use(Oid role, bool to_storage, Oid object)
{
	return to_storage ? may_use_server(object, role) : may_execute(object, role);
}

/*
 * The role that the delivery runs as; InvalidOid if that is gone, or was
 * renamed: another role that got its name has no part in it.
 */
Oid
sagaz_delivery_owner(const SagazDelivery *delivery)
{
	Oid			role = get_role_oid(delivery->owner, true);

	return role == delivery->owner_id ? role : InvalidOid;
}

/* What is wrong with the owner as such. */
static char *
owner_obstacle(const SagazDelivery *delivery)
{
	Oid			owner = sagaz_delivery_owner(delivery);

	if (!OidIsValid(owner))
		return psprintf("its owner, role \"%s\", does not exist or is another role now",
						delivery->owner);
	if (!sagaz_role_can_run(owner))
		return psprintf("its owner, role \"%s\", is not permitted to log in",
						delivery->owner);
	if (!may_connect(owner))
		return psprintf("its owner, role \"%s\", may not connect to this database",
						delivery->owner);
	return NULL;
}

/* Has its process brought the server down again and again? */
static char *
crash_obstacle(const SagazDelivery *delivery)
{
	SagazCrashes crashes;
	bool		found;

	if (sagaz_workers == NULL)
		return NULL;
	LWLockAcquire(sagaz_workers_lock, LW_SHARED);
	found = sagaz_crashes_read(MyDatabaseId, delivery->name,
							   delivery->confirmed_at, &crashes);
	LWLockRelease(sagaz_workers_lock);
	if (!found || !sagaz_crashes_are_too_many(&crashes))
		return NULL;
	return psprintf("it was at work when the server crashed, %d times within ten minutes, last at %s",
					crashes.count, timestamptz_to_str(crashes.last));
}

/*
 * Why the delivery, in this database, does not run, though it is not paused;
 * NULL if nothing is in its way.  In a transaction.
 */
char *
sagaz_delivery_obstacle(const SagazDelivery *delivery)
{
	bool		to_storage = delivery->target != NULL;
	char	   *obstacle = owner_obstacle(delivery);

	if (obstacle == NULL)
		obstacle = sagaz_binding_obstacle(delivery);
	if (obstacle == NULL &&
		!sagaz_role_may_use(delivery->owner_id, to_storage, delivery->object_id))
		obstacle = psprintf("its owner, role \"%s\", has no privilege %s on %s",
							delivery->owner, to_storage ? "USAGE" : "EXECUTE",
							sagaz_binding_name(to_storage, delivery->object_id));
	if (obstacle == NULL)
		obstacle = crash_obstacle(delivery);
	return obstacle;
}
