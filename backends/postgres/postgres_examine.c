/*
 * postgres_examine.c
 *		Which rights are missing in another database, though it answers.
 *
 * That a try to read or to write gets as far as the first record does not show
 * them: a sagaz decides in its functions, and a role may insert and not delete.
 */
#include "backends/postgres/postgres_store.h"

#include "lib/sagaz.h"

/* What a role may not run; the second column: of those that write. */
static const char *const sagaz_query =
	"SELECT string_agg(format('%s.%s', n.nspname, p.proname), ', ' ORDER BY p.oid),"
	" coalesce(bool_or(p.proname IN ('merge_records', 'remove_records', 'import_records')), false)"
	" FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace"
	" WHERE (n.nspname, p.proname) IN (('sagaz_internal', 'export_page'), ('sagaz', 'export_all'),"
	" ('sagaz', 'count_records'), ('sagaz_internal', 'merge_records'),"
	" ('sagaz_internal', 'remove_records'), ('sagaz', 'import_records'))"
	" AND NOT (pg_catalog.has_schema_privilege(n.oid, 'USAGE')"
	" AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE'))";

/* $1: the schema, $2: the tables of the kind. */
static const char *const library_query =
	"SELECT string_agg(format('%s on %s', w.privilege, c.relname), ', ' ORDER BY c.relname, w.privilege), true"
	" FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
	" CROSS JOIN LATERAL pg_catalog.unnest(CASE WHEN c.relkind = 'S' THEN '{USAGE}'"
	" ELSE '{INSERT,UPDATE,DELETE}' END::text[]) AS w (privilege)"
	" WHERE n.nspname = $1 AND (c.relname = ANY ($2::text[]) AND c.relkind IN ('r', 'p')"
	" OR c.relkind = 'S' AND EXISTS (SELECT FROM pg_catalog.pg_depend AS d"
	" JOIN pg_catalog.pg_class AS t ON t.oid = d.refobjid"
	" WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'a'"
	" AND t.relnamespace = n.oid AND t.relname = ANY ($2::text[])))"
	" AND NOT CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(c.oid, w.privilege)"
	" ELSE pg_catalog.has_table_privilege(c.oid, w.privilege) END";

static const char *const library_tables[] = {
	[SAGAZ_SAGA] = "{sagas,saga_steps,sagaz_saga}",
	[SAGAZ_EVENT] = "{saga_outbox,sagaz_event}"
};

/* Rights that the user there lacks, for all that sagaz does with records of the kind. */
List *
postgres_examine(SagazStore *base, SagazKind kind)
{
	PostgresStore *store = (PostgresStore *) base;
	const char *schema = sagaz_store_option(base, "schema");
	const char *values[] = {schema ? schema : POSTGRES_DEFAULT_SCHEMA, library_tables[kind]};
	bool		is_sagaz;
	PostgresResult *result;
	SagazFault *fault;

	postgres_ready(store);
	is_sagaz = postgres_layout(store) == LAYOUT_SAGAZ;
	result = is_sagaz ? postgres_query(store, sagaz_query, 0, NULL, NULL) :
		postgres_query(store, library_query, lengthof(values), NULL, values);
	if (postgres_value(result, 0, 0) == NULL)
		return NIL;
	fault = palloc(sizeof(SagazFault));
	fault->stops_writes = postgres_flag(result, 0, 1);
	fault->text = psprintf(is_sagaz ? "the user there may not run %s" : "the user there has no %s",
						   postgres_text(result, 0, 0));
	return list_make1(fault);
}
