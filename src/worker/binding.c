/*
 * binding.c
 *		What a delivery goes to is an object, not a name.
 *
 * A name can be dropped and made anew by whoever has CREATE on the schema, and
 * the worker calls it with the rights of the delivery's owner.  So a delivery
 * keeps the OID of its function, or of its storage's foreign server, and the
 * role that owned it when the delivery's owner said that it is to be used.
 * It goes on while that OID is there and belongs to that role, to the
 * delivery's owner or to a superuser; in any other case it stands still until
 * its owner confirms it.  The name is kept too: for people, and for
 * activate(), since OIDs differ in a restored database.
 *
 * DROP FUNCTION is to show the delivery among the things that depend on the
 * function.  Only an object can depend, and a row of sagaz.delivery is none;
 * the table itself must not, or DROP … CASCADE would drop the extension.  The
 * object is a constraint of the domain sagaz.delivery_binding, which nothing
 * is of: it needs no lock on a relation, costs no one a check, pg_dump leaves
 * it out with the extension's other definitions, and where CASCADE takes it
 * away, no more happens than that the delivery finds its function gone.
 */
#include "lib/sagaz.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "worker/binding.h"

/* Arguments that came later. */
#if PG_VERSION_NUM >= 180000
#define IS_ENFORCED		true,
#define HAS_NO_PERIOD	, false
#else
#define IS_ENFORCED
#define HAS_NO_PERIOD
#endif
#if PG_VERSION_NUM >= 160000
#define names_of(text)	stringToQualifiedNameList(text, NULL)
#else
#define names_of(text)	stringToQualifiedNameList(text)
#endif

#define DOMAIN_NAME "delivery_binding"

static ObjectAddress
binding_address_of(bool to_storage, Oid object)
{
	ObjectAddress address;

	ObjectAddressSet(address,
					 to_storage ? ForeignServerRelationId : ProcedureRelationId,
					 object);
	return address;
}

/* Who owns the object; InvalidOid if it is gone. */
static Oid
binding_owner_of(bool to_storage, Oid object)
{
	HeapTuple	tuple;
	Oid			owner;

	tuple = SearchSysCache1(to_storage ? FOREIGNSERVEROID : PROCOID,
							ObjectIdGetDatum(object));
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	owner = to_storage ?
		((Form_pg_foreign_server) GETSTRUCT(tuple))->srvowner :
		((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* Its present name, as it is written into sagaz.delivery; NULL if it is gone. */
char *
sagaz_binding_name(bool to_storage, Oid object)
{
	ForeignServer *server;

	if (!OidIsValid(binding_owner_of(to_storage, object)))
		return NULL;
	if (!to_storage)
		return format_procedure_qualified(object);
	server = GetForeignServerExtended(object, FSV_MISSING_OK);
	return server ? server->servername : NULL;
}

/*
 * The function of a signature that we wrote, or InvalidOid.  No privilege is
 * asked for: to call it, EXECUTE is needed anyway.
 */
static Oid
find_function_to_bind(const char *signature)
{
	char	   *text = pstrdup(signature);
	char	   *arguments = strrchr(text, '(');
	char	   *schema;
	char	   *name;
	Oid			event_type;
	Oid			array_type;
	Oid			namespace;

	if (arguments == NULL)
		return InvalidOid;
	*arguments = '\0';
	DeconstructQualifiedName(names_of(text), &schema, &name);
	namespace = schema ? get_namespace_oid(schema, true) : InvalidOid;
	event_type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
								 CStringGetDatum("outbox_event"),
								 ObjectIdGetDatum(sagaz_schema_id()));
	array_type = get_array_type(event_type);
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum(name),
						   PointerGetDatum(buildoidvector(&array_type, 1)),
						   ObjectIdGetDatum(namespace));
}

/* What has the name of the delivery's target now; InvalidOid if nothing. */
Oid
sagaz_binding_find(const SagazDelivery *delivery)
{
	return delivery->target ? get_foreign_server_oid(delivery->target, true) :
		find_function_to_bind(delivery->handler);
}

/* May it be used without being asked for: does it belong to the role, or to a superuser? */
bool
sagaz_binding_is_trusted(const SagazDelivery *delivery, Oid object, Oid role)
{
	Oid			owner = binding_owner_of(delivery->target != NULL, object);

	return OidIsValid(owner) && (owner == role || superuser_arg(owner));
}

static Oid
domain_id(void)
{
	return GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
						   CStringGetDatum(DOMAIN_NAME),
						   ObjectIdGetDatum(sagaz_schema_id()));
}

/* What DROP FUNCTION shows.  A name that is too long ends in its hash. */
static char *
bond_name(const char *name)
{
	char	   *bond = psprintf("delivery %s", name);
	uint32		hash;
	int			length;

	if (strlen(bond) < NAMEDATALEN)
		return bond;
	hash = DatumGetUInt32(hash_any((const unsigned char *) name, strlen(name)));
	length = pg_mbcliplen(bond, strlen(bond), NAMEDATALEN - 10);
	return psprintf("%.*s %08x", length, bond, hash);
}

/*
 * Nothing depends on a constraint of a domain that nothing is of.  Who drops
 * its function, with CASCADE, may be taking it away meanwhile.
 */
static void
remove_bond(const char *name)
{
	char	   *bond = bond_name(name);
	Oid			constraint = get_domain_constraint_oid(domain_id(), bond, true);
	ObjectAddress address;

	if (!OidIsValid(constraint))
		return;
	LockDatabaseObject(ConstraintRelationId, constraint, 0, AccessExclusiveLock);
	if (get_domain_constraint_oid(domain_id(), bond, true) != constraint)
		return;
	ObjectAddressSet(address, ConstraintRelationId, constraint);
	performDeletion(&address, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
}

static void
make_bond(const char *name, const ObjectAddress *target)
{
	ObjectAddress bond;
	Oid			constraint =
		CreateConstraintEntry(bond_name(name),
							  sagaz_schema_id(),
							  CONSTRAINT_CHECK,
							  false, false, IS_ENFORCED true,	/* when it is checked */
							  InvalidOid, InvalidOid, NULL, 0, 0,	/* no relation */
							  domain_id(),
							  InvalidOid, InvalidOid, NULL, NULL, NULL, NULL,
							  0, ' ', ' ', NULL, 0, ' ', NULL,	/* no key, no index */
							  NULL, nodeToString(makeBoolConst(true, false)),
							  true, 0, false HAS_NO_PERIOD, true);

	ObjectAddressSet(bond, ConstraintRelationId, constraint);
	recordDependencyOn(&bond, target, DEPENDENCY_NORMAL);
}

/*
 * Write into a delivery's row that it goes to the object, as it is now; the
 * delivery's owner wants that.  Waits for those who are dropping the object,
 * and keeps others from it until the transaction ends.  sagaz_binding_tie()
 * is to follow once the row is written.
 */
void
sagaz_binding_write(SagazWriter *writer, bool to_storage, Oid object)
{
	char	   *name;

	LockDatabaseObject(binding_address_of(to_storage, object).classId, object, 0,
					   AccessShareLock);
	name = sagaz_binding_name(to_storage, object);
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_NOT_FOUND),
				 errmsg("%s does not exist any more",
						to_storage ? "target" : "handler")));
	sagaz_writer_set(writer, to_storage ? delivery_target : delivery_handler,
					 CStringGetTextDatum(name));
	sagaz_writer_set(writer, delivery_object_id, ObjectIdGetDatum(object));
	sagaz_writer_set(writer, delivery_object_owner_id,
					 ObjectIdGetDatum(binding_owner_of(to_storage, object)));
}

/* Have the delivery depend on the object, and on no other. */
void
sagaz_binding_tie(const char *name, bool to_storage, Oid object)
{
	ObjectAddress target = binding_address_of(to_storage, object);

	remove_bond(name);
	make_bond(name, &target);
}

/* The delivery goes to nothing any more. */
void
sagaz_binding_untie(const char *name)
{
	remove_bond(name);
}

/* Why the delivery must not use what it was bound to, or NULL. */
char *
sagaz_binding_obstacle(const SagazDelivery *delivery)
{
	bool		to_storage = delivery->target != NULL;
	const char *what = to_storage ? "storage" : "function";
	const char *name = to_storage ? delivery->target : delivery->handler;
	Oid			owner = binding_owner_of(to_storage, delivery->object_id);

	if (!OidIsValid(delivery->object_id))
		return psprintf("its owner has not confirmed %s %s here", what, name);
	if (!OidIsValid(owner))
		return psprintf("%s %s was dropped", what, name);
	if (owner == delivery->object_owner_id || owner == delivery->owner_id ||
		superuser_arg(owner))
		return NULL;
	return psprintf("%s %s belongs to role \"%s\" now", what, name,
					GetUserNameFromId(owner, false));
}

/*
 * The storage that the delivery goes to, in a transaction that has found
 * nothing in its way: its name may have passed to another since.
 */
void
sagaz_binding_storage(const SagazDelivery *delivery, SagazStorage *storage)
{
	sagaz_storage_find(delivery->target, storage);
	if (storage->server != delivery->object_id)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CONCURRENCY),
				 errmsg("storage \"%s\" was renamed meanwhile",
						delivery->target)));
}
