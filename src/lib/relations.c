/*
 * relations.c
 *		The way to the extension's own tables, whatever the search_path.
 *
 * OIDs are looked up in the system caches each time: two probes, and nothing
 * to forget when the extension is dropped and made again.
 */
#include "lib/sagaz.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/*
 * OIDs found before, by the address of the name: callers pass literals.  Any
 * change to pg_class or pg_namespace empties the list.
 */
static struct
{
	const char *name;
	Oid			id;
}			known[32];
static int	nknown = 0;

static void
forget_relations(Datum arg, int cache, uint32 hash)
{
	nknown = 0;
}

static Oid
look_up_relation(const char *name)
{
	Oid			namespace_id = get_namespace_oid(SAGAZ_SCHEMA, true);
	Oid			relation_id = InvalidOid;

	if (OidIsValid(namespace_id))
		relation_id = get_relname_relid(name, namespace_id);
	if (!OidIsValid(relation_id))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" does not exist", SAGAZ_SCHEMA, name),
				 errhint("Run CREATE EXTENSION sagaz in this database.")));
	return relation_id;
}

/* OID of a table, index or sequence of ours; name is a literal. */
Oid
sagaz_relation_id(const char *name)
{
	static bool registered = false;
	Oid			id;

	for (int i = 0; i < nknown; i++)
		if (known[i].name == name)
			return known[i].id;
	if (!registered)
	{
		CacheRegisterSyscacheCallback(RELOID, forget_relations, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, forget_relations, (Datum) 0);
		registered = true;
	}
	id = look_up_relation(name);
	if (nknown < (int) lengthof(known))
	{
		known[nknown].name = name;
		known[nknown++].id = id;
	}
	return id;
}

/*
 * Open a table of ours.  No privilege is checked: EXECUTE on the function
 * that got here is the permission.
 */
Relation
sagaz_open(const char *name, LOCKMODE lockmode)
{
	return table_open(sagaz_relation_id(name), lockmode);
}
