/*
 * postgres_library_sql.c
 *		The Python library's tables, and ours beside them.
 *
 * What those tables have no place for (versions, batches, leases, next
 * attempts, the keys of a broker, further keys of steps) is in side tables,
 * sagaz_saga and sagaz_event, made with the first write.  The library knows
 * nothing of them, so a side row counts only as long as the main row is as
 * sagaz left it in the columns that the side row repeats.
 */
#include "backends/postgres/postgres_library.h"

static const char *const make_tables[] = {
	/* who else makes them waits */
	"SELECT pg_advisory_xact_lock(hashtext('sagaz'), hashtext('tables of a storage'))",
	"CREATE TABLE IF NOT EXISTS @.sagas (saga_id varchar(255) PRIMARY KEY,"
	" saga_name varchar(255) NOT NULL, status varchar(50) NOT NULL,"
	" context jsonb, metadata jsonb, created_at timestamptz DEFAULT now(),"
	" updated_at timestamptz DEFAULT now())",
	"CREATE INDEX IF NOT EXISTS idx_sagas_status ON @.sagas (status)",
	"CREATE INDEX IF NOT EXISTS idx_sagas_name ON @.sagas (saga_name)",
	"CREATE INDEX IF NOT EXISTS idx_sagas_created_at ON @.sagas (created_at)",
	"CREATE TABLE IF NOT EXISTS @.saga_steps (id serial PRIMARY KEY,"
	" saga_id varchar(255) REFERENCES @.sagas (saga_id) ON DELETE CASCADE,"
	" step_name varchar(255) NOT NULL, status varchar(50) NOT NULL,"
	" result jsonb, error text, executed_at timestamptz,"
	" compensated_at timestamptz, retry_count integer DEFAULT 0,"
	" UNIQUE (saga_id, step_name))",
	"CREATE INDEX IF NOT EXISTS idx_saga_steps_saga_id ON @.saga_steps (saga_id)",
	"CREATE INDEX IF NOT EXISTS idx_saga_steps_status ON @.saga_steps (status)",
	"CREATE TABLE IF NOT EXISTS @.saga_outbox (event_id uuid PRIMARY KEY,"
	" saga_id varchar(255) NOT NULL,"
	" aggregate_type varchar(255) NOT NULL DEFAULT 'saga',"
	" aggregate_id varchar(255) NOT NULL, event_type varchar(255) NOT NULL,"
	" payload jsonb NOT NULL, headers jsonb NOT NULL DEFAULT '{}',"
	" status varchar(50) NOT NULL DEFAULT 'pending',"
	" created_at timestamptz NOT NULL DEFAULT now(), claimed_at timestamptz,"
	" sent_at timestamptz, retry_count integer NOT NULL DEFAULT 0,"
	" last_error text, worker_id varchar(255), CONSTRAINT valid_status CHECK"
	" (status IN ('pending', 'claimed', 'sent', 'failed', 'dead_letter')))",
	"CREATE INDEX IF NOT EXISTS idx_outbox_pending ON @.saga_outbox (created_at)"
	" WHERE status = 'pending'",
	"CREATE INDEX IF NOT EXISTS idx_outbox_claimed_at ON @.saga_outbox (claimed_at)"
	" WHERE status = 'claimed'",
	"CREATE INDEX IF NOT EXISTS idx_outbox_saga_id ON @.saga_outbox (saga_id)"
};

/* These alone are missing beside tables that the library has made. */
static const char *const make_side_tables[] = {
	"SELECT pg_advisory_xact_lock(hashtext('sagaz'), hashtext('tables of a storage'))",
	"CREATE TABLE IF NOT EXISTS @.sagaz_saga (saga_id varchar(255) PRIMARY KEY,"
	" created_at timestamptz, updated_at timestamptz, version bigint NOT NULL,"
	" steps jsonb, steps_seen jsonb)",
	"COMMENT ON TABLE @.sagaz_saga IS"
	" 'Of the extension sagaz: what it knows of a saga beyond the library''s tables'",
	"CREATE TABLE IF NOT EXISTS @.sagaz_event (event_id uuid PRIMARY KEY,"
	" created_at timestamptz NOT NULL, status varchar(50) NOT NULL,"
	" claimed_at timestamptz, batch_id bigint, lease_until bigint,"
	" next_attempt_at bigint, routing_key text, partition_key text)",
	"CREATE INDEX IF NOT EXISTS sagaz_event_batch ON @.sagaz_event (batch_id)"
	" WHERE batch_id IS NOT NULL",
	"COMMENT ON TABLE @.sagaz_event IS"
	" 'Of the extension sagaz: what it knows of an event beyond the library''s tables;"
	" lease_until and next_attempt_at are microseconds since 2000-01-01 UTC'"
};

/*
 * The text with the schema in place of each "@"; the schema is quoted
 * already.
 */
char *
library_sql(const PostgresStore *store, const char *sql)
{
	StringInfoData text;

	initStringInfo(&text);
	for (; *sql; sql++)
	{
		if (*sql == '@')
			appendStringInfoString(&text, store->schema);
		else
			appendStringInfoChar(&text, *sql);
	}
	return text.data;
}

static const char *const begin_looking = "BEGIN";

static const char *const end_looking = "ROLLBACK";

static void
make_library(PostgresStore *store, const char *const *statements, int count)
{
	int			nresults;

	for (int i = 0; i < count; i++)
		postgres_queue(store, library_sql(store, statements[i]), 0, NULL, NULL);
	(void) postgres_exchange(store, &nresults);
}

/*
 * See to it that all tables are there.  Who only looks sees that they could be
 * made; of an error the caller rolls back.
 */
void
library_make_tables(PostgresStore *store)
{
	if (store->base.only_looks)
		make_library(store, &begin_looking, 1);
	if (!store->has[SAGAZ_SAGA] || !store->has[SAGAZ_EVENT])
		make_library(store, make_tables, lengthof(make_tables));
	if (!store->has_side[SAGAZ_SAGA] || !store->has_side[SAGAZ_EVENT])
		make_library(store, make_side_tables, lengthof(make_side_tables));
	if (store->base.only_looks)
		make_library(store, &end_looking, 1);
	(void) postgres_layout(store);
}
