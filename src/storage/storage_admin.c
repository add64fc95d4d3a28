/*
 * storage_admin.c
 *		Giving storages names: create_storage().
 *
 * A storage with a name is a foreign server and a user mapping.  They are made
 * without the text of an SQL command, which would hold the secrets and could
 * show up in logs, statistics of statements and the context of errors.
 */
#include "lib/sagaz.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_foreign_server.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/resowner.h"

#include "storage/examine.h"
#include "storage/secrets.h"
#include "storage/storage.h"

static char *
storage_name_argument(FunctionCallInfo fcinfo)
{
	char	   *name = sagaz_text_argument_or_null(fcinfo, 0);

	if (name == NULL || name[0] == '\0' || strcmp(name, "native") == 0 ||
		strstr(name, "://") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("name must be a name, and not that of the native storage")));
	if (strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("name must not be longer than %d bytes", NAMEDATALEN - 1)));
	return name;
}

static DefElem *
make_storage_option(const char *name, const char *value)
{
	return makeDefElem(pstrdup(name), (Node *) makeString(pstrdup(value)), -1);
}

/* A value of JSON as the text of an option. */
static char *
storage_option_text(JsonbValue *value)
{
	Jsonb	   *json;

	if (value->type == jbvNull)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("options must not have a null")));
	if (value->type == jbvString)
		return pnstrdup(value->val.string.val, value->val.string.len);
	json = JsonbValueToJsonb(value);
	return JsonbToCString(NULL, &json->root, VARSIZE(json));
}

/* The pairs of the argument "options". */
static List *
storage_options_argument(FunctionCallInfo fcinfo)
{
	List	   *options = NIL;
	Jsonb	   *json = PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3);
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	value;

	if (json == NULL || !JB_ROOT_IS_OBJECT(json))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("options must be a JSON object")));
	iterator = JsonbIteratorInit(&json->root);
	while ((token = JsonbIteratorNext(&iterator, &key, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&iterator, &value, true);
		options = lappend(options,
						  make_storage_option(pnstrdup(key.val.string.val, key.val.string.len),
											  storage_option_text(&value)));
	}
	return options;
}

/* Those that are secret, or those that are not. */
static List *
select_storage_options(const SagazBackend *backend, List *options, bool secret)
{
	List	   *selected = NIL;
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst(cell);

		if (sagaz_storage_option_is_secret(backend, option->defname) == secret)
			selected = lappend(selected, option);
	}
	return selected;
}

static void
make_storage_server(char *name, const SagazBackend *backend, List *options)
{
	CreateForeignServerStmt *statement = makeNode(CreateForeignServerStmt);

	statement->servername = name;
	statement->fdwname = sagaz_storage_wrapper(backend);
	statement->options = options;
	(void) CreateForeignServer(statement);
	CommandCounterIncrement();
}

static RoleSpec *
make_storage_role(bool is_public)
{
	RoleSpec   *role = makeNode(RoleSpec);

	role->roletype = is_public ? ROLESPEC_PUBLIC : ROLESPEC_CURRENT_USER;
	role->location = -1;
	return role;
}

static void
make_storage_mapping(char *name, bool for_public, List *options)
{
	CreateUserMappingStmt *statement = makeNode(CreateUserMappingStmt);

	statement->user = make_storage_role(for_public);
	statement->servername = name;
	statement->options = options;
	(void) CreateUserMapping(statement);
	CommandCounterIncrement();
}

static void
grant_storage_to_public(char *name)
{
	GrantStmt  *statement = makeNode(GrantStmt);
	AccessPriv *privilege = makeNode(AccessPriv);

	privilege->priv_name = "usage";
	statement->is_grant = true;
	statement->targtype = ACL_TARGET_OBJECT;
	statement->objtype = OBJECT_FOREIGN_SERVER;
	statement->objects = list_make1(makeString(name));
	statement->privileges = list_make1(privilege);
	statement->grantees = list_make1(make_storage_role(true));
	statement->behavior = DROP_RESTRICT;
	ExecuteGrantStmt(statement);
	CommandCounterIncrement();
}

/* Other storages, or this one itself, whose records would be taken for its own. */
static void
warn_of_storage_overlap(const char *name, const SagazBackend *backend)
{
	ForeignServer *made = GetForeignServerByName(name, false);
	Relation	servers = table_open(ForeignServerRelationId, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(servers, 0, NULL);
	HeapTuple	tuple;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		ForeignServer *other = GetForeignServer(((Form_pg_foreign_server) GETSTRUCT(tuple))->oid);

		if (other->fdwid == made->fdwid && backend->overlap(made->options, other->options))
			ereport(WARNING,
					(errcode(ERRCODE_SAGAZ_STORAGE),
					 errmsg("storages \"%s\" and \"%s\" take each other's records for their own",
							name, other->servername),
					 errhint("Choose prefixes of which none is the beginning of another.")));
	}
	table_endscan(scan);
	table_close(servers, AccessShareLock);
}

static void
warn_of_storage_faults(const char *name)
{
	SagazStorage storage;
	SagazStore *store;
	ListCell   *cell;

	sagaz_storage_find(name, &storage);
	store = sagaz_storage_connect(&storage, name);
	for (SagazKind kind = SAGAZ_SAGA; kind <= SAGAZ_EVENT; kind++)
	{
		if (!sagaz_examine_has_kind(store, kind))
			continue;
		foreach(cell, store->backend->examine(store, kind))
			ereport(WARNING,
					(errcode(ERRCODE_SAGAZ_STORAGE),
					 errmsg("storage \"%s\" is not fit for %s: %s", name,
							kind == SAGAZ_SAGA ? "sagas" : "events",
							((SagazFault *) lfirst(cell))->text)));
	}
}

/*
 * Look at what was made, if there is more to see than whether it answers.  It
 * is there whatever comes of that: the server may be started later.
 */
static void
look_at_new_storage(const char *name, const SagazBackend *backend)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	if (backend->examine == sagaz_store_no_faults)
		return;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		warn_of_storage_faults(name);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("storage \"%s\" was made, but cannot be used as things are", name),
				 errdetail_internal("%s", sagaz_error_text(error))));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

static Datum
create_storage(FunctionCallInfo fcinfo)
{
	char	   *name = storage_name_argument(fcinfo);
	char	   *url;
	const char *type = sagaz_text_argument_or_null(fcinfo, 2);
	List	   *further = storage_options_argument(fcinfo);
	List	   *options;
	const SagazBackend *backend;
	bool		for_public = DatumGetBool(sagaz_argument(fcinfo, 4, "for_public"));

	url = sagaz_text_argument(fcinfo, 1, "url");
	backend = sagaz_storage_read_url(url, &options);
	if (strcmp(backend->name, "native") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("the native storage needs no URL")));
	options = lappend(options, make_storage_option("storage_type", type ? type : "both"));
	options = list_concat(options, further);
	make_storage_server(name, backend, select_storage_options(backend, options, false));
	make_storage_mapping(name, for_public, select_storage_options(backend, options, true));
	if (for_public)
		grant_storage_to_public(name);
	warn_of_storage_overlap(name, backend);
	look_at_new_storage(name, backend);
	PG_RETURN_VOID();
}

/* create_storage(name, url, storage_type, options, for_public) */
SAGAZ_SQL_FUNCTION(sagaz_create_storage, sagaz_secrets_hide_statement,
				   create_storage);
