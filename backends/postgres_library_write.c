/*
 * postgres_library_write.c
 *		The Python library's tables in another PostgreSQL database: what is
 *		written there.
 *
 * Rows travel as arrays, so that a statement writes all of a batch.
 */
#include "postgres_library.h"

#include "catalog/pg_type.h"
#include "utils/memutils.h"

#include "postgres_columns.h"
#include "record.h"
#include "times.h"

/*
 * Statements for records of which none is there come after one that asks for
 * their keys.  What it finds keeps the others from doing anything.
 */
#define FRESH "'sagaz_edit.fresh'"
#define NOTE_THERE "set_config(" FRESH ", 'off', true)"
#define IF_FRESH \
	" coalesce(current_setting(" FRESH ", true), '') <> 'off'"

/* A planner that knows the array takes long to judge what it matches. */
#define IN_KEYS(type) "= ANY ((SELECT $1)::" type ")"

/* Queue a statement whose parameters are columns, if they have any row. */
static void
queue(PostgresStore *store, const char *sql, PostgresColumn *columns, int count)
{
	if (columns->count > 0)
		postgres_queue_columns(store, library_sql(store, sql), columns, count);
}

#define QUEUE(store, sql, columns, types) queue(store, sql, columns, lengthof(types))

/* Queue a statement with the keys of records. */
static void
queue_keys(PostgresStore *store, const char *sql, const char *const *keys, int count)
{
	const char *value = library_array(keys, count);

	if (count > 0)
		postgres_queue(store, library_sql(store, sql), 1, NULL, &value);
}

/* ---------------------------------------------------------------------- */
/* Sagas */

static const Oid saga_types[] = {
	TEXTOID, TEXTOID, TEXTOID, JSONBOID, JSONBOID, TIMESTAMPTZOID, TIMESTAMPTZOID
};

#define INSERT_SAGAS \
	"INSERT INTO @.sagas AS m (saga_id, saga_name, status, context, metadata," \
	" created_at, updated_at) SELECT unnest($1), unnest($2), unnest($3)," \
	" unnest($4), unnest($5), unnest($6), unnest($7)"

#define SAGA_IF_MISSING \
	" ON CONFLICT (saga_id) DO NOTHING RETURNING m.saga_id"

#define REPLACE_SAGA \
	" ON CONFLICT (saga_id) DO UPDATE SET saga_name = excluded.saga_name, status = excluded.status," \
	" context = excluded.context, metadata = excluded.metadata," \
	" created_at = excluded.created_at, updated_at = excluded.updated_at"

static const Oid step_types[] = {
	TEXTOID, TEXTOID, TEXTOID, JSONBOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
	INT4OID
};

#define INSERT_STEPS \
	"INSERT INTO @.saga_steps (saga_id, step_name, status, result, error," \
	" executed_at, compensated_at, retry_count)" \
	" SELECT unnest($1), unnest($2), unnest($3), unnest($4), unnest($5)," \
	" unnest($6), unnest($7), unnest($8)"

static const Oid saga_side_types[] = {
	TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, JSONBOID
};

#define INSERT_SAGA_SIDES \
	"INSERT INTO @.sagaz_saga (saga_id, created_at, updated_at, version, steps," \
	" steps_seen) SELECT r.saga_id, r.created_at, r.updated_at, r.version," \
	" r.steps, CASE WHEN r.steps IS NOT NULL THEN (SELECT " LIBRARY_STEPS_OF("r") ") END" \
	" FROM (SELECT unnest($1) AS saga_id, unnest($2) AS created_at," \
	" unnest($3) AS updated_at, unnest($4) AS version, unnest($5) AS steps) AS r"

#define REPLACE_SAGA_SIDE \
	" ON CONFLICT (saga_id) DO UPDATE SET created_at = excluded.created_at," \
	" updated_at = excluded.updated_at, version = excluded.version," \
	" steps = excluded.steps, steps_seen = excluded.steps_seen"

/* A column must have a document. */
static void
add_document(PostgresColumn *column, const Jsonb *json)
{
	if (json)
		postgres_add_json(column, json);
	else
		postgres_add_bytes(column, "\1null", 5);
}

static PostgresColumn *
saga_columns(SagazRecord *const *records, int count)
{
	PostgresColumn *columns = postgres_columns(saga_types, lengthof(saga_types));

	for (int i = 0; i < count; i++)
	{
		const SagazSaga *saga = &records[i]->saga;
		PostgresColumn *column = columns;

		postgres_add_text(column++, saga->saga_id);
		postgres_add_text(column++, saga->saga_name);
		postgres_add_text(column++, saga->status);
		add_document(column++, saga->context);
		postgres_add_json(column++, saga->metadata);
		postgres_add_time(column++, saga->created_at);
		postgres_add_time(column++, saga->updated_at);
	}
	return columns;
}

static void
add_string(PostgresColumn *column, const JsonbValue *value)
{
	if (value)
		postgres_add_bytes(column, value->val.string.val, value->val.string.len);
	else
		postgres_add_text(column, NULL);
}

static void
add_step_time(PostgresColumn *column, const JsonbValue *value)
{
	TimestampTz time = 0;

	if (value && sagaz_parse_time(value->val.string.val, value->val.string.len, &time))
		time = sagaz_record_time(time);
	postgres_add_time(column, time);
}

static void
add_step(PostgresColumn *column, const char *saga_id, JsonbContainer *step)
{
	JsonbValue	buffer;
	JsonbValue *value;

	postgres_add_text(column++, saga_id);
	add_string(column++, sagaz_step_value(step, "name", &buffer));
	value = sagaz_step_value(step, "status", &buffer);
	if (value)
		add_string(column++, value);
	else
		postgres_add_text(column++, "pending");
	/* as it was given: the library tells 1.0 from 1 */
	postgres_add_json_value(column++, sagaz_step_value(step, "result", &buffer));
	add_string(column++, sagaz_step_value(step, "error", &buffer));
	add_step_time(column++, sagaz_step_value(step, "executed_at", &buffer));
	add_step_time(column++, sagaz_step_value(step, "compensated_at", &buffer));
	value = sagaz_step_value(step, "retry_count", &buffer);
	postgres_add_number(column++, value ? numeric_int4_opt_error(value->val.numeric, NULL) : 0);
}

/* Rows for steps and for the side table, of sagas. */
typedef struct SagaRest
{
	PostgresColumn *steps;
	PostgresColumn *sides;
} SagaRest;

/*
 * The steps have been found to fit.  Returns whether one has what their table
 * has no place for.
 */
static bool
add_steps(PostgresColumn *columns, const SagazSaga *saga)
{
	bool		more = false;

	for (int i = 0; i < (int) JB_ROOT_COUNT(saga->steps); i++)
	{
		JsonbValue *step = getIthJsonbValueFromContainer(&saga->steps->root, i);

		add_step(columns, saga->saga_id, step->val.binary.data);
		more = more || sagaz_step_has_more(step->val.binary.data);
	}
	return more;
}

/*
 * What is not in the side table is of version 1; where a row may be there it
 * is replaced.
 */
static SagaRest
rest_of_sagas(SagazRecord *const *records, int count, bool all_sides)
{
	SagaRest	rest = {
		postgres_columns(step_types, lengthof(step_types)),
		postgres_columns(saga_side_types, lengthof(saga_side_types))
	};

	for (int i = 0; i < count; i++)
	{
		const SagazSaga *saga = &records[i]->saga;
		bool		more = add_steps(rest.steps, saga);
		PostgresColumn *column = rest.sides;

		if (!more && saga->version <= 1 && !all_sides)
			continue;
		postgres_add_text(column++, saga->saga_id);
		postgres_add_time(column++, saga->created_at);
		postgres_add_time(column++, saga->updated_at);
		postgres_add_number(column++, saga->version);
		postgres_add_json(column++, more ? saga->steps : NULL);
	}
	return rest;
}

static void
queue_sagas(PostgresStore *store, SagazRecord *const *records, int count,
			bool replace)
{
	QUEUE(store, replace ? INSERT_SAGAS REPLACE_SAGA : INSERT_SAGAS SAGA_IF_MISSING,
		  saga_columns(records, count), saga_types);
}

/* Steps, and what is in the side table. */
static void
queue_rest_of_sagas(PostgresStore *store, SagazRecord *const *records, int count)
{
	const char **keys = palloc((count + 1) * sizeof(char *));
	SagaRest	rest = rest_of_sagas(records, count, true);

	for (int i = 0; i < count; i++)
		keys[i] = records[i]->saga.saga_id;
	queue_keys(store, "DELETE FROM @.saga_steps WHERE saga_id = ANY ($1::text[])",
			   keys, count);
	QUEUE(store, INSERT_STEPS, rest.steps, step_types);
	QUEUE(store, INSERT_SAGA_SIDES REPLACE_SAGA_SIDE, rest.sides, saga_side_types);
}

static void
queue_fresh_sagas(PostgresStore *store, SagazRecord *const *records, int count)
{
	PostgresColumn *columns = saga_columns(records, count);
	SagaRest	rest = rest_of_sagas(records, count, false);

	queue(store, "SELECT m.saga_id, " NOTE_THERE " FROM @.sagas AS m"
		  " WHERE m.saga_id " IN_KEYS("text[]"), columns, 1);
	queue(store, "DELETE FROM @.sagaz_saga WHERE saga_id " IN_KEYS("text[]")
		  " AND" IF_FRESH, columns, 1);
	QUEUE(store, INSERT_SAGAS " WHERE" IF_FRESH, columns, saga_types);
	QUEUE(store, INSERT_STEPS " WHERE" IF_FRESH, rest.steps, step_types);
	QUEUE(store, INSERT_SAGA_SIDES " WHERE" IF_FRESH, rest.sides, saga_side_types);
}

/* ---------------------------------------------------------------------- */
/* Events */

#define STATE_TYPES \
	UUIDOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID, TEXTOID, TEXTOID

static const Oid state_types[] = {STATE_TYPES};

#define CHANGE_STATES \
	"UPDATE @.saga_outbox AS m SET status = r.status, claimed_at = r.claimed_at," \
	" sent_at = r.sent_at, retry_count = r.retry_count," \
	" last_error = r.last_error, worker_id = r.worker_id" \
	" FROM (SELECT unnest($1) AS event_id, unnest($2) AS status," \
	" unnest($3) AS claimed_at, unnest($4) AS sent_at," \
	" unnest($5) AS retry_count, unnest($6) AS last_error," \
	" unnest($7) AS worker_id) AS r WHERE m.event_id = r.event_id"

static const Oid event_types[] = {
	STATE_TYPES, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, JSONBOID,
	TIMESTAMPTZOID
};

#define INSERT_EVENTS \
	"INSERT INTO @.saga_outbox AS m (event_id, status, claimed_at, sent_at," \
	" retry_count, last_error, worker_id, saga_id, aggregate_type," \
	" aggregate_id, event_type, payload, headers, created_at)" \
	" SELECT unnest($1), unnest($2), unnest($3), unnest($4), unnest($5)," \
	" unnest($6), unnest($7), unnest($8), unnest($9), unnest($10)," \
	" unnest($11), unnest($12), unnest($13), unnest($14)"

#define EVENT_IF_MISSING \
	" ON CONFLICT (event_id) DO NOTHING RETURNING m.event_id"

#define REPLACE_EVENT \
	" ON CONFLICT (event_id) DO UPDATE SET saga_id = excluded.saga_id," \
	" aggregate_type = excluded.aggregate_type," \
	" aggregate_id = excluded.aggregate_id, event_type = excluded.event_type," \
	" payload = excluded.payload, headers = excluded.headers," \
	" status = excluded.status, created_at = excluded.created_at," \
	" claimed_at = excluded.claimed_at, sent_at = excluded.sent_at," \
	" retry_count = excluded.retry_count, last_error = excluded.last_error," \
	" worker_id = excluded.worker_id"

static const Oid event_side_types[] = {
	UUIDOID, TIMESTAMPTZOID, TEXTOID, TIMESTAMPTZOID, INT8OID, INT8OID, INT8OID,
	TEXTOID, TEXTOID
};

#define INSERT_EVENT_SIDES \
	"INSERT INTO @.sagaz_event (event_id, created_at, status, claimed_at," \
	" batch_id, lease_until, next_attempt_at, routing_key, partition_key)" \
	" SELECT unnest($1), unnest($2), unnest($3), unnest($4), unnest($5)," \
	" unnest($6), unnest($7), unnest($8), unnest($9)"

#define REPLACE_EVENT_SIDE \
	" ON CONFLICT (event_id) DO UPDATE" \
	" SET created_at = excluded.created_at, status = excluded.status," \
	" claimed_at = excluded.claimed_at, batch_id = excluded.batch_id," \
	" lease_until = excluded.lease_until," \
	" next_attempt_at = excluded.next_attempt_at," \
	" routing_key = excluded.routing_key, partition_key = excluded.partition_key"

/* Returns the next column. */
static PostgresColumn *
add_state(PostgresColumn *column, const SagazEvent *event)
{
	postgres_add_uuid(column++, event->event_id);
	postgres_add_text(column++, event->status);
	postgres_add_time(column++, event->claimed_at);
	postgres_add_time(column++, event->sent_at);
	postgres_add_number(column++, event->retry_count);
	postgres_add_text(column++, event->last_error);
	postgres_add_text(column++, event->worker_id);
	return column;
}

static PostgresColumn *
event_columns(SagazRecord *const *records, int count)
{
	PostgresColumn *columns = postgres_columns(event_types, lengthof(event_types));

	for (int i = 0; i < count; i++)
	{
		const SagazEvent *event = &records[i]->event;
		PostgresColumn *column = add_state(columns, event);

		postgres_add_text(column++, event->saga_id);
		postgres_add_text(column++, event->aggregate_type);
		postgres_add_text(column++, event->aggregate_id ?
						  event->aggregate_id : event->saga_id);
		postgres_add_text(column++, event->event_type);
		add_document(column++, event->payload);
		postgres_add_json(column++, event->headers);
		postgres_add_time(column++, event->created_at);
	}
	return columns;
}

static void
queue_events(PostgresStore *store, SagazRecord *const *records, int count,
			 bool replace)
{
	QUEUE(store, replace ? INSERT_EVENTS REPLACE_EVENT : INSERT_EVENTS EVENT_IF_MISSING,
		  event_columns(records, count), event_types);
}

static bool
needs_side_row(const SagazEvent *event)
{
	return event->batch_id != 0 || event->lease_until != 0 ||
		event->next_attempt_at != 0 || event->routing_key || event->partition_key;
}

static void
add_event_side(PostgresColumn *column, const SagazEvent *event)
{
	postgres_add_uuid(column++, event->event_id);
	postgres_add_time(column++, event->created_at);
	postgres_add_text(column++, event->status);
	postgres_add_time(column++, event->claimed_at);
	postgres_add_number_or_null(column++, event->batch_id);
	postgres_add_number_or_null(column++, event->lease_until);
	postgres_add_number_or_null(column++, event->next_attempt_at);
	postgres_add_text(column++, event->routing_key);
	postgres_add_text(column++, event->partition_key);
}

/* Rows for the side table; the ids of those that need none there go to others. */
static PostgresColumn *
event_side_columns(SagazRecord *const *records, int count, const char **others,
				   int *nothers)
{
	PostgresColumn *columns = postgres_columns(event_side_types,
											   lengthof(event_side_types));

	*nothers = 0;
	for (int i = 0; i < count; i++)
	{
		if (needs_side_row(&records[i]->event))
			add_event_side(columns, &records[i]->event);
		else
			others[(*nothers)++] = records[i]->event.event_id;
	}
	return columns;
}

/* A row in the side table, or none, for each event. */
static void
queue_rest_of_events(PostgresStore *store, SagazRecord *const *records, int count)
{
	const char **others = palloc((count + 1) * sizeof(char *));
	int			nothers;
	PostgresColumn *sides = event_side_columns(records, count, others, &nothers);

	queue_keys(store, "DELETE FROM @.sagaz_event WHERE event_id = ANY ($1::uuid[])",
			   others, nothers);
	QUEUE(store, INSERT_EVENT_SIDES REPLACE_EVENT_SIDE, sides, event_side_types);
}

static void
queue_fresh_events(PostgresStore *store, SagazRecord *const *records, int count)
{
	const char **others = palloc((count + 1) * sizeof(char *));
	int			nothers;
	PostgresColumn *columns = event_columns(records, count);
	PostgresColumn *sides = event_side_columns(records, count, others, &nothers);

	queue(store, "SELECT m.event_id, " NOTE_THERE " FROM @.saga_outbox AS m"
		  " WHERE m.event_id " IN_KEYS("uuid[]"), columns, 1);
	queue(store, "DELETE FROM @.sagaz_event WHERE event_id " IN_KEYS("uuid[]")
		  " AND" IF_FRESH, columns, 1);
	QUEUE(store, INSERT_EVENTS " WHERE" IF_FRESH, columns, event_types);
	QUEUE(store, INSERT_EVENT_SIDES " WHERE" IF_FRESH, sides, event_side_types);
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
 * Statements for all of records of which none is there, else they change
 * nothing.  The result at LIBRARY_THERE has the keys that are there.  The
 * keys are looked up by an index, whatever the planner knows of the table.
 */
void
library_queue_fresh(PostgresStore *store, SagazRecord *const *records, int count)
{
	postgres_queue(store, "SELECT set_config('enable_seqscan', 'off', true)", 0, NULL, NULL);
	if (records[0]->kind == SAGAZ_SAGA)
		queue_fresh_sagas(store, records, count);
	else
		queue_fresh_events(store, records, count);
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
	PostgresColumn *columns = postgres_columns(state_types, lengthof(state_types));

	for (int i = 0; i < count; i++)
		(void) add_state(columns, &records[i]->event);
	QUEUE(store, CHANGE_STATES, columns, state_types);
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
