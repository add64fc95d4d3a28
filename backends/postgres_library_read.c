/*
 * postgres_library_read.c
 *		Reading the Python library's tables in another PostgreSQL database.
 *
 * A saga's steps come as one document.  Where sagaz has kept the steps whole,
 * because the tables cannot (keys of steps that the library does not know),
 * these count, unless the library has saved the saga since.
 *
 * The whole filter is part of the query, so that a limit can be, too.
 */
#include "postgres_sql.h"

#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "record.h"
#include "times.h"

enum saga_value
{
	saga_value_id,
	saga_value_name,
	saga_value_status,
	saga_value_steps,
	saga_value_context,
	saga_value_metadata,
	saga_value_created_at,
	saga_value_updated_at,
	saga_value_version
};

enum event_value
{
	event_value_id,
	event_value_saga_id,
	event_value_aggregate_type,
	event_value_aggregate_id,
	event_value_event_type,
	event_value_payload,
	event_value_headers,
	event_value_status,
	event_value_created_at,
	event_value_claimed_at,
	event_value_sent_at,
	event_value_retry_count,
	event_value_last_error,
	event_value_worker_id,
	event_value_routing_key,
	event_value_partition_key,
	event_value_batch_id,
	event_value_lease_until,
	event_value_next_attempt_at
};

#define STEPS \
	"coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(" \
	"'name', s.step_name, 'status', s.status, 'result', s.result, 'error', s.error," \
	" 'executed_at', s.executed_at, 'compensated_at', s.compensated_at," \
	" 'retry_count', coalesce(s.retry_count, 0)) ORDER BY s.id)" \
	" FROM %s.saga_steps AS s WHERE s.saga_id = m.saga_id), '[]')"

/* ---------------------------------------------------------------------- */
/* Statements */

void
postgres_sql_begin(PostgresSql *sql)
{
	initStringInfo(&sql->text);
	sql->nparameters = 0;
}

/* Add text in which %d, if a parameter goes with it, is the parameter's number. */
void
postgres_sql_add(PostgresSql *sql, const char *text, const char *parameter)
{
	const char *place = parameter ? strstr(text, "%d") : NULL;

	if (place == NULL)
	{
		appendStringInfoString(&sql->text, text);
		return;
	}
	Assert(sql->nparameters < POSTGRES_MAX_PARAMETERS);
	sql->parameters[sql->nparameters++] = parameter;
	appendBinaryStringInfo(&sql->text, text, place - text);
	appendStringInfo(&sql->text, "%d", sql->nparameters);
	appendStringInfoString(&sql->text, place + 2);
}

void
postgres_sql_queue(PostgresStore *store, const PostgresSql *sql)
{
	postgres_queue(store, sql->text.data, sql->nparameters, NULL, sql->parameters);
}

/* Words as an array of JSON. */
char *
postgres_json_strings(const char *const *words, int count)
{
	StringInfoData array;

	initStringInfo(&array);
	appendStringInfoChar(&array, '[');
	for (int i = 0; i < count; i++)
	{
		if (i > 0)
			appendStringInfoChar(&array, ',');
		escape_json(&array, words[i]);
	}
	appendStringInfoChar(&array, ']');
	return array.data;
}

static char *
time_text(TimestampTz time)
{
	char		text[SAGAZ_TIME_SIZE];

	(void) sagaz_format_time(sagaz_real_time(time), text);
	return pstrdup(text);
}

#define AMONG " IN (SELECT pg_catalog.jsonb_array_elements_text($%d::jsonb))"

static void
add_saga_conditions(PostgresSql *sql, const SagazFilter *filter)
{
	if (filter->name_part)
		postgres_sql_add(sql, " AND pg_catalog.strpos(pg_catalog.lower(m.saga_name),"
						 " pg_catalog.lower($%d)) > 0", filter->name_part);
	if (filter->updated_before != 0)
		postgres_sql_add(sql, " AND m.updated_at < $%d::timestamptz",
						 time_text(filter->updated_before));
}

/* What may be claimed, as is_claimable() of filter.c has it. */
static void
add_claimable(PostgresSql *sql, const PostgresStore *store, const SagazFilter *filter)
{
	bool		side = store->has_side[SAGAZ_EVENT];
	char	   *now = psprintf(INT64_FORMAT, filter->claimable_at);

	postgres_sql_add(sql, " AND (m.status IN ('pending', 'failed')", NULL);
	if (side)
		postgres_sql_add(sql, " AND coalesce(x.next_attempt_at, 0) <= $%d::bigint", now);
	postgres_sql_add(sql, " OR m.status = 'claimed' AND (m.claimed_at IS NULL"
					 " OR m.claimed_at <= $%d::timestamptz)",
					 time_text(filter->claimable_at - filter->lease_us));
	if (side)
		postgres_sql_add(sql, " AND coalesce(x.lease_until, 0) <= $%d::bigint", now);
	postgres_sql_add(sql, ")", NULL);
}

static void
add_event_conditions(PostgresSql *sql, const PostgresStore *store,
					 const SagazFilter *filter)
{
	if (filter->saga_id)
		postgres_sql_add(sql, " AND m.saga_id = $%d", filter->saga_id);
	if (filter->event_type)
		postgres_sql_add(sql, " AND m.event_type = $%d", filter->event_type);
	if (filter->batch_id != 0)
		postgres_sql_add(sql, store->has_side[SAGAZ_EVENT] ?
						 " AND x.batch_id = $%d::bigint" : " AND $%d::bigint IS NULL",
						 psprintf(INT64_FORMAT, filter->batch_id));
	if (filter->claimed_before != 0)
		postgres_sql_add(sql, " AND m.claimed_at < $%d::timestamptz",
						 time_text(filter->claimed_before));
	if (filter->sent_before != 0)
		postgres_sql_add(sql, " AND m.sent_at < $%d::timestamptz",
						 time_text(filter->sent_before));
	if (filter->claimable_at != 0)
		add_claimable(sql, store, filter);
}

/* Only what is a UUID is in the table. */
static void
add_event_keys(PostgresSql *sql, const SagazFilter *filter, const char *after_key)
{
	const char **ids = palloc((filter->nkeys + 1) * sizeof(char *));
	int			nids = 0;

	if (filter->key && !sagaz_is_uuid(filter->key))
		postgres_sql_add(sql, " AND false", NULL);
	else if (filter->key)
		postgres_sql_add(sql, " AND m.event_id = $%d::uuid", filter->key);
	for (int i = 0; i < filter->nkeys; i++)
		if (sagaz_is_uuid(filter->keys[i]))
			ids[nids++] = filter->keys[i];
	if (filter->nkeys > 0)
		postgres_sql_add(sql, " AND m.event_id IN (SELECT w::uuid"
						 " FROM pg_catalog.jsonb_array_elements_text($%d::jsonb) AS w)",
						 postgres_json_strings(ids, nids));
	if (after_key)
		postgres_sql_add(sql, " AND m.event_id > $%d::uuid", after_key);
}

static void
add_saga_keys(PostgresSql *sql, const SagazFilter *filter, const char *after_key)
{
	if (filter->key)
		postgres_sql_add(sql, " AND m.saga_id = $%d", filter->key);
	if (filter->nkeys > 0)
		postgres_sql_add(sql, " AND m.saga_id" AMONG,
						 postgres_json_strings(filter->keys, filter->nkeys));
	if (after_key)
		postgres_sql_add(sql, " AND m.saga_id COLLATE \"C\" > $%d", after_key);
}

static void
add_conditions(PostgresSql *sql, const PostgresStore *store, SagazKind kind,
			   const SagazFilter *filter, const char *after_key)
{
	postgres_sql_add(sql, " WHERE true", NULL);
	if (filter->nstatuses > 0)
		postgres_sql_add(sql, " AND m.status" AMONG,
						 postgres_json_strings(filter->statuses, filter->nstatuses));
	if (kind == SAGAZ_SAGA)
	{
		add_saga_keys(sql, filter, after_key);
		add_saga_conditions(sql, filter);
	}
	else
	{
		add_event_keys(sql, filter, after_key);
		add_event_conditions(sql, store, filter);
	}
}

static void
add_source(PostgresSql *sql, const PostgresStore *store, SagazKind kind)
{
	bool		side = store->has_side[kind];
	const char *schema = store->schema;

	if (kind == SAGAZ_SAGA)
	{
		appendStringInfoString(&sql->text, "SELECT m.saga_id, m.saga_name, m.status, ");
		if (side)
			appendStringInfoString(&sql->text, "CASE WHEN x.updated_at = m.updated_at"
								   " AND x.steps IS NOT NULL THEN x.steps ELSE ");
		appendStringInfo(&sql->text, STEPS, schema);
		if (side)
			appendStringInfoString(&sql->text, " END");
		appendStringInfoString(&sql->text, ", m.context, m.metadata, m.created_at, m.updated_at, ");
		appendStringInfoString(&sql->text, side ?
							   "x.version + (x.updated_at <> m.updated_at)::integer" : "1");
		appendStringInfo(&sql->text, " FROM %s.sagas AS m", schema);
		if (side)
			appendStringInfo(&sql->text, " LEFT JOIN %s.sagaz_saga AS x ON x.saga_id = m.saga_id", schema);
		return;
	}
	appendStringInfo(&sql->text, "SELECT m.event_id, m.saga_id, m.aggregate_type,"
					 " m.aggregate_id, m.event_type, m.payload, m.headers, m.status,"
					 " m.created_at, m.claimed_at, m.sent_at, m.retry_count, m.last_error,"
					 " m.worker_id, %s FROM %s.saga_outbox AS m",
					 side ? "x.routing_key, x.partition_key, x.batch_id, x.lease_until, x.next_attempt_at" :
					 "NULL, NULL, NULL, NULL, NULL", schema);
	if (side)
		appendStringInfo(&sql->text, " LEFT JOIN %s.sagaz_event AS x ON x.event_id = m.event_id", schema);
}

/*
 * The query for a filter; count 0 is no limit.  What is locked by others is
 * passed over if it is to be claimed, and else waited for.
 */
void
postgres_library_select(PostgresStore *store, PostgresSql *sql, SagazKind kind,
						const SagazFilter *filter, const char *after_key,
						int64 count, bool for_update)
{
	const char *key = kind == SAGAZ_SAGA ? "m.saga_id COLLATE \"C\"" : "m.event_id";

	postgres_sql_begin(sql);
	add_source(sql, store, kind);
	add_conditions(sql, store, kind, filter, after_key);
	if (filter->order == SAGAZ_OLDEST_FIRST || filter->order == SAGAZ_NEWEST_FIRST)
		appendStringInfo(&sql->text, " ORDER BY m.created_at%s, %s",
						 filter->order == SAGAZ_NEWEST_FIRST ? " DESC" : "", key);
	else
		appendStringInfo(&sql->text, " ORDER BY %s", key);
	if (count > 0)
		appendStringInfo(&sql->text, " LIMIT " INT64_FORMAT, count);
	if (for_update)
		appendStringInfo(&sql->text, " FOR UPDATE OF m%s",
						 filter->claimable_at != 0 ? " SKIP LOCKED" : "");
}

/* ---------------------------------------------------------------------- */
/* Rows to records */

static Jsonb *
json_value(const PostgresResult *rows, int row, int column, const char *field,
		   SagazRecord *record)
{
	return sagaz_field_json(postgres_value(rows, row, column), field, record);
}

static TimestampTz
time_value(const PostgresResult *rows, int row, int column, const char *field,
		   SagazRecord *record)
{
	return sagaz_field_time(postgres_value(rows, row, column), field, record);
}

static int64
number_value(const PostgresResult *rows, int row, int column)
{
	const char *value = postgres_value(rows, row, column);

	return value ? strtoi64(value, NULL, 10) : 0;
}

static void
read_saga(const PostgresResult *rows, int row, SagazRecord *record)
{
	SagazSaga  *saga = &record->saga;

	saga->saga_id = postgres_value(rows, row, saga_value_id);
	saga->saga_name = postgres_value(rows, row, saga_value_name);
	saga->status = postgres_value(rows, row, saga_value_status);
	saga->steps = json_value(rows, row, saga_value_steps, "steps", record);
	saga->context = json_value(rows, row, saga_value_context, "context", record);
	saga->metadata = json_value(rows, row, saga_value_metadata, "metadata", record);
	saga->created_at = time_value(rows, row, saga_value_created_at, "created_at", record);
	saga->updated_at = time_value(rows, row, saga_value_updated_at, "updated_at", record);
	saga->version = Max(number_value(rows, row, saga_value_version), 1);
}

static void
read_event(const PostgresResult *rows, int row, SagazRecord *record)
{
	SagazEvent *event = &record->event;

	event->event_id = postgres_value(rows, row, event_value_id);
	event->saga_id = postgres_value(rows, row, event_value_saga_id);
	event->aggregate_type = postgres_value(rows, row, event_value_aggregate_type);
	event->aggregate_id = postgres_value(rows, row, event_value_aggregate_id);
	event->event_type = postgres_value(rows, row, event_value_event_type);
	event->payload = json_value(rows, row, event_value_payload, "payload", record);
	event->headers = json_value(rows, row, event_value_headers, "headers", record);
	event->status = postgres_value(rows, row, event_value_status);
	event->created_at = time_value(rows, row, event_value_created_at, "created_at", record);
	event->claimed_at = time_value(rows, row, event_value_claimed_at, "claimed_at", record);
	event->sent_at = time_value(rows, row, event_value_sent_at, "sent_at", record);
	event->retry_count = (int) number_value(rows, row, event_value_retry_count);
	event->last_error = postgres_value(rows, row, event_value_last_error);
	event->worker_id = postgres_value(rows, row, event_value_worker_id);
	event->routing_key = postgres_value(rows, row, event_value_routing_key);
	event->partition_key = postgres_value(rows, row, event_value_partition_key);
	event->batch_id = number_value(rows, row, event_value_batch_id);
	event->lease_until = number_value(rows, row, event_value_lease_until);
	event->next_attempt_at = number_value(rows, row, event_value_next_attempt_at);
}

/* The records in the rows of such a query. */
List *
postgres_library_records(const PostgresResult *rows, SagazKind kind)
{
	List	   *records = NIL;

	for (int row = 0; row < rows->nrows; row++)
	{
		SagazRecord *record = palloc0(sizeof(SagazRecord));

		record->kind = kind;
		if (kind == SAGAZ_SAGA)
			read_saga(rows, row, record);
		else
			read_event(rows, row, record);
		sagaz_record_check(record);
		records = lappend(records, record);
	}
	return records;
}
