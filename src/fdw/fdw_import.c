/*
 * fdw_import.c
 *		IMPORT FOREIGN SCHEMA, and the handler of the foreign data wrappers of
 *		storages.
 */
#include "lib/sagaz.h"

#include "foreign/foreign.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"

#include "fdw/fdw.h"

PG_FUNCTION_INFO_V1(sagaz_storage_fdw);

/* The table's name in the schema that is imported. */
static const char *
imported_table_name(SagazKind kind)
{
	return kind == SAGAZ_SAGA ? "sagas" : "outbox_events";
}

static const char *
imported_type_name(SagazKind kind)
{
	return kind == SAGAZ_SAGA ? "saga" : "outbox";
}

static void
import_columns(StringInfo sql, SagazKind kind)
{
	static const char *const types[] = {
		[FIELD_TEXT] = "text",
		[FIELD_JSON] = "jsonb",
		[FIELD_TIME] = "timestamptz",
		[FIELD_INT] = "int4",
		[FIELD_BIGINT] = "int8"
	};

	for (const SagazField *field = sagaz_table_fields(kind); field->name; field++)
	{
		appendStringInfo(sql, "%s%s pg_catalog.%s", field == sagaz_table_fields(kind) ? "" : ", ",
						 field->name, types[field->type]);
		if (field->default_value)
			appendStringInfo(sql, " DEFAULT %s", field->default_value);
		if (field->needed)
			appendStringInfoString(sql, " NOT NULL");
	}
}

static char *
import_table(SagazKind kind, const char *server)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE FOREIGN TABLE %s (", imported_table_name(kind));
	import_columns(&sql, kind);
	appendStringInfo(&sql, ") SERVER %s OPTIONS (type '%s')", quote_identifier(server),
					 imported_type_name(kind));
	return sql.data;
}

/* Does the storage keep such records? */
static bool
keeps(const SagazStorage *storage, SagazKind kind)
{
	ListCell   *cell;

	foreach(cell, storage->options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, "storage_type") == 0)
			return strcmp(strVal(option->arg), "both") == 0 ||
				strcmp(strVal(option->arg), imported_type_name(kind)) == 0;
	}
	return true;
}

static bool
import_is_wanted(const ImportForeignSchemaStmt *statement, SagazKind kind)
{
	ListCell   *cell;

	foreach(cell, statement->table_list)
		if (strcmp(((RangeVar *) lfirst(cell))->relname, imported_table_name(kind)) == 0)
			return statement->list_type != FDW_IMPORT_SCHEMA_EXCEPT;
	return statement->list_type != FDW_IMPORT_SCHEMA_LIMIT_TO;
}

/* Every storage has one schema, sagaz. */
static List *
import_schema(ImportForeignSchemaStmt *statement, Oid server_id)
{
	ForeignServer *server = GetForeignServer(server_id);
	SagazStorage storage;
	List	   *commands = NIL;

	if (strcmp(statement->remote_schema, SAGAZ_SCHEMA) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_SCHEMA_NOT_FOUND),
				 errmsg("schema \"%s\" is not in storage \"%s\"", statement->remote_schema,
						server->servername),
				 errhint("The schema of every storage is called %s.", SAGAZ_SCHEMA)));
	if (statement->options != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("invalid option \"%s\"",
						((DefElem *) linitial(statement->options))->defname),
				 errhint("There are no valid options in this context.")));
	sagaz_storage_of_server(server_id, &storage);
	for (SagazKind kind = SAGAZ_SAGA; kind <= SAGAZ_EVENT; kind++)
		if (keeps(&storage, kind) && import_is_wanted(statement, kind))
			commands = lappend(commands, import_table(kind, server->servername));
	return commands;
}

Datum
sagaz_storage_fdw(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	sagaz_fdw_plan(routine);
	sagaz_fdw_scan(routine);
	sagaz_fdw_analyze(routine);
	sagaz_fdw_modify(routine);
	routine->ImportForeignSchema = import_schema;
	PG_RETURN_POINTER(routine);
}
