/*
 * switch_rights.c
 *		May the caller make the target of a migration the default?
 *
 * A switch comes last and takes ALTER DATABASE, ALTER SERVER and two settings.
 * So whether they are the caller's is asked before the first record is moved.
 */
#include "lib/sagaz.h"

#include "catalog/pg_database.h"
#include "catalog/pg_foreign_server.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "utils/acl.h"

#include "transfer/transfer.h"

#if PG_VERSION_NUM >= 160000
#define owns(class, object) object_ownercheck(class, object, GetUserId())
#else
#define owns(class, object) \
	((class) == DatabaseRelationId ? \
	 pg_database_ownercheck(object, GetUserId()) : \
	 pg_foreign_server_ownercheck(object, GetUserId()))
#endif

static char *
settings_problem(void)
{
	if (!owns(DatabaseRelationId, MyDatabaseId))
		return psprintf("must be owner of database %s", get_database_name(MyDatabaseId));
	for (SagazKind kind = SAGAZ_SAGA; kind <= SAGAZ_EVENT; kind++)
	{
		const char *setting = kind == SAGAZ_SAGA ? SAGAZ_SAGA_STORAGE : SAGAZ_OUTBOX_STORAGE;

		if (!sagaz_settings_may_set(setting, GetUserId()))
			return psprintf("permission denied to set parameter \"%s\"", setting);
	}
	return NULL;
}

/* It is closed, or opened, with ALTER SERVER. */
static char *
server_problem(const SagazSide *end)
{
	if (end->is_native || owns(ForeignServerRelationId, end->storage.server))
		return NULL;
	return psprintf("must be owner of foreign server %s", end->name);
}

/* Would others get the target by the settings? */
static char *
default_problem(const SagazSide *end)
{
	if (end->is_native || sagaz_storage_may_be_default(&end->storage, SAGAZ_SAGA))
		return NULL;
	return psprintf("owner of foreign server %s may not set parameter \"%s\"",
					end->name, SAGAZ_SAGA_STORAGE);
}

/*
 * What is in the way of a switch, or NULL; both ends have been found, by
 * their names.
 */
char *
sagaz_switch_problem(const SagazTransfer *transfer)
{
	char	   *problem = settings_problem();

	if (problem == NULL)
		problem = server_problem(&transfer->source);
	if (problem == NULL)
		problem = server_problem(&transfer->target);
	return problem ? problem : default_problem(&transfer->target);
}
