/*
 * validator.c
 *		Options of our foreign servers, their user mappings and foreign tables.
 */
#include "lib/sagaz.h"

#include "access/reloptions.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "fmgr.h"

#include "fdw/fdw.h"
#include "storage/secrets.h"
#include "storage/storage.h"

/* May the option stand in this catalog? */
static bool
option_is_valid_in(const SagazOption *option, Oid catalog)
{
	if (catalog == ForeignServerRelationId)
		return !option->secret;
	return catalog == UserMappingRelationId && option->secret;
}

static void
refuse_invalid_option(const SagazBackend *backend, const char *name, Oid catalog)
{
	StringInfoData valid;

	initStringInfo(&valid);
	for (const SagazOption *option = backend->options; option->name; option++)
		if (option_is_valid_in(option, catalog))
			appendStringInfo(&valid, "%s%s", valid.len > 0 ? ", " : "",
							 option->name);
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\"", name),
			 valid.len > 0 ?
			 errhint("Valid options in this context are: %s", valid.data) :
			 errhint("There are no valid options in this context.")));
}

/* What every backend takes is checked here. */
static void
validate_common_option(const DefElem *option)
{
	const char *value = defGetString(unconstify(DefElem *, option));

	if (strcmp(option->defname, "storage_type") == 0 &&
		strcmp(value, "saga") != 0 && strcmp(value, "outbox") != 0 &&
		strcmp(value, "both") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("storage_type \"%s\" is unknown", value),
				 errhint("Say 'saga', 'outbox' or 'both'.")));
	if (strcmp(option->defname, "closed") == 0)
		(void) defGetBoolean(unconstify(DefElem *, option));
	if (strcmp(option->defname, "consumer_group") == 0 && value[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("consumer_group must not be empty")));
}

static Datum
validate_options(FunctionCallInfo fcinfo, const char *name)
{
	const SagazBackend *backend = sagaz_backend_find(name);
	List	   *options = PG_ARGISNULL(0) ? NIL :
		untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_ARGISNULL(1) ? InvalidOid : PG_GETARG_OID(1);
	ListCell   *cell;

	/* the wrapper itself is there in every build */
	if (backend == NULL && options == NIL)
		PG_RETURN_VOID();
	if (backend == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_STORAGE),
				 errmsg("there is no backend \"%s\" in this build of sagaz", name)));
	foreach(cell, options)
	{
		DefElem    *option = lfirst(cell);
		const SagazOption *known = backend->options;

		if (catalog == ForeignTableRelationId)
		{
			sagaz_table_check_option(option->defname, defGetString(option));
			continue;
		}
		while (known->name && strcmp(known->name, option->defname) != 0)
			known++;
		if (known->name == NULL || !option_is_valid_in(known, catalog))
			refuse_invalid_option(backend, option->defname, catalog);
		validate_common_option(option);
		if (known->check)
			known->check(defGetString(option));
	}
	PG_RETURN_VOID();
}

/* One SQL function for each wrapper; its options may be secrets. */
#define VALIDATOR_OF(backend) \
static Datum \
validate_##backend(FunctionCallInfo fcinfo) \
{ \
	return validate_options(fcinfo, #backend); \
} \
\
SAGAZ_SQL_FUNCTION(sagaz_##backend##_validator, sagaz_secrets_hide_statement, \
				   validate_##backend)

VALIDATOR_OF(memory);
VALIDATOR_OF(sqlite);
VALIDATOR_OF(redis);
VALIDATOR_OF(postgresql);
