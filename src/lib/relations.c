/*
 * relations.c
 *		The way to the extension's own tables, whatever the search_path.
 *
 * No OID is remembered longer than the catalogs say the same: the extension may
 * be dropped and made again while a session lives.
 *
 * The schema is the one that CREATE EXTENSION made.  Whoever may create schemas
 * could make one of that name, if it was renamed or there is no extension, and
 * what the engine does with its owner's rights would run the code of that one.
 */
#include "lib/sagaz.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "commands/extension.h"
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
/* Likewise; emptied by changes to pg_namespace. */
static Oid	known_schema = InvalidOid;

static void
forget_relations(Datum arg, int cache, uint32 hash)
{
	nknown = 0;
	if (cache == NAMESPACEOID)
		known_schema = InvalidOid;
}

static void
watch_catalogs(void)
{
	static bool registered = false;

	if (registered)
		return;
	CacheRegisterSyscacheCallback(RELOID, forget_relations, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, forget_relations, (Datum) 0);
	registered = true;
}

/* OID of the extension's schema; InvalidOid where there is none. */
Oid
sagaz_schema_find(void)
{
	Oid			schema;
	Oid			extension;

	watch_catalogs();
	if (OidIsValid(known_schema))
		return known_schema;
	schema = get_namespace_oid(SAGAZ_SCHEMA, true);
	if (!OidIsValid(schema))
		return InvalidOid;
	extension = getExtensionOfObject(NamespaceRelationId, schema);
	if (!OidIsValid(extension) || extension != get_extension_oid("sagaz", true))
		return InvalidOid;
	known_schema = schema;
	return schema;
}

/* An error where sagaz_schema_find() finds none. */
Oid
sagaz_schema_id(void)
{
	Oid			schema = sagaz_schema_find();

	if (!OidIsValid(schema))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("there is no schema \"%s\" of the extension sagaz", SAGAZ_SCHEMA),
				 errhint("Run CREATE EXTENSION sagaz in this database; or, if its schema was renamed, give it back its name.")));
	return schema;
}

static Oid
look_up_relation(const char *name)
{
	Oid			namespace_id = sagaz_schema_find();
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
	Oid			id;

	for (int i = 0; i < nknown; i++)
		if (known[i].name == name)
			return known[i].id;
	watch_catalogs();
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
sagaz_relation_open(const char *name, LOCKMODE lockmode)
{
	return table_open(sagaz_relation_id(name), lockmode);
}

/* Relations that stay open between sagaz_relations_keep_begin() and _end(). */
static struct
{
	bool		active;
	int			count;
	struct
	{
		LOCKMODE	lockmode;
		Relation	rel;
	}			kept[16];
}			keeper;

/* An error has taken the references back. */
static void
forget_kept_relations_of_sub(SubXactEvent event, SubTransactionId own,
							 SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		keeper.active = false;
}

static void
forget_kept_relations(XactEvent event, void *arg)
{
	keeper.active = false;
}

/*
 * From here to sagaz_relations_keep_end() each table and index that sagaz_relation_hold() is
 * asked for is opened once.  Calls do not nest, and no subtransaction begins
 * or ends in between.
 */
void
sagaz_relations_keep_begin(void)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(forget_kept_relations, NULL);
		RegisterSubXactCallback(forget_kept_relations_of_sub, NULL);
		registered = true;
	}
	Assert(!keeper.active);
	keeper.active = true;
	keeper.count = 0;
}

/* Locks stay until the transaction ends. */
void
sagaz_relations_keep_end(void)
{
	for (int i = 0; i < keeper.count; i++)
		relation_close(keeper.kept[i].rel, NoLock);
	keeper.active = false;
}

/*
 * Open a table or index of ours that sagaz_relation_let_go() closes.  Where
 * literals are not merged, a relation has as many names as there are callers.
 */
Relation
sagaz_relation_hold(const char *name, LOCKMODE lockmode)
{
	Oid			id = sagaz_relation_id(name);
	Relation	rel;

	for (int i = 0; keeper.active && i < keeper.count; i++)
		if (RelationGetRelid(keeper.kept[i].rel) == id &&
			keeper.kept[i].lockmode == lockmode)
			return keeper.kept[i].rel;
	rel = relation_open(id, lockmode);
	if (keeper.active && keeper.count < (int) lengthof(keeper.kept))
	{
		keeper.kept[keeper.count].lockmode = lockmode;
		keeper.kept[keeper.count++].rel = rel;
	}
	return rel;
}

/* The end of sagaz_relation_hold(); what is kept stays open. */
void
sagaz_relation_let_go(Relation rel, LOCKMODE lockmode)
{
	for (int i = 0; keeper.active && i < keeper.count; i++)
		if (keeper.kept[i].rel == rel && keeper.kept[i].lockmode == lockmode)
			return;
	relation_close(rel, lockmode);
}
