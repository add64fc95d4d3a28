/*
 * postgres_library_write.c
 *		The Python library's tables in another PostgreSQL database: what is
 *		written there.
 *
 * Rows travel as one document for a table, so that a statement writes all of
 * a batch; the other end takes the document apart.
 */
#include "postgres_library.h"

#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "record.h"

#define STEP_KEYS 7				/* that the library's table has */

/* ---------------------------------------------------------------------- */
/* Documents */

/* Begin a row, or a value of it. */
static void
add_key(StringInfo rows, const char *key)
{
	if (rows->data[rows->len - 1] != '{')
		appendStringInfoChar(rows, ',');
	appendStringInfo(rows, "\"%s\":", key);
}

static void
add_text(StringInfo rows, const char *key, const char *text)
{
	add_key(rows, key);
	if (text)
		escape_json(rows, text);
	else
		appendStringInfoString(rows, "null");
}

static void
add_json(StringInfo rows, const char *key, Jsonb *json)
{
	add_key(rows, key);
	if (json)
		(void) JsonbToCString(rows, &json->root, VARSIZE(json));
	else
		appendStringInfoString(rows, "null");
}

static void
add_time(StringInfo rows, const char *key, TimestampTz time)
{
	add_text(rows, key, time != 0 ? library_time(time) : NULL);
}

static void
add_number(StringInfo rows, const char *key, int64 number)
{
	add_key(rows, key);
	appendStringInfo(rows, INT64_FORMAT, number);
}

/* As add_number(), with null for 0. */
static void
add_number_or_null(StringInfo rows, const char *key, int64 number)
{
	if (number != 0)
		add_number(rows, key, number);
	else
		add_text(rows, key, NULL);
}

static void
begin_row(StringInfo rows)
{
	if (rows->len == 0)
		appendStringInfoChar(rows, '[');
	else
		appendStringInfoChar(rows, ',');
	appendStringInfoChar(rows, '{');
}

static void
end_row(StringInfo rows)
{
	appendStringInfoChar(rows, '}');
}

static const char *
end_rows(StringInfo rows)
{
	if (rows->len == 0)
		return "[]";
	appendStringInfoChar(rows, ']');
	return rows->data;
}

/* Queue a statement whose parameter is that document, if it has any row. */
static void
queue_rows(PostgresStore *store, const char *sql, StringInfo rows)
{
	const char *value;

	if (rows->len == 0)
		return;
	value = end_rows(rows);
	postgres_queue(store, library_sql(store, sql), 1, NULL, &value);
}

/* The same with the keys of records. */
static void
queue_keys(PostgresStore *store, const char *sql, const char *const *keys, int count)
{
	const char *value = library_array(keys, count);

	if (count > 0)
		postgres_queue(store, library_sql(store, sql), 1, NULL, &value);
}

/* ---------------------------------------------------------------------- */
/* Sagas */

#define SAGA_ROWS \
	"INSERT INTO @.sagas AS m (saga_id, saga_name, status, context, metadata," \
	" created_at, updated_at) SELECT r.saga_id, r.saga_name, r.status," \
	" coalesce(r.context, 'null'), r.metadata, r.created_at, r.updated_at" \
	" FROM json_to_recordset($1::json) AS r (saga_id text, saga_name text," \
	" status text, context jsonb, metadata jsonb, created_at timestamptz," \
	" updated_at timestamptz) ON CONFLICT (saga_id) DO "

#define REPLACE_SAGA \
	"UPDATE SET saga_name = excluded.saga_name, status = excluded.status," \
	" context = excluded.context, metadata = excluded.metadata," \
	" created_at = excluded.created_at, updated_at = excluded.updated_at"

#define STEP_ROWS \
	"INSERT INTO @.saga_steps (saga_id, step_name, status, result, error," \
	" executed_at, compensated_at, retry_count)" \
	" SELECT r.saga_id, r.name, r.status, r.result, r.error, r.executed_at," \
	" r.compensated_at, r.retry_count FROM json_to_recordset($1::json)" \
	" AS r (saga_id text, name text, status text, result jsonb, error text," \
	" executed_at timestamptz, compensated_at timestamptz, retry_count integer)"

#define SAGA_SIDE_ROWS \
	"INSERT INTO @.sagaz_saga (saga_id, created_at, updated_at, version, steps," \
	" steps_seen) SELECT r.saga_id, r.created_at, r.updated_at, r.version," \
	" r.steps, CASE WHEN r.steps IS NOT NULL THEN t.steps END" \
	" FROM json_to_recordset($1::json) AS r (saga_id text," \
	" created_at timestamptz, updated_at timestamptz, version bigint, steps jsonb)" \
	LIBRARY_STEPS_OF("r") \
	" ON CONFLICT (saga_id) DO UPDATE SET created_at = excluded.created_at," \
	" updated_at = excluded.updated_at, version = excluded.version," \
	" steps = excluded.steps, steps_seen = excluded.steps_seen"

/*
 * All of sagas that are not there.  Steps come in their order, by which they
 * are numbered.
 */
#define FRESH_SAGAS \
	"WITH main AS (" SAGA_ROWS "NOTHING RETURNING m.saga_id)," \
	" steps AS (INSERT INTO @.saga_steps (saga_id, step_name, status, result," \
	" error, executed_at, compensated_at, retry_count)" \
	" SELECT r.saga_id, r.name, r.status, r.result, r.error, r.executed_at," \
	" r.compensated_at, r.retry_count FROM ROWS FROM (" \
	"json_to_recordset($2::json) AS (saga_id text, name text, status text," \
	" result jsonb, error text, executed_at timestamptz," \
	" compensated_at timestamptz, retry_count integer)) WITH ORDINALITY AS r" \
	" (saga_id, name, status, result, error, executed_at, compensated_at," \
	" retry_count, number) WHERE r.saga_id IN (SELECT saga_id FROM main)" \
	" ORDER BY r.number)," \
	" side AS (INSERT INTO @.sagaz_saga (saga_id, created_at, updated_at, version)" \
	" SELECT r.saga_id, r.created_at, r.updated_at, r.version" \
	" FROM json_to_recordset($3::json) AS r (saga_id text," \
	" created_at timestamptz, updated_at timestamptz, version bigint)" \
	" WHERE r.saga_id IN (SELECT saga_id FROM main)" \
	" ON CONFLICT (saga_id) DO UPDATE SET created_at = excluded.created_at," \
	" updated_at = excluded.updated_at, version = excluded.version," \
	" steps = NULL, steps_seen = NULL)" \
	" SELECT saga_id FROM main"

static void
add_sagas(StringInfo rows, SagazRecord *const *records, int count)
{
	for (int i = 0; i < count; i++)
	{
		const SagazSaga *saga = &records[i]->saga;

		begin_row(rows);
		add_text(rows, "saga_id", saga->saga_id);
		add_text(rows, "saga_name", saga->saga_name);
		add_text(rows, "status", saga->status);
		add_json(rows, "context", saga->context);
		add_json(rows, "metadata", saga->metadata);
		add_time(rows, "created_at", saga->created_at);
		add_time(rows, "updated_at", saga->updated_at);
		end_row(rows);
	}
}

static void
queue_sagas(PostgresStore *store, SagazRecord *const *records, int count,
			bool replace)
{
	StringInfoData rows;

	initStringInfo(&rows);
	add_sagas(&rows, records, count);
	queue_rows(store, replace ? SAGA_ROWS REPLACE_SAGA " RETURNING m.saga_id" :
			   SAGA_ROWS "NOTHING RETURNING m.saga_id", &rows);
}

static void
add_step_key(StringInfo rows, JsonbContainer *step, const char *key)
{
	JsonbValue *value = getKeyJsonValueFromContainer(step, key, strlen(key), NULL);

	add_key(rows, key);
	if (value == NULL || value->type == jbvNull)
		appendStringInfoString(rows, "null");
	else if (value->type == jbvString)
		escape_json(rows, pnstrdup(value->val.string.val, value->val.string.len));
	else if (value->type == jbvBinary)
		(void) JsonbToCString(rows, value->val.binary.data, value->val.binary.len);
	else
	{
		Jsonb	   *json = JsonbValueToJsonb(value);

		(void) JsonbToCString(rows, &json->root, VARSIZE(json));
	}
}

/* Rows for the steps; returns whether a step has what they have no place for. */
static bool
add_steps(StringInfo rows, const SagazSaga *saga)
{
	static const char *const normal_keys[] = {
		"name", "status", "error", "executed_at", "compensated_at", "retry_count"
	};
	MemoryContext part = AllocSetContextCreate(CurrentMemoryContext, "sagaz steps",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(part);
	Jsonb	   *steps = sagaz_normal_steps(saga->steps);
	bool		more = false;

	for (int i = 0; i < (int) JB_ROOT_COUNT(steps); i++)
	{
		JsonbContainer *step =
			getIthJsonbValueFromContainer(&steps->root, i)->val.binary.data;
		JsonbContainer *stored =
			getIthJsonbValueFromContainer(&saga->steps->root, i)->val.binary.data;

		begin_row(rows);
		add_text(rows, "saga_id", saga->saga_id);
		for (int k = 0; k < (int) lengthof(normal_keys); k++)
			add_step_key(rows, step, normal_keys[k]);
		/* as it was given: the library tells 1.0 from 1 */
		add_step_key(rows, stored, "result");
		end_row(rows);
		more = more || JsonContainerSize(step) > STEP_KEYS;
	}
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(part);
	return more;
}

/*
 * Rows for steps and for the side table; returns whether the side table has to
 * keep steps, too.
 */
static bool
add_rest_of_sagas(StringInfo steps, StringInfo sides,
				  SagazRecord *const *records, int count)
{
	bool		any = false;

	for (int i = 0; i < count; i++)
	{
		const SagazSaga *saga = &records[i]->saga;
		bool		more = add_steps(steps, saga);

		begin_row(sides);
		add_text(sides, "saga_id", saga->saga_id);
		add_time(sides, "created_at", saga->created_at);
		add_time(sides, "updated_at", saga->updated_at);
		add_number(sides, "version", saga->version);
		add_json(sides, "steps", more ? saga->steps : NULL);
		end_row(sides);
		any = any || more;
	}
	return any;
}

/* Steps, and what is in the side table. */
static void
queue_rest_of_sagas(PostgresStore *store, SagazRecord *const *records, int count)
{
	const char **keys = palloc((count + 1) * sizeof(char *));
	StringInfoData steps;
	StringInfoData sides;

	initStringInfo(&steps);
	initStringInfo(&sides);
	for (int i = 0; i < count; i++)
		keys[i] = records[i]->saga.saga_id;
	(void) add_rest_of_sagas(&steps, &sides, records, count);
	queue_keys(store, "DELETE FROM @.saga_steps WHERE saga_id = ANY ($1::text[])",
			   keys, count);
	queue_rows(store, STEP_ROWS, &steps);
	queue_rows(store, SAGA_SIDE_ROWS, &sides);
}

/* One statement for all of them; false where it takes more than one. */
static bool
queue_fresh_sagas(PostgresStore *store, SagazRecord *const *records, int count)
{
	StringInfoData rows;
	StringInfoData steps;
	StringInfoData sides;
	const char *values[3];

	initStringInfo(&rows);
	initStringInfo(&steps);
	initStringInfo(&sides);
	if (add_rest_of_sagas(&steps, &sides, records, count))
		return false;
	add_sagas(&rows, records, count);
	values[0] = end_rows(&rows);
	values[1] = end_rows(&steps);
	values[2] = end_rows(&sides);
	postgres_queue(store, library_sql(store, FRESH_SAGAS), lengthof(values), NULL, values);
	return true;
}

/* ---------------------------------------------------------------------- */
/* Events */

#define EVENT_ROWS \
	"INSERT INTO @.saga_outbox AS m (event_id, saga_id, aggregate_type," \
	" aggregate_id, event_type, payload, headers, status, created_at," \
	" claimed_at, sent_at, retry_count, last_error, worker_id)" \
	" SELECT r.event_id, r.saga_id, r.aggregate_type, r.aggregate_id," \
	" r.event_type, coalesce(r.payload, 'null'), r.headers, r.status," \
	" r.created_at, r.claimed_at, r.sent_at, r.retry_count, r.last_error," \
	" r.worker_id FROM json_to_recordset($1::json) AS r (event_id uuid," \
	" saga_id text, aggregate_type text, aggregate_id text, event_type text," \
	" payload jsonb, headers jsonb, status text, created_at timestamptz," \
	" claimed_at timestamptz, sent_at timestamptz, retry_count integer," \
	" last_error text, worker_id text) ON CONFLICT (event_id) DO "

#define REPLACE_EVENT \
	"UPDATE SET saga_id = excluded.saga_id," \
	" aggregate_type = excluded.aggregate_type," \
	" aggregate_id = excluded.aggregate_id, event_type = excluded.event_type," \
	" payload = excluded.payload, headers = excluded.headers," \
	" status = excluded.status, created_at = excluded.created_at," \
	" claimed_at = excluded.claimed_at, sent_at = excluded.sent_at," \
	" retry_count = excluded.retry_count, last_error = excluded.last_error," \
	" worker_id = excluded.worker_id"

#define CHANGE_STATES \
	"UPDATE @.saga_outbox AS m SET status = r.status, claimed_at = r.claimed_at," \
	" sent_at = r.sent_at, retry_count = r.retry_count," \
	" last_error = r.last_error, worker_id = r.worker_id" \
	" FROM json_to_recordset($1::json) AS r (event_id uuid, status text," \
	" claimed_at timestamptz, sent_at timestamptz, retry_count integer," \
	" last_error text, worker_id text) WHERE m.event_id = r.event_id"

#define INSERT_EVENT_SIDES \
	"INSERT INTO @.sagaz_event (event_id, created_at, status, claimed_at," \
	" batch_id, lease_until, next_attempt_at, routing_key, partition_key)"

#define REPLACE_EVENT_SIDE \
	" ON CONFLICT (event_id) DO UPDATE" \
	" SET created_at = excluded.created_at, status = excluded.status," \
	" claimed_at = excluded.claimed_at, batch_id = excluded.batch_id," \
	" lease_until = excluded.lease_until," \
	" next_attempt_at = excluded.next_attempt_at," \
	" routing_key = excluded.routing_key, partition_key = excluded.partition_key"

#define EVENT_SIDE_COLUMNS \
	" (event_id uuid, created_at timestamptz, status text," \
	" claimed_at timestamptz, batch_id bigint, lease_until bigint," \
	" next_attempt_at bigint, routing_key text, partition_key text)"

#define EVENT_SIDE_ROWS \
	INSERT_EVENT_SIDES \
	" SELECT * FROM json_to_recordset($1::json) AS r" EVENT_SIDE_COLUMNS \
	REPLACE_EVENT_SIDE

/* All of events that are not there. */
#define FRESH_EVENTS \
	"WITH main AS (" EVENT_ROWS "NOTHING RETURNING m.event_id)," \
	" side AS (" INSERT_EVENT_SIDES \
	" SELECT * FROM json_to_recordset($2::json) AS r" EVENT_SIDE_COLUMNS \
	" WHERE r.event_id IN (SELECT event_id FROM main)" REPLACE_EVENT_SIDE ")," \
	" gone AS (DELETE FROM @.sagaz_event AS s USING main" \
	" WHERE s.event_id = main.event_id AND s.event_id = ANY ($3::uuid[]))" \
	" SELECT event_id FROM main"

static void
add_state(StringInfo rows, const SagazEvent *event)
{
	add_text(rows, "event_id", event->event_id);
	add_text(rows, "status", event->status);
	add_time(rows, "claimed_at", event->claimed_at);
	add_time(rows, "sent_at", event->sent_at);
	add_number(rows, "retry_count", event->retry_count);
	add_text(rows, "last_error", event->last_error);
	add_text(rows, "worker_id", event->worker_id);
}

static void
add_events(StringInfo rows, SagazRecord *const *records, int count)
{
	for (int i = 0; i < count; i++)
	{
		const SagazEvent *event = &records[i]->event;

		begin_row(rows);
		add_state(rows, event);
		add_text(rows, "saga_id", event->saga_id);
		add_text(rows, "aggregate_type", event->aggregate_type);
		add_text(rows, "aggregate_id", event->aggregate_id ?
				 event->aggregate_id : event->saga_id);
		add_text(rows, "event_type", event->event_type);
		add_json(rows, "payload", event->payload);
		add_json(rows, "headers", event->headers);
		add_time(rows, "created_at", event->created_at);
		end_row(rows);
	}
}

static void
queue_events(PostgresStore *store, SagazRecord *const *records, int count,
			 bool replace)
{
	StringInfoData rows;

	initStringInfo(&rows);
	add_events(&rows, records, count);
	queue_rows(store, replace ? EVENT_ROWS REPLACE_EVENT " RETURNING m.event_id" :
			   EVENT_ROWS "NOTHING RETURNING m.event_id", &rows);
}

static bool
needs_side_row(const SagazEvent *event)
{
	return event->batch_id != 0 || event->lease_until != 0 ||
		event->next_attempt_at != 0 || event->routing_key || event->partition_key;
}

static void
add_side_of_event(StringInfo rows, const SagazEvent *event)
{
	begin_row(rows);
	add_text(rows, "event_id", event->event_id);
	add_time(rows, "created_at", event->created_at);
	add_text(rows, "status", event->status);
	add_time(rows, "claimed_at", event->claimed_at);
	add_number_or_null(rows, "batch_id", event->batch_id);
	add_number_or_null(rows, "lease_until", event->lease_until);
	add_number_or_null(rows, "next_attempt_at", event->next_attempt_at);
	add_text(rows, "routing_key", event->routing_key);
	add_text(rows, "partition_key", event->partition_key);
	end_row(rows);
}

/* Rows for the side table, and the ids of those that need none there. */
static int
add_rest_of_events(StringInfo rows, const char **others,
				   SagazRecord *const *records, int count)
{
	int			nothers = 0;

	for (int i = 0; i < count; i++)
	{
		if (needs_side_row(&records[i]->event))
			add_side_of_event(rows, &records[i]->event);
		else
			others[nothers++] = records[i]->event.event_id;
	}
	return nothers;
}

/* A row in the side table, or none, for each event. */
static void
queue_rest_of_events(PostgresStore *store, SagazRecord *const *records, int count)
{
	const char **others = palloc((count + 1) * sizeof(char *));
	StringInfoData rows;
	int			nothers;

	initStringInfo(&rows);
	nothers = add_rest_of_events(&rows, others, records, count);
	queue_keys(store, "DELETE FROM @.sagaz_event WHERE event_id = ANY ($1::uuid[])",
			   others, nothers);
	queue_rows(store, EVENT_SIDE_ROWS, &rows);
}

/* One statement for all of them. */
static void
queue_fresh_events(PostgresStore *store, SagazRecord *const *records, int count)
{
	const char **others = palloc((count + 1) * sizeof(char *));
	StringInfoData rows;
	StringInfoData sides;
	const char *values[3];

	initStringInfo(&rows);
	initStringInfo(&sides);
	add_events(&rows, records, count);
	values[2] = library_array(others, add_rest_of_events(&sides, others, records, count));
	values[1] = end_rows(&sides);
	values[0] = end_rows(&rows);
	postgres_queue(store, library_sql(store, FRESH_EVENTS), lengthof(values), NULL, values);
}

/* ---------------------------------------------------------------------- */
/* Both */

/* One statement for the table of these records; it returns the keys. */
void
library_queue_main(PostgresStore *store, SagazRecord *const *records, int count,
				   bool replace)
{
	if (records[0]->kind == SAGAZ_SAGA)
		queue_sagas(store, records, count, replace);
	else
		queue_events(store, records, count, replace);
}

/*
 * One statement for all of records that are not there; it returns the keys.
 * False, and nothing is queued, where that cannot be said in one.
 */
bool
library_queue_fresh(PostgresStore *store, SagazRecord *const *records, int count)
{
	if (records[0]->kind == SAGAZ_SAGA)
		return queue_fresh_sagas(store, records, count);
	queue_fresh_events(store, records, count);
	return true;
}

/* Statements for all else of records that are in their table. */
void
library_queue_rest(PostgresStore *store, SagazRecord *const *records, int count)
{
	if (count == 0)
		return;
	if (records[0]->kind == SAGAZ_SAGA)
		queue_rest_of_sagas(store, records, count);
	else
		queue_rest_of_events(store, records, count);
}

/* Statements for events that are there and of which only the state changes. */
void
library_queue_states(PostgresStore *store, SagazRecord *const *records, int count)
{
	StringInfoData rows;

	initStringInfo(&rows);
	for (int i = 0; i < count; i++)
	{
		begin_row(&rows);
		add_state(&rows, &records[i]->event);
		end_row(&rows);
	}
	queue_rows(store, CHANGE_STATES, &rows);
	queue_rest_of_events(store, records, count);
}

void
library_queue_removal(PostgresStore *store, SagazKind kind,
					  const char *const *keys, int count)
{
	if (kind == SAGAZ_SAGA)
	{
		queue_keys(store, "DELETE FROM @.sagas WHERE saga_id = ANY ($1::text[])",
				   keys, count);
		queue_keys(store, "DELETE FROM @.sagaz_saga WHERE saga_id = ANY ($1::text[])",
				   keys, count);
		return;
	}
	queue_keys(store, "DELETE FROM @.saga_outbox WHERE event_id = ANY ($1::uuid[])",
			   keys, count);
	queue_keys(store, "DELETE FROM @.sagaz_event WHERE event_id = ANY ($1::uuid[])",
			   keys, count);
}
