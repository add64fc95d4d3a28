/*
 * postgres_layout.c
 *		Which tables a database has: those of a sagaz, or the Python library's.
 */
#include "backends/postgres/postgres_store.h"

#include "lib/library_tables.h"

/* What the Python library's tables must have, and whether ours are beside. */
#define LAYOUT_QUERY \
	"SELECT wanted.part, count(*) = count(a.attname), count(c.oid) > 0," \
	" (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'sagaz')" \
	" FROM (VALUES (0, 'sagas', '{saga_id,saga_name,status,context,metadata,created_at,updated_at}'::text[])," \
	" (0, 'saga_steps', '{id,saga_id,step_name,status,result,error,executed_at,compensated_at,retry_count}')," \
	" (1, 'saga_outbox', '{event_id,saga_id,aggregate_type,aggregate_id,event_type,payload,headers,status," \
	"created_at,claimed_at,sent_at,retry_count,last_error,worker_id}')," \
	" (2, 'sagaz_saga', '{saga_id}')," \
	" (3, 'sagaz_event', '{event_id}'))" \
	" AS wanted (part, relation, columns)" \
	" CROSS JOIN LATERAL pg_catalog.unnest(wanted.columns) AS w (name)" \
	" LEFT JOIN (pg_catalog.pg_class AS c" \
	" JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = $1)" \
	" ON c.relname = wanted.relation" \
	" LEFT JOIN pg_catalog.pg_attribute AS a" \
	" ON a.attrelid = c.oid AND a.attname = w.name AND NOT a.attisdropped" \
	" GROUP BY wanted.part ORDER BY wanted.part"

static bool
wants_layout(const PostgresStore *store, const char *layout)
{
	const char *option = sagaz_store_option(&store->base, "layout");

	return strcmp(option ? option : "auto", layout) == 0;
}

static void
check_layout_version(const PostgresStore *store, const char *version)
{
	if (version && strcmp(version, SAGAZ_VERSION) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_STORAGE),
			 version ?
			 errmsg("storage \"%s\" has version %s of sagaz, and this is %s",
					store->base.name, version, SAGAZ_VERSION) :
			 errmsg("storage \"%s\" has no extension sagaz", store->base.name),
			 errhint("%s", version ? "Update the older one." :
					 "Create it there.")));
}

/* Does the part of the answer say that these tables are there, and whole? */
static bool
layout_has_tables(const PostgresStore *store, const PostgresResult *answer, int part,
				  const char *tables)
{
	bool		whole = postgres_flag(answer, part, 1);
	bool		any = postgres_flag(answer, part, 2);

	if (any && !whole)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_STORAGE),
				 errmsg("storage \"%s\" has other tables than the library's", store->base.name),
				 errdetail("In its schema %s, %s has not all of the library's columns.",
						   store->schema, tables),
				 errhint("Name another one with the option schema.")));
	return whole;
}

/* An error if the tables, or the schema for them, could run somebody else's code. */
static void
check_trust(const PostgresStore *store, const PostgresResult *problems)
{
	if (problems->nrows == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("tables of storage \"%s\" are not to be trusted", store->base.name),
			 errdetail("There, %s %s.", postgres_value(problems, 0, 0),
					   postgres_value(problems, 0, 1)),
			 errhint("They and their schema must belong to the user who logs in, a superuser, the owner of the database, or the role that the option trusted_owner names.")));
}

/* Ask which tables are there, and whose they are. */
void
postgres_look_for_layout(PostgresStore *store)
{
	const char *values[] = {
		sagaz_store_option(&store->base, "schema"),
		sagaz_store_option(&store->base, "trusted_owner"),
		"{sagas,saga_steps,saga_outbox,sagaz_saga,sagaz_event}"
	};
	PostgresResult **answers;
	PostgresResult *answer;
	const char *version;
	int			count;

	if (values[0] == NULL)
		values[0] = POSTGRES_DEFAULT_SCHEMA;
	postgres_queue(store, LAYOUT_QUERY, 1, NULL, values);
	postgres_queue(store, LIBRARY_TABLES_CHECK, lengthof(values), NULL, values);
	answers = postgres_exchange(store, &count);
	answer = answers[0];
	version = postgres_value(answer, 0, 3);
	if (wants_layout(store, "sagaz") || (version && wants_layout(store, "auto")))
	{
		check_layout_version(store, version);
		store->layout = LAYOUT_SAGAZ;
		return;
	}
	check_trust(store, answers[1]);
	store->has[SAGAZ_SAGA] = layout_has_tables(store, answer, 0, "sagas or saga_steps");
	store->has[SAGAZ_EVENT] = layout_has_tables(store, answer, 1, "saga_outbox");
	store->has_side[SAGAZ_SAGA] = layout_has_tables(store, answer, 2, "sagaz_saga");
	store->has_side[SAGAZ_EVENT] = layout_has_tables(store, answer, 3, "sagaz_event");
	store->layout = store->has[SAGAZ_SAGA] || store->has[SAGAZ_EVENT] ?
		LAYOUT_LIBRARY : LAYOUT_EMPTY;
}

/*
 * Which layout has the storage?  It is asked as long as tables are missing,
 * because anybody may make them.
 */
PostgresLayout
postgres_layout(PostgresStore *store)
{
	bool		is_whole = store->has[SAGAZ_SAGA] && store->has[SAGAZ_EVENT] &&
		store->has_side[SAGAZ_SAGA] && store->has_side[SAGAZ_EVENT];

	if (store->layout == LAYOUT_UNKNOWN ||
		(store->layout != LAYOUT_SAGAZ && !is_whole))
		postgres_look_for_layout(store);
	return store->layout;
}

/* Can a page of records begin behind the last one's key? */
bool
postgres_reads_by_key(SagazKind kind, const SagazFilter *filter)
{
	return filter->order == SAGAZ_ANY_ORDER || filter->order == SAGAZ_BY_KEY ||
		(filter->order == SAGAZ_FOR_COPY && kind == SAGAZ_SAGA);
}
