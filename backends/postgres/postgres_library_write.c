/*
 * postgres_library_write.c
 *		The Python library's tables in another PostgreSQL database: what is
 *		written there.
 *
 * Rows travel as arrays, and a batch in parts, so that the other end writes one
 * part while we make the next, and takes no more memory than it had for the
 * last.
 */
#include "backends/postgres/postgres_library.h"

#include "catalog/pg_type.h"
#include "utils/numeric.h"

#include "backends/postgres/postgres_columns.h"
#include "backends/record/record.h"
#include "lib/times.h"

#define PART 50					/* records */

/*
 * Statements for records of which none is there come after one that asks for
 * their keys.  What it finds keeps the others from doing anything.
 */
#define FRESH "'sagaz_edit.fresh'"
#define NOTE_THERE "set_config(" FRESH ", 'off', true)"
#define IF_FRESH \
	" coalesce(current_setting(" FRESH ", true), '') <> 'off'"

/* The rows of a table that records come to, any number of them for each. */
typedef struct RowKind
{
	const Oid  *types;
	int			ntypes;
	void		(*add) (PostgresColumn *columns, const SagazRecord *record);
} RowKind;

/* Queue a statement for these rows, if there are any. */
static void
queue_rows(PostgresStore *store, const char *sql, const RowKind *kind,
		   SagazRecord *const *records, int count)
{
	PostgresColumn *columns = postgres_columns(kind->types, kind->ntypes);
	bool		is_prepared = false;

	for (int from = 0; from < count; from += PART)
	{
		postgres_clear_columns(columns, kind->ntypes);
		for (int i = from; i < Min(from + PART, count); i++)
			kind->add(columns, records[i]);
		if (columns->count == 0)
			continue;
		if (!is_prepared)
			postgres_prepare_columns(store, library_sql(store, sql), columns, kind->ntypes);
		is_prepared = true;
		postgres_queue_columns(store, columns, kind->ntypes);
	}
}

/* Queue a statement for the keys of all records, at once. */
static void
queue_key_column(PostgresStore *store, const char *sql, PostgresColumn *keys)
{
	postgres_prepare_columns(store, library_sql(store, sql), keys, 1);
	postgres_queue_columns(store, keys, 1);
}

/* Queue a statement with the keys of records. */
static void
queue_keys(PostgresStore *store, const char *sql, const char *const *keys, int count)
{
	const char *value = postgres_text_array(keys, count);

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

static void
add_saga(PostgresColumn *column, const SagazRecord *record)
{
	const SagazSaga *saga = &record->saga;

	postgres_add_text(column++, saga->saga_id);
	postgres_add_text(column++, saga->saga_name);
	postgres_add_text(column++, saga->status);
	add_document(column++, saga->context);
	postgres_add_json(column++, saga->metadata);
	postgres_add_time(column++, saga->created_at);
	postgres_add_time(column++, saga->updated_at);
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
	add_string(column++, sagaz_normal_step_value(step, "name", &buffer));
	value = sagaz_normal_step_value(step, "status", &buffer);
	if (value)
		add_string(column++, value);
	else
		postgres_add_text(column++, "pending");
	/* as it was given: the library tells 1.0 from 1 */
	postgres_add_json_value(column++, sagaz_normal_step_value(step, "result", &buffer));
	add_string(column++, sagaz_normal_step_value(step, "error", &buffer));
	add_step_time(column++, sagaz_normal_step_value(step, "executed_at", &buffer));
	add_step_time(column++, sagaz_normal_step_value(step, "compensated_at", &buffer));
	value = sagaz_normal_step_value(step, "retry_count", &buffer);
	postgres_add_number(column++, value ? numeric_int4_opt_error(value->val.numeric, NULL) : 0);
}

/* They have been found to fit. */
static void
add_steps(PostgresColumn *columns, const SagazRecord *record)
{
	JsonbContainer *steps = &record->saga.steps->root;

	for (int i = 0; i < (int) JsonContainerSize(steps); i++)
		add_step(columns, record->saga.saga_id,
				 getIthJsonbValueFromContainer(steps, i)->val.binary.data);
}

/* Has a step what their table has no place for? */
static bool
has_more(const SagazSaga *saga)
{
	JsonbContainer *steps = &saga->steps->root;

	for (int i = 0; i < (int) JsonContainerSize(steps); i++)
		if (sagaz_normal_step_has_more(getIthJsonbValueFromContainer(steps, i)->val.binary.data))
			return true;
	return false;
}

static void
add_saga_side(PostgresColumn *column, const SagazRecord *record)
{
	const SagazSaga *saga = &record->saga;

	postgres_add_text(column++, saga->saga_id);
	postgres_add_time(column++, saga->created_at);
	postgres_add_time(column++, saga->updated_at);
	postgres_add_number(column++, saga->version);
	postgres_add_json(column++, has_more(saga) ? saga->steps : NULL);
}

/* What has no row in the side table is of version 1. */
static void
add_saga_side_if_needed(PostgresColumn *columns, const SagazRecord *record)
{
	if (record->saga.version > 1 || has_more(&record->saga))
		add_saga_side(columns, record);
}

static const RowKind saga_rows = {saga_types, lengthof(saga_types), add_saga};
static const RowKind step_rows = {step_types, lengthof(step_types), add_steps};
static const RowKind saga_side_rows = {
	saga_side_types, lengthof(saga_side_types), add_saga_side
};
static const RowKind needed_saga_side_rows = {
	saga_side_types, lengthof(saga_side_types), add_saga_side_if_needed
};

static PostgresColumn *
saga_ids(SagazRecord *const *records, int count)
{
	PostgresColumn *ids = postgres_columns(saga_types, 1);

	for (int i = 0; i < count; i++)
		postgres_add_text(ids, records[i]->saga.saga_id);
	return ids;
}

/* Steps, and what is in the side table. */
static void
queue_rest_of_sagas(PostgresStore *store, SagazRecord *const *records, int count)
{
	queue_key_column(store, "DELETE FROM @.saga_steps WHERE saga_id = ANY ($1)",
					 saga_ids(records, count));
	queue_rows(store, INSERT_STEPS, &step_rows, records, count);
	queue_rows(store, INSERT_SAGA_SIDES REPLACE_SAGA_SIDE, &saga_side_rows,
			   records, count);
}

static void
queue_fresh_sagas(PostgresStore *store, SagazRecord *const *records, int count)
{
	PostgresColumn *ids = saga_ids(records, count);

	queue_key_column(store, "SELECT m.saga_id, " NOTE_THERE " FROM @.sagas AS m"
					 " WHERE m.saga_id = ANY ($1)", ids);
	queue_key_column(store, "DELETE FROM @.sagaz_saga WHERE saga_id = ANY ($1)"
					 " AND" IF_FRESH, ids);
	queue_rows(store, INSERT_SAGAS " WHERE" IF_FRESH, &saga_rows, records, count);
	queue_rows(store, INSERT_STEPS " WHERE" IF_FRESH, &step_rows, records, count);
	queue_rows(store, INSERT_SAGA_SIDES " WHERE" IF_FRESH, &needed_saga_side_rows,
			   records, count);
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

static void
add_only_state(PostgresColumn *columns, const SagazRecord *record)
{
	(void) add_state(columns, &record->event);
}

static void
add_event(PostgresColumn *columns, const SagazRecord *record)
{
	const SagazEvent *event = &record->event;
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

static bool
needs_side_row(const SagazEvent *event)
{
	return event->batch_id != 0 || event->lease_until != 0 ||
		event->next_attempt_at != 0 || event->routing_key || event->partition_key;
}

static void
add_event_side(PostgresColumn *column, const SagazRecord *record)
{
	const SagazEvent *event = &record->event;

	if (!needs_side_row(event))
		return;
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

static const RowKind state_rows = {state_types, lengthof(state_types), add_only_state};
static const RowKind event_rows = {event_types, lengthof(event_types), add_event};
static const RowKind event_side_rows = {
	event_side_types, lengthof(event_side_types), add_event_side
};

/* The ids of all events, or of those alone that need no row in the side table. */
static PostgresColumn *
event_ids(SagazRecord *const *records, int count, bool all)
{
	PostgresColumn *ids = postgres_columns(event_types, 1);

	for (int i = 0; i < count; i++)
		if (all || !needs_side_row(&records[i]->event))
			postgres_add_uuid(ids, records[i]->event.event_id);
	return ids;
}

/* A row in the side table, or none, for each event. */
static void
queue_rest_of_events(PostgresStore *store, SagazRecord *const *records, int count)
{
	PostgresColumn *others = event_ids(records, count, false);

	if (others->count > 0)
		queue_key_column(store, "DELETE FROM @.sagaz_event WHERE event_id = ANY ($1)",
						 others);
	queue_rows(store, INSERT_EVENT_SIDES REPLACE_EVENT_SIDE, &event_side_rows,
			   records, count);
}

static void
queue_fresh_events(PostgresStore *store, SagazRecord *const *records, int count)
{
	PostgresColumn *ids = event_ids(records, count, true);

	queue_key_column(store, "SELECT m.event_id, " NOTE_THERE " FROM @.saga_outbox AS m"
					 " WHERE m.event_id = ANY ($1)", ids);
	queue_key_column(store, "DELETE FROM @.sagaz_event WHERE event_id = ANY ($1)"
					 " AND" IF_FRESH, ids);
	queue_rows(store, INSERT_EVENTS " WHERE" IF_FRESH, &event_rows, records, count);
	queue_rows(store, INSERT_EVENT_SIDES " WHERE" IF_FRESH, &event_side_rows,
			   records, count);
}

/* ---------------------------------------------------------------------- */
/* Both */

/* The table of these records, where what is there stays or is replaced. */
void
library_queue_main(PostgresStore *store, SagazRecord *const *records, int count,
				   bool replace)
{
	if (records[0]->kind == SAGAZ_SAGA)
		queue_rows(store, replace ? INSERT_SAGAS REPLACE_SAGA :
				   INSERT_SAGAS SAGA_IF_MISSING, &saga_rows, records, count);
	else
		queue_rows(store, replace ? INSERT_EVENTS REPLACE_EVENT :
				   INSERT_EVENTS EVENT_IF_MISSING, &event_rows, records, count);
}

/*
 * All of records of which none is there, else nothing is changed.  The result
 * at LIBRARY_THERE has the keys that are there.  They are looked up by an
 * index, whatever the planner knows of the table, and no statement is planned
 * for what its arrays hold.
 */
void
library_queue_fresh(PostgresStore *store, SagazRecord *const *records, int count)
{
	postgres_queue(store, "SELECT set_config('enable_seqscan', 'off', true),"
				   " set_config('plan_cache_mode', 'force_generic_plan', true)",
				   0, NULL, NULL);
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
	queue_rows(store, CHANGE_STATES, &state_rows, records, count);
	queue_rest_of_events(store, records, count);
}

/* Queued alone, no exchange; the result of the first statement counts. */
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
