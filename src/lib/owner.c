/*
 * owner.c
 *		Acting as the extension's owner for a while, for SQL on its tables:
 *		EXECUTE on the function that gets here is the permission.
 *
 * An error puts the user back by itself, with the transaction or the
 * subtransaction in which it is caught.  The SQL that is run must name its
 * objects and operators with their schema, as the search_path is the caller's.
 */
#include "lib/sagaz.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_extension.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

#include "lib/owner.h"

#if PG_VERSION_NUM < 150000
#error "PostgreSQL 15 or later is needed"
#endif

static Oid
extension_owner(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	Oid			owner = InvalidOid;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("sagaz"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"sagaz\" does not exist")));
	return owner;
}

/*
 * Until sagaz_owner_restore() the operation is a restricted one, too: code
 * of somebody else's that is run meanwhile can leave nothing behind in the
 * session.  What the SQL names must be ours: an error where the schema is not.
 */
void
sagaz_become_owner(SagazUser *before)
{
	(void) sagaz_schema_id();
	GetUserIdAndSecContext(&before->id, &before->context);
	SetUserIdAndSecContext(extension_owner(),
						   before->context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
}

/* Not needed after an error, which puts the user back by itself. */
void
sagaz_owner_restore(const SagazUser *user)
{
	SetUserIdAndSecContext(user->id, user->context);
}
