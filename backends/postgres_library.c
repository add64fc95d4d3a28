/*
 * postgres_library.c
 *		Storages in another PostgreSQL database that has the Python library's
 *		own tables: sagas, saga_steps and saga_outbox.
 *
 * What these have no place for (versions, keys of steps that the library does
 * not know, batches, leases, next attempts, the two keys of events) is in side
 * tables, sagaz_saga and sagaz_event, which are made with the first write.  A
 * database is not changed before that.
 *
 * A write is a few statements over all its records, which go there as one
 * document, in one transaction of the other server.
 */
#include "postgres_sql.h"

#include "catalog/pg_collation.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "record.h"

/* As the library's columns are. */
#define MAX_NAME 255
#define MAX_STATUS 50

static const char *const make_sagas[] = {
	"CREATE TABLE IF NOT EXISTS %s.sagas (saga_id varchar(255) PRIMARY KEY,"
	" saga_name varchar(255) NOT NULL, status varchar(50) NOT NULL, context jsonb,"
	" metadata jsonb, created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now())",
	"CREATE TABLE IF NOT EXISTS %s.saga_steps (id serial PRIMARY KEY,"
	" saga_id varchar(255) REFERENCES %s.sagas ON DELETE CASCADE,"
	" step_name varchar(255) NOT NULL, status varchar(50) NOT NULL, result jsonb,"
	" error text, executed_at timestamptz, compensated_at timestamptz,"
	" retry_count integer DEFAULT 0, UNIQUE (saga_id, step_name))",
	"CREATE INDEX IF NOT EXISTS idx_sagas_status ON %s.sagas (status)",
	"CREATE INDEX IF NOT EXISTS idx_sagas_name ON %s.sagas (saga_name)",
	"CREATE INDEX IF NOT EXISTS idx_sagas_created_at ON %s.sagas (created_at)",
	"CREATE INDEX IF NOT EXISTS idx_saga_steps_saga_id ON %s.saga_steps (saga_id)",
	"CREATE INDEX IF NOT EXISTS idx_saga_steps_status ON %s.saga_steps (status)",
	NULL
};
static const char *const make_events[] = {
	"CREATE TABLE IF NOT EXISTS %s.saga_outbox (event_id uuid PRIMARY KEY,"
	" saga_id varchar(255) NOT NULL, aggregate_type varchar(255) NOT NULL DEFAULT 'saga',"
	" aggregate_id varchar(255) NOT NULL, event_type varchar(255) NOT NULL,"
	" payload jsonb NOT NULL, headers jsonb NOT NULL DEFAULT '{}',"
	" status varchar(50) NOT NULL DEFAULT 'pending', created_at timestamptz NOT NULL DEFAULT now(),"
	" claimed_at timestamptz, sent_at timestamptz, retry_count integer NOT NULL DEFAULT 0,"
	" last_error text, worker_id varchar(255), CONSTRAINT valid_status CHECK"
	" (status IN ('pending', 'claimed', 'sent', 'failed', 'dead_letter')))",
	"CREATE INDEX IF NOT EXISTS idx_outbox_pending ON %s.saga_outbox (created_at) WHERE status = 'pending'",
	"CREATE INDEX IF NOT EXISTS idx_outbox_claimed_at ON %s.saga_outbox (claimed_at) WHERE status = 'claimed'",
	"CREATE INDEX IF NOT EXISTS idx_outbox_saga_id ON %s.saga_outbox (saga_id)",
	NULL
};
static const char *const *const make_tables[] = {make_sagas, make_events};
static const char *const make_side[][3] = {
	{"CREATE TABLE IF NOT EXISTS %s.sagaz_saga (saga_id varchar(255) PRIMARY KEY,"
		" version bigint NOT NULL, updated_at timestamptz NOT NULL, steps jsonb)", NULL},
	{"CREATE TABLE IF NOT EXISTS %s.sagaz_event (event_id uuid PRIMARY KEY,"
		" batch_id bigint, lease_until bigint, next_attempt_at bigint,"
		" routing_key text, partition_key text)",
	"CREATE INDEX IF NOT EXISTS sagaz_event_batch ON %s.sagaz_event (batch_id) WHERE batch_id IS NOT NULL", NULL}
};

/* $1 is an array of the records; each statement is for one schema. */
static const char *const write_sagas[] = {
	"DELETE FROM %s.saga_steps WHERE saga_id IN (SELECT r->>'saga_id'"
	" FROM pg_catalog.jsonb_array_elements($1::jsonb) AS r)",
	"INSERT INTO %s.saga_steps (saga_id, step_name, status, result, error,"
	" executed_at, compensated_at, retry_count)"
	" SELECT r.value->>'saga_id', s.value->>'name', s.value->>'status',"
	" nullif(s.value->'result', 'null'), s.value->>'error',"
	" (s.value->>'executed_at')::timestamptz, (s.value->>'compensated_at')::timestamptz,"
	" (s.value->>'retry_count')::integer"
	" FROM pg_catalog.jsonb_array_elements($1::jsonb) WITH ORDINALITY AS r (value, n),"
	" pg_catalog.jsonb_array_elements(r.value->'steps') WITH ORDINALITY AS s (value, n)"
	" ORDER BY r.n, s.n",
	"INSERT INTO %s.sagaz_saga (saga_id, version, updated_at, steps)"
	" SELECT r->>'saga_id', (r->>'version')::bigint, (r->>'updated_at')::timestamptz, r->'whole_steps'"
	" FROM pg_catalog.jsonb_array_elements($1::jsonb) AS r"
	" ON CONFLICT (saga_id) DO UPDATE SET version = excluded.version,"
	" updated_at = excluded.updated_at, steps = excluded.steps",
	NULL
};
static const char *const write_events[] = {
	"DELETE FROM %s.sagaz_event WHERE event_id IN (SELECT (r->>'event_id')::uuid"
	" FROM pg_catalog.jsonb_array_elements($1::jsonb) AS r)",
	"INSERT INTO %s.sagaz_event (event_id, batch_id, lease_until, next_attempt_at,"
	" routing_key, partition_key)"
	" SELECT (r->>'event_id')::uuid, (r->>'batch_id')::bigint, (r->>'lease_until')::bigint,"
	" (r->>'next_attempt_at')::bigint, r->>'routing_key', r->>'partition_key'"
	" FROM pg_catalog.jsonb_array_elements($1::jsonb) AS r"
	" WHERE r ?| '{batch_id,lease_until,next_attempt_at,routing_key,partition_key}'",
	NULL
};
static const char *const *const write_rest[] = {write_sagas, write_events};

/* The main row, and how a key that is there is dealt with. */
static const char *const write_main[] = {
	"INSERT INTO %s.sagas AS m (saga_id, saga_name, status, context, metadata, created_at, updated_at)"
	" SELECT r->>'saga_id', r->>'saga_name', r->>'status', r->'context', r->'metadata',"
	" (r->>'created_at')::timestamptz, (r->>'updated_at')::timestamptz"
	" FROM pg_catalog.jsonb_array_elements($1::jsonb) AS r",
	"INSERT INTO %s.saga_outbox AS m (event_id, saga_id, aggregate_type, aggregate_id,"
	" event_type, payload, headers, status, created_at, claimed_at, sent_at,"
	" retry_count, last_error, worker_id)"
	" SELECT (r->>'event_id')::uuid, r->>'saga_id', r->>'aggregate_type', r->>'aggregate_id',"
	" r->>'event_type', r->'payload', r->'headers', r->>'status',"
	" (r->>'created_at')::timestamptz, (r->>'claimed_at')::timestamptz,"
	" (r->>'sent_at')::timestamptz, (r->>'retry_count')::integer, r->>'last_error', r->>'worker_id'"
	" FROM pg_catalog.jsonb_array_elements($1::jsonb) AS r"
};
static const char *const replace_main[] = {
	" ON CONFLICT (saga_id) DO UPDATE SET saga_name = excluded.saga_name,"
	" status = excluded.status, context = excluded.context, metadata = excluded.metadata,"
	" created_at = excluded.created_at, updated_at = excluded.updated_at",
	" ON CONFLICT (event_id) DO UPDATE SET saga_id = excluded.saga_id,"
	" aggregate_type = excluded.aggregate_type, aggregate_id = excluded.aggregate_id,"
	" event_type = excluded.event_type, payload = excluded.payload, headers = excluded.headers,"
	" status = excluded.status, created_at = excluded.created_at, claimed_at = excluded.claimed_at,"
	" sent_at = excluded.sent_at, retry_count = excluded.retry_count,"
	" last_error = excluded.last_error, worker_id = excluded.worker_id"
};
static const char *const removals[][4] = {
	{"DELETE FROM %s.saga_steps WHERE saga_id IN (SELECT pg_catalog.jsonb_array_elements_text($1::jsonb))",
		"DELETE FROM %s.sagas WHERE saga_id IN (SELECT pg_catalog.jsonb_array_elements_text($1::jsonb))",
	"DELETE FROM %s.sagaz_saga WHERE saga_id IN (SELECT pg_catalog.jsonb_array_elements_text($1::jsonb))", NULL},
	{"DELETE FROM %s.saga_outbox WHERE event_id IN (SELECT w::uuid FROM pg_catalog.jsonb_array_elements_text($1::jsonb) AS w)",
	"DELETE FROM %s.sagaz_event WHERE event_id IN (SELECT w::uuid FROM pg_catalog.jsonb_array_elements_text($1::jsonb) AS w)", NULL}
};

/* Put the schema into each place of a statement's text that is for it. */
static char *
with_schema(const PostgresStore *store, const char *text)
{
	StringInfoData out;
	const char *place;

	initStringInfo(&out);
	while ((place = strstr(text, "%s")) != NULL)
	{
		appendBinaryStringInfo(&out, text, place - text);
		appendStringInfoString(&out, store->schema);
		text = place + 2;
	}
	appendStringInfoString(&out, text);
	return out.data;
}

/* ---------------------------------------------------------------------- */
/* What the tables can take */

static void
refuse(const SagazRecord *record, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_SERIALIZATION),
			 errmsg("record \"%s\" is refused", sagaz_record_key(record)),
			 errdetail("%s.", why)));
}

static void
check_length(const SagazRecord *record, const char *field, const char *value, int most)
{
	if (value && pg_mbstrlen(value) > most)
		refuse(record, psprintf("%s is longer than %d characters, which the library's tables cannot hold",
								field, most));
}

/* A step's text, which must be one; NULL where it is missing. */
static char *
step_text(const SagazRecord *record, JsonbContainer *step, const char *key)
{
	JsonbValue *value = getKeyJsonValueFromContainer(step, key, strlen(key), NULL);

	if (value == NULL || value->type == jbvNull)
		return NULL;
	if (value->type != jbvString)
		refuse(record, psprintf("%s of a step is not a string, and the library's tables hold nothing else", key));
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static void
check_step_time(const SagazRecord *record, JsonbContainer *step, const char *key)
{
	char	   *text = step_text(record, step, key);
	SagazRecord probe = {.kind = SAGAZ_SAGA};

	if (text == NULL)
		return;
	(void) sagaz_field_time(text, key, &probe);
	if (probe.problem)
		refuse(record, psprintf("%s of a step is not a time", key));
}

static bool
is_repeated(List *names, const char *name)
{
	ListCell   *cell;

	foreach(cell, names)
		if (strcmp(lfirst(cell), name) == 0)
			return true;
	return false;
}

/* Returns whether the step has keys that the tables have no column for. */
static bool
check_step(const SagazRecord *record, JsonbContainer *step, List **names)
{
	char	   *name = step_text(record, step, "name");
	JsonbValue *count = getKeyJsonValueFromContainer(step, "retry_count", 11, NULL);

	if (name == NULL)
		refuse(record, "a step has no name, and the library's tables want one");
	if (is_repeated(*names, name))
		refuse(record, "two steps have the same name, which the library's tables cannot hold");
	*names = lappend(*names, name);
	check_length(record, "name of a step", name, MAX_NAME);
	check_length(record, "status of a step", step_text(record, step, "status"), MAX_STATUS);
	(void) step_text(record, step, "error");
	check_step_time(record, step, "executed_at");
	check_step_time(record, step, "compensated_at");
	if (count && count->type != jbvNumeric)
		refuse(record, "retry_count of a step is not a number");
	return JsonContainerSize(step) > 7;
}

/* The normal form of the steps; *whole is set where it must be kept besides. */
static Jsonb *
check_steps(const SagazRecord *record, bool *whole)
{
	Jsonb	   *steps = sagaz_normal_steps(record->saga.steps);
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	step;
	List	   *names = NIL;

	*whole = false;
	if (!JB_ROOT_IS_ARRAY(steps) || JB_ROOT_IS_SCALAR(steps))
		refuse(record, "steps is not an array");
	iterator = JsonbIteratorInit(&steps->root);
	while ((token = JsonbIteratorNext(&iterator, &step, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (step.type != jbvBinary || !JsonContainerIsObject(step.val.binary.data))
			refuse(record, "a step is not an object");
		*whole |= check_step(record, step.val.binary.data, &names);
	}
	return steps;
}

/* ---------------------------------------------------------------------- */
/* Records as one document */

/* A pair that is left out where there is nothing. */
static void
push_text(JsonbParseState **state, const char *key, const char *value)
{
	if (value)
		sagaz_push_string(state, key, value);
}

static void
push_number(JsonbParseState **state, const char *key, int64 value)
{
	if (value != 0)
		sagaz_push_int(state, key, value);
}

static void
push_saga(JsonbParseState **state, const SagazRecord *record)
{
	const SagazSaga *saga = &record->saga;
	bool		whole;
	Jsonb	   *steps = check_steps(record, &whole);

	check_length(record, "saga_id", saga->saga_id, MAX_NAME);
	check_length(record, "saga_name", saga->saga_name, MAX_NAME);
	check_length(record, "status", saga->status, MAX_STATUS);
	sagaz_push_string(state, "saga_id", saga->saga_id);
	sagaz_push_string(state, "saga_name", saga->saga_name);
	sagaz_push_string(state, "status", saga->status);
	sagaz_push_json(state, "steps", steps);
	if (whole)
		sagaz_push_json(state, "whole_steps", steps);
	sagaz_push_json(state, "context", saga->context);
	if (saga->metadata)
		sagaz_push_json(state, "metadata", saga->metadata);
	sagaz_push_int(state, "version", Max(saga->version, 1));
	sagaz_push_time(state, "created_at", saga->created_at);
	sagaz_push_time(state, "updated_at", saga->updated_at);
}

static void
push_event(JsonbParseState **state, const SagazRecord *record)
{
	const SagazEvent *event = &record->event;

	if (!sagaz_is_uuid(event->event_id))
		refuse(record, "its id is no UUID, which the library's tables cannot hold");
	check_length(record, "saga_id", event->saga_id, MAX_NAME);
	check_length(record, "aggregate_type", event->aggregate_type, MAX_NAME);
	check_length(record, "aggregate_id", event->aggregate_id, MAX_NAME);
	check_length(record, "event_type", event->event_type, MAX_NAME);
	check_length(record, "worker_id", event->worker_id, MAX_NAME);
	sagaz_push_string(state, "event_id", event->event_id);
	sagaz_push_string(state, "saga_id", event->saga_id);
	sagaz_push_string(state, "aggregate_type", event->aggregate_type);
	sagaz_push_string(state, "aggregate_id",
					  event->aggregate_id ? event->aggregate_id : event->saga_id);
	sagaz_push_string(state, "event_type", event->event_type);
	sagaz_push_json(state, "payload", event->payload);
	sagaz_push_json(state, "headers", event->headers);
	sagaz_push_string(state, "status", event->status);
	sagaz_push_int(state, "retry_count", event->retry_count);
	sagaz_push_time(state, "created_at", event->created_at);
	sagaz_push_time(state, "claimed_at", event->claimed_at);
	sagaz_push_time(state, "sent_at", event->sent_at);
	push_text(state, "last_error", event->last_error);
	push_text(state, "worker_id", event->worker_id);
	push_text(state, "routing_key", event->routing_key);
	push_text(state, "partition_key", event->partition_key);
	push_number(state, "batch_id", event->batch_id);
	push_number(state, "lease_until", event->lease_until);
	push_number(state, "next_attempt_at", event->next_attempt_at);
}

static char *
records_json(List *records)
{
	JsonbParseState *state = NULL;
	ListCell   *cell;
	Jsonb	   *json;

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	foreach(cell, records)
	{
		const SagazRecord *record = lfirst(cell);

		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		if (record->kind == SAGAZ_SAGA)
			push_saga(&state, record);
		else
			push_event(&state, record);
		pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	json = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
	return JsonbToCString(NULL, &json->root, VARSIZE(json));
}

/* ---------------------------------------------------------------------- */
/* Writing */

static void
queue_all(PostgresStore *store, const char *const *statements, const char *parameter)
{
	for (; *statements; statements++)
		postgres_queue(store, with_schema(store, *statements), parameter ? 1 : 0,
					   NULL, &parameter);
}

/* Begin a transaction of writes; the tables are there in it. */
static void
queue_begin(PostgresStore *store, SagazKind kind)
{
	postgres_queue(store, "BEGIN", 0, NULL, NULL);
	if (!store->has[kind])
		queue_all(store, make_tables[kind], NULL);
	if (!store->has_side[kind])
		queue_all(store, make_side[kind], NULL);
}

/* Queue what writes the records, whether they are there or, if replace, not. */
static void
queue_writes(PostgresStore *store, SagazKind kind, List *records, bool replace)
{
	const char *json;
	char	   *sql;

	if (records == NIL)
		return;
	json = records_json(records);
	sql = with_schema(store, write_main[kind]);
	if (replace)
		sql = psprintf("%s%s", sql, replace_main[kind]);
	postgres_queue(store, sql, 1, NULL, &json);
	queue_all(store, write_rest[kind], json);
}

static void
commit(PostgresStore *store, SagazKind kind)
{
	int			count;

	postgres_queue(store, "COMMIT", 0, NULL, NULL);
	(void) postgres_exchange(store, &count);
	store->has[kind] = store->has_side[kind] = true;
}

static bool
is_among(List *records, const char *key)
{
	ListCell   *cell;

	foreach(cell, records)
		if (strcmp(sagaz_record_key(lfirst(cell)), key) == 0)
			return true;
	return false;
}

/* The records of which none is there, locked as they are. */
static List *
records_to_put(PostgresStore *store, SagazRecord *records, int count,
			   SagazPutMode mode)
{
	SagazKind	kind = records[0].kind;
	SagazFilter filter = {.nkeys = count};
	const char **keys = palloc(count * sizeof(char *));
	PostgresResult **results;
	PostgresSql sql;
	List	   *there;
	List	   *put = NIL;
	int			nresults;

	for (int i = 0; i < count; i++)
		keys[i] = sagaz_record_key(&records[i]);
	filter.keys = keys;
	queue_begin(store, kind);
	postgres_library_select(store, &sql, kind, &filter, NULL, 0, true);
	postgres_sql_queue(store, &sql);
	results = postgres_exchange(store, &nresults);
	there = postgres_library_records(results[nresults - 1], kind);
	for (int i = 0; i < count; i++)
	{
		bool		exists = is_among(there, keys[i]) || is_among(put, keys[i]);

		if (exists && mode == SAGAZ_PUT_NEW)
			ereport(ERROR,
					(errcode(ERRCODE_UNIQUE_VIOLATION),
					 errmsg("record \"%s\" exists already in storage \"%s\"",
							keys[i], store->base.name)));
		if (!exists)
			put = lappend(put, &records[i]);
	}
	return put;
}

/* Without those that come again later. */
static List *
last_of_each(SagazRecord *records, int count)
{
	List	   *last = NIL;

	for (int i = count - 1; i >= 0; i--)
		if (!is_among(last, sagaz_record_key(&records[i])))
			last = lcons(&records[i], last);
	return last;
}

static int64
library_put(PostgresStore *store, SagazRecord *records, int count,
			SagazPutMode mode)
{
	SagazKind	kind = records[0].kind;
	List	   *volatile put = NIL;

	PG_TRY();
	{
		if (mode == SAGAZ_PUT_ALWAYS)
		{
			put = last_of_each(records, count);
			queue_begin(store, kind);
		}
		else
			put = records_to_put(store, records, count, mode);
		queue_writes(store, kind, put, mode == SAGAZ_PUT_ALWAYS);
		commit(store, kind);
	}
	PG_CATCH();
	{
		postgres_roll_back(store);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return list_length(put);
}

/* ---------------------------------------------------------------------- */
/* Editing */

typedef struct Edits
{
	List	   *changed;		/* SagazRecord */
	List	   *removed;		/* keys */
} Edits;

static void
edit_one(Edits *edits, SagazRecord *record, bool exists, SagazEdit edit, void *arg)
{
	char	   *key;

	if (record->problem)
		return;
	key = pstrdup(sagaz_record_key(record));
	switch (edit(record, exists, arg))
	{
		case SAGAZ_CHANGE:
			edits->changed = lappend(edits->changed, record);
			break;
		case SAGAZ_REMOVE:
			edits->removed = lappend(edits->removed, key);
			break;
		case SAGAZ_KEEP:
			break;
	}
}

/* Read and lock what matches, in a transaction that goes on. */
static List *
lock_records(PostgresStore *store, SagazKind kind, const SagazFilter *filter,
			 bool create)
{
	PostgresResult **results;
	PostgresSql sql;
	int			count;

	queue_begin(store, kind);
	/* there is no row to lock; two who create it take turns */
	if (create)
		postgres_queue(store, "SELECT pg_catalog.pg_advisory_xact_lock("
					   "pg_catalog.hashtextextended($1, 0))", 1, NULL, &filter->key);
	store->has_side[kind] = true;
	postgres_library_select(store, &sql, kind, filter, NULL, filter->limit, true);
	postgres_sql_queue(store, &sql);
	results = postgres_exchange(store, &count);
	return postgres_library_records(results[count - 1], kind);
}

static void
queue_removals(PostgresStore *store, SagazKind kind, List *keys)
{
	const char **words = palloc((list_length(keys) + 1) * sizeof(char *));

	if (keys == NIL)
		return;
	for (int i = 0; i < list_length(keys); i++)
		words[i] = list_nth(keys, i);
	queue_all(store, removals[kind], postgres_json_strings(words, list_length(keys)));
}

static int64
library_edit(PostgresStore *store, SagazKind kind, const SagazFilter *filter,
			 bool create, SagazEdit edit, void *arg)
{
	Edits	   *edits = palloc0(sizeof(Edits));

	if (!create && !store->has[kind])
		return 0;
	PG_TRY();
	{
		List	   *found = lock_records(store, kind, filter, create);
		ListCell   *cell;

		foreach(cell, found)
			edit_one(edits, lfirst(cell), true, edit, arg);
		if (create && found == NIL)
		{
			SagazRecord *fresh = palloc0(sizeof(SagazRecord));

			fresh->kind = kind;
			fresh->saga.saga_id = fresh->event.event_id = pstrdup(filter->key);
			edit_one(edits, fresh, false, edit, arg);
		}
		queue_writes(store, kind, edits->changed, true);
		queue_removals(store, kind, edits->removed);
		commit(store, kind);
	}
	PG_CATCH();
	{
		store->layout = LAYOUT_UNKNOWN;
		postgres_roll_back(store);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return list_length(edits->changed) + list_length(edits->removed);
}

/* ---------------------------------------------------------------------- */
/* Reading */

static List *
library_read(PostgresStore *store, SagazKind kind, const SagazFilter *filter,
			 const char *after_key, int count)
{
	PostgresResult **results;
	PostgresSql sql;
	int			nresults;

	if (!store->has[kind])
		return NIL;
	postgres_library_select(store, &sql, kind, filter, after_key, count, false);
	postgres_sql_queue(store, &sql);
	results = postgres_exchange(store, &nresults);
	return postgres_library_records(results[nresults - 1], kind);
}

static int64
library_count(PostgresStore *store, SagazKind kind, const SagazFilter *filter)
{
	PostgresResult **results;
	PostgresSql sql;
	int			count;

	if (!store->has[kind])
		return 0;
	postgres_library_select(store, &sql, kind, filter, NULL, filter->limit, false);
	sql.text.data = psprintf("SELECT count(*) FROM (%s) AS r", sql.text.data);
	postgres_sql_queue(store, &sql);
	results = postgres_exchange(store, &count);
	return strtoi64(postgres_value(results[count - 1], 0, 0), NULL, 10);
}

const PostgresOperations postgres_library_operations = {
	.put = library_put,
	.edit = library_edit,
	.read = library_read,
	.count = library_count
};
