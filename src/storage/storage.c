/*
 * storage.c
 *		Storages: from a name or a URL to an open store.
 *
 * A storage with a name is a foreign server of one of our foreign data
 * wrappers; who may use it is who has USAGE on the server.  A URL in place of
 * a name needs USAGE on the wrapper.
 *
 * Who asks for a storage may be a function that runs with other rights than
 * those of whoever calls it: so what a superuser may use without a password is
 * asked of the session, too, and a storage that a setting names must be one of
 * somebody who could have set that.
 */
#include "lib/sagaz.h"

#include "catalog/pg_database.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "access/reloptions.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "backends/common/server_file.h"
#include "outbox/group.h"
#include "lib/encoding.h"
#include "storage/examine.h"
#include "storage/secrets.h"
#include "storage/storage.h"

#if PG_VERSION_NUM >= 160000
#define owns_database(role) \
	object_ownercheck(DatabaseRelationId, MyDatabaseId, role)
#else
#define owns_database(role) pg_database_ownercheck(MyDatabaseId, role)
#endif

#if PG_VERSION_NUM >= 160000
#define may_use(class, object) \
	(object_aclcheck(class, object, GetUserId(), ACL_USAGE) == ACLCHECK_OK)
#else
#define may_use(class, object) \
	((class == ForeignServerRelationId ? \
	  pg_foreign_server_aclcheck(object, GetUserId(), ACL_USAGE) : \
	  pg_foreign_data_wrapper_aclcheck(object, GetUserId(), ACL_USAGE)) == ACLCHECK_OK)
#endif

#define WRAPPER_PREFIX "sagaz_"

/* The names of what was compiled in, for a hint. */
static char *
backend_names(void)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < sagaz_nbackends; i++)
		appendStringInfo(&names, "%s%s", i == 0 ? "" : ", ",
						 sagaz_backends[i]->name);
	return names.data;
}

/* The foreign data wrapper of its storages. */
char *
sagaz_storage_wrapper(const SagazBackend *backend)
{
	return psprintf(WRAPPER_PREFIX "%s", backend->name);
}

/* Secret ones go to the user mapping, the others to the server. */
bool
sagaz_storage_option_is_secret(const SagazBackend *backend, const char *name)
{
	for (const SagazOption *option = backend->options; option->name; option++)
		if (strcmp(option->name, name) == 0)
			return option->secret;
	return false;
}

static const SagazBackend *
get_storage_backend(const char *name)
{
	const SagazBackend *backend = sagaz_backend_find(name);

	if (backend == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_STORAGE),
				 errmsg("there is no backend \"%s\" in this build of sagaz", name),
				 errhint("It has: %s.", backend_names())));
	return backend;
}

static bool
storage_has_scheme(const SagazBackend *backend, const char *scheme)
{
	for (const char *const *known = backend->schemes; *known; known++)
		if (strcmp(*known, scheme) == 0)
			return true;
	return false;
}

/* What the URLs of this build begin with, for a hint. */
static char *
storage_scheme_names(void)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < sagaz_nbackends; i++)
		for (const char *const *known = sagaz_backends[i]->schemes; *known; known++)
			if (strcmp(*known, "native") != 0)
				appendStringInfo(&names, "%s%s://", names.len == 0 ? "" : ", ", *known);
	return names.data;
}

/* Take a URL apart: its backend, and the options in it. */
const SagazBackend *
sagaz_storage_read_url(const char *url, List **options)
{
	const char *separator = strstr(url, "://");
	size_t		length = strspn(url, "abcdefghijklmnopqrstuvwxyz+");
	char	   *scheme;

	if (separator == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("url has no \"://\""),
				 errhint("This build has: %s.", storage_scheme_names())));

	/* what is no word may be a secret */
	if (url + length != separator || length == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("URL of a storage must begin with a backend's name and \"://\""),
				 errhint("This build has: %s.", storage_scheme_names())));
	scheme = pnstrdup(url, length);
	for (int i = 0; i < sagaz_nbackends; i++)
		if (storage_has_scheme(sagaz_backends[i], scheme))
		{
			*options = sagaz_backends[i]->read_url(scheme, separator + 3);
			return sagaz_backends[i];
		}
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_STORAGE),
			 errmsg("there is no backend for \"%s://\" in this build of sagaz", scheme),
			 errhint("It has: %s.", storage_scheme_names())));
	return NULL;				/* keep compiler quiet */
}

/* Options of the present user's mapping, or of PUBLIC's; NIL without one. */
static List *
storage_mapping_options(Oid server)
{
	Oid			users[] = {GetUserId(), InvalidOid};

	for (int i = 0; i < (int) lengthof(users); i++)
	{
		HeapTuple	tuple = SearchSysCache2(USERMAPPINGUSERSERVER,
											ObjectIdGetDatum(users[i]),
											ObjectIdGetDatum(server));
		Datum		options;
		bool		isnull;
		List	   *list = NIL;

		if (!HeapTupleIsValid(tuple))
			continue;
		options = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple,
								  Anum_pg_user_mapping_umoptions, &isnull);
		if (!isnull)
			list = untransformRelOptions(options);
		ReleaseSysCache(tuple);
		return list;
	}
	return NIL;
}

static void
find_storage_by_url(const char *url, SagazStorage *storage)
{
	char	   *wrapper;
	ForeignDataWrapper *fdw;

	storage->backend = sagaz_storage_read_url(url, &storage->options);
	wrapper = sagaz_storage_wrapper(storage->backend);
	fdw = GetForeignDataWrapperByName(wrapper, true);
	if (fdw == NULL || !may_use(ForeignDataWrapperRelationId, fdw->fdwid))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for a URL of kind \"%s\"",
						storage->backend->name),
				 errhint("It needs USAGE on foreign data wrapper %s; or use a storage by its name.",
						 wrapper)));
	storage->server = InvalidOid;
	storage->owner = GetUserId();
	storage->name = pstrdup(storage->backend->name);
}

static void
take_storage_server(ForeignServer *server, ForeignDataWrapper *fdw, SagazStorage *storage)
{
	storage->backend = get_storage_backend(fdw->fdwname + strlen(WRAPPER_PREFIX));
	storage->server = server->serverid;
	storage->owner = server->owner;
	storage->name = server->servername;
	storage->options = list_concat(server->options,
								   storage_mapping_options(server->serverid));
}

static void
find_storage_by_name(const char *name, SagazStorage *storage)
{
	ForeignServer *server = GetForeignServerByName(name, true);
	ForeignDataWrapper *fdw = server ? GetForeignDataWrapper(server->fdwid) : NULL;

	if (fdw == NULL ||
		strncmp(fdw->fdwname, WRAPPER_PREFIX, strlen(WRAPPER_PREFIX)) != 0 ||
		strcmp(fdw->fdwname, "sagaz_events") == 0)
		sagaz_storage_unknown(name);
	if (!may_use(ForeignServerRelationId, server->serverid))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for storage \"%s\"", name),
				 errhint("It needs USAGE on the foreign server of that name.")));
	take_storage_server(server, fdw, storage);
}

/*
 * Is it a superuser who is at work here, by himself?  Not so in a function
 * with its definer's rights, and not in what maintenance commands run with the
 * rights of a table's owner; ANALYZE of a foreign table is none of these, see
 * fdw_analyze.c.
 */
static bool
is_superusers_session(void)
{
	Oid			user;
	int			context;

	GetUserIdAndSecContext(&user, &context);
	return superuser_arg(user) && superuser_arg(GetSessionUserId()) &&
		(context & (SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION)) == 0;
}

static void
note_storage_user(SagazStorage *storage)
{
	storage->is_superusers = is_superusers_session() && superuser_arg(storage->owner);
	storage->reads_files = sagaz_may_use_server_file(storage->owner, false);
	storage->writes_files = sagaz_may_use_server_file(storage->owner, true);
	storage->user = GetUserNameFromId(GetUserId(), false);
}

/*
 * What a name or a URL stands for, in the present memory context.  Checks
 * that the present user may use it.  Reads catalogs, so it needs a
 * transaction, though the result outlives it; errors do not quote a URL.
 */
void
sagaz_storage_find(const char *name, SagazStorage *storage)
{
	if (strstr(name, "://"))
		find_storage_by_url(name, storage);
	else
		find_storage_by_name(name, storage);
	note_storage_user(storage);
	sagaz_prepare_encodings();
}

/* The storage of a foreign table, whose maker had USAGE on the server. */
void
sagaz_storage_of_server(Oid server, SagazStorage *storage)
{
	ForeignServer *found = GetForeignServer(server);

	take_storage_server(found, GetForeignDataWrapper(found->fdwid), storage);
	note_storage_user(storage);
	sagaz_prepare_encodings();
}

static void
check_storage_kind(const SagazStore *store, SagazKind kind)
{
	if (sagaz_examine_has_kind(store, kind))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_STORAGE),
			 errmsg("storage \"%s\" keeps no %s", store->name,
					kind == SAGAZ_SAGA ? "sagas" : "events"),
			 errhint("See the option storage_type of the storage.")));
}

/*
 * The native tables as a store, in the present memory context; it holds
 * nothing open and is not to be closed.
 */
SagazStore *
sagaz_storage_native(void)
{
	SagazStore *store = palloc0(sizeof(SagazStore));

	store->backend = get_storage_backend("native");
	store->context = CurrentMemoryContext;
	store->name = "native";
	store->owner = GetUserId();
	store->consumer_group = SAGAZ_DEFAULT_GROUP;
	return store;
}

/*
 * Open a storage that was found; no transaction is needed for that.  The
 * store is the session's: another call may close it and open it anew, where
 * an error broke it or its options have changed.
 */
SagazStore *
sagaz_storage_open(const SagazStorage *storage, const char *name, SagazKind kind)
{
	SagazStore *store = sagaz_storage_connect(storage, name);

	check_storage_kind(store, kind);
	return store;
}

/* Open a storage that is not the native one. */
SagazStore *
sagaz_storage_open_named(const char *name, SagazKind kind)
{
	SagazStorage storage;

	sagaz_storage_find(name, &storage);
	return sagaz_storage_open(&storage, name, kind);
}

static const char *
default_setting(SagazKind kind)
{
	return kind == SAGAZ_SAGA ? SAGAZ_SAGA_STORAGE : SAGAZ_OUTBOX_STORAGE;
}

/*
 * Whoever owns a server says where it is.  So one that a setting names, for
 * everybody in the session, must belong to the present user, or to somebody
 * who decides about the setting anyway.
 */
bool
sagaz_storage_may_be_default(const SagazStorage *storage, SagazKind kind)
{
	return storage->owner == GetUserId() || owns_database(storage->owner) ||
		sagaz_settings_may_set(default_setting(kind), storage->owner);
}

static void
check_default(const SagazStorage *storage, SagazKind kind)
{
	if (sagaz_storage_may_be_default(storage, kind))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("storage \"%s\" cannot be the default", storage->name),
			 errdetail("Its owner may not set %s.", default_setting(kind)),
			 errhint("Name it in the call; or let its server belong to the owner of the database.")));
}

/* Open the storage that the setting names; NULL is the native one. */
static SagazStore *
open_default(SagazKind kind)
{
	const char *name = kind == SAGAZ_SAGA ? sagaz_saga_storage : sagaz_outbox_storage;
	SagazStorage storage;

	if (strcmp(name, "native") == 0)
		return NULL;
	find_storage_by_name(name, &storage);
	note_storage_user(&storage);
	check_default(&storage, kind);
	return sagaz_storage_open(&storage, name, kind);
}

/*
 * The storage that a function's last argument names, or else the setting;
 * NULL is the native one.
 */
SagazStore *
sagaz_storage_argument(FunctionCallInfo fcinfo, SagazKind kind)
{
	char	   *name = sagaz_text_argument_or_null(fcinfo, PG_NARGS() - 1);

	if (name == NULL)
		return open_default(kind);
	return strcmp(name, "native") == 0 ? NULL : sagaz_storage_open_named(name, kind);
}

/*
 * The storage that a function's last argument names, or else the setting for
 * events, for whatever it keeps; NULL is the native one.
 */
SagazStore *
sagaz_storage_argument_of_any(FunctionCallInfo fcinfo)
{
	char	   *name = sagaz_text_argument_or_null(fcinfo, PG_NARGS() - 1);
	SagazStorage storage;

	if (name == NULL)
		return open_default(SAGAZ_EVENT);
	if (strcmp(name, "native") == 0)
		return NULL;
	sagaz_storage_find(name, &storage);
	return sagaz_storage_connect(&storage, name);
}

/* A foreign storage serves one group: its argument must name that, or nothing. */
void
sagaz_storage_check_group(const SagazStore *store, FunctionCallInfo fcinfo, int argno)
{
	const char *group = sagaz_group_argument(fcinfo, argno, store->consumer_group);

	if (strcmp(store->consumer_group, group) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_STORAGE),
			 errmsg("storage \"%s\" has no consumer group \"%s\"", store->name, group),
			 errhint("It has one group, \"%s\", which its option consumer_group names.",
					 store->consumer_group)));
}

/* A storage that was migrated away from hands out no events. */
void
sagaz_storage_check_open(const SagazStore *store)
{
	const char *closed = sagaz_store_option(store, "closed");
	bool		is_closed;

	if (closed == NULL || !parse_bool(closed, &is_closed) || !is_closed)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_STORAGE),
			 errmsg("storage \"%s\" is closed", store->name),
			 errdetail("Its events were migrated to another storage."),
			 errhint("ALTER SERVER %s OPTIONS (DROP closed) opens it.",
					 quote_identifier(store->name))));
}
