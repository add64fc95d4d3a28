/*
 * record.c
 *		Records as JSON, and what makes a record unfit.
 *
 * A record that comes from elsewhere may be anything.  What is wrong with it
 * is written into its "problem", so that whoever copies many can leave out
 * one; only a caller who has no other way raises it.
 */
#include "backends/record/record.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "lib/times.h"
#include "lib/words.h"

/* The kind that a type argument names. */
SagazKind
sagaz_record_kind(const char *type)
{
	if (strcmp(type, "saga") == 0)
		return SAGAZ_SAGA;
	if (strcmp(type, "outbox") == 0)
		return SAGAZ_EVENT;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_INPUT),
			 errmsg("type \"%s\" is unknown", type),
			 errhint("Say 'saga' or 'outbox'.")));
	return SAGAZ_SAGA;			/* keep compiler quiet */
}

Jsonb *
sagaz_record_empty_object(void)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
}

Jsonb *
sagaz_record_empty_array(void)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("[]")));
}

/* ---------------------------------------------------------------------- */
/* To JSON */

static void
push_saga_record(JsonbParseState **state, const SagazSaga *saga)
{
	sagaz_json_push_string(state, "saga_id", saga->saga_id);
	sagaz_json_push_string(state, "saga_name", saga->saga_name);
	sagaz_json_push_string(state, "status", saga->status);
	sagaz_push_json(state, "steps", sagaz_normal_steps(saga->steps));
	sagaz_push_json(state, "context", sagaz_normal_json(saga->context));
	sagaz_push_json(state, "metadata",
					saga->metadata ? sagaz_normal_json(saga->metadata) : NULL);
	sagaz_json_push_time(state, "created_at", saga->created_at);
	sagaz_json_push_time(state, "updated_at", saga->updated_at);
}

static void
push_event_record(JsonbParseState **state, const SagazEvent *event)
{
	sagaz_json_push_string(state, "event_id", event->event_id);
	sagaz_json_push_string(state, "saga_id", event->saga_id);
	sagaz_json_push_string(state, "aggregate_type", event->aggregate_type);
	sagaz_json_push_string(state, "aggregate_id", event->aggregate_id ?
						   event->aggregate_id : event->saga_id);
	sagaz_json_push_string(state, "event_type", event->event_type);
	sagaz_push_json(state, "payload", sagaz_normal_json(event->payload));
	sagaz_push_json(state, "headers", sagaz_normal_json(event->headers));
	sagaz_json_push_string(state, "status", event->status);
	sagaz_json_push_time(state, "created_at", event->created_at);
	sagaz_json_push_time(state, "claimed_at", event->claimed_at);
	sagaz_json_push_time(state, "sent_at", event->sent_at);
	sagaz_json_push_int(state, "retry_count", event->retry_count);
	sagaz_json_push_string(state, "last_error", event->last_error);
	sagaz_json_push_string(state, "worker_id", event->worker_id);
	sagaz_json_push_string(state, "routing_key", event->routing_key);
	sagaz_json_push_string(state, "partition_key", event->partition_key);
}

/* A record in normal form. */
Jsonb *
sagaz_record_to_json(const SagazRecord *record)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (record->kind == SAGAZ_SAGA)
		push_saga_record(&state, &record->saga);
	else
		push_event_record(&state, &record->event);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* ---------------------------------------------------------------------- */
/* Checks */

static void
require_record_text(SagazRecord *record, const char *field, const char *value)
{
	if (value == NULL)
		sagaz_field_complain(record, psprintf("%s is missing", field));
}

static void
require_record_word(SagazRecord *record, const char *value, const char *const *words)
{
	require_record_text(record, "status", value);
	if (value == NULL)
		return;
	while (*words && strcmp(*words, value) != 0)
		words++;
	if (*words == NULL)
		sagaz_field_complain(record, psprintf("status \"%.*s\" is unknown",
								  pg_mbcliplen(value, strlen(value), 80), value));
}

static void
check_saga_record(SagazRecord *record, SagazSaga *saga)
{
	require_record_text(record, "saga_id", saga->saga_id);
	require_record_text(record, "saga_name", saga->saga_name);
	require_record_text(record, "status", saga->status);
	if (saga->steps == NULL)
		saga->steps = sagaz_record_empty_array();
	if (saga->context == NULL)
		saga->context = sagaz_record_empty_object();
	if (saga->version == 0)
		saga->version = 1;
	if (saga->created_at == 0)
		saga->created_at = saga->updated_at ? saga->updated_at : SAGAZ_UNDATED;
	if (saga->updated_at == 0)
		saga->updated_at = saga->created_at;
}

static void
check_event_record(SagazRecord *record, SagazEvent *event)
{
	require_record_text(record, "event_id", event->event_id);
	require_record_text(record, "saga_id", event->saga_id);
	require_record_text(record, "event_type", event->event_type);
	require_record_word(record, event->status, sagaz_event_words);
	if (event->aggregate_type == NULL)
		event->aggregate_type = "saga";
	if (event->payload == NULL)
		sagaz_field_complain(record, "payload is missing");
	if (event->headers == NULL)
		event->headers = sagaz_record_empty_object();
	if (!JB_ROOT_IS_OBJECT(event->headers))
		sagaz_field_complain(record, "headers is not an object");
	if (event->retry_count < 0)
		sagaz_field_complain(record, "retry_count is negative");
	if (event->created_at == 0)
		event->created_at = SAGAZ_UNDATED;
}

/*
 * Fill in what may be missing, and find what is wrong.  A saga may be odd, as
 * the Python library takes any: empty ids, unknown words, steps that are none.
 * What has no time gets the same one each time it is read, so that it has one
 * digest.
 */
void
sagaz_record_check(SagazRecord *record)
{
	if (record->problem)
		return;
	if (record->kind == SAGAZ_SAGA)
		check_saga_record(record, &record->saga);
	else
		check_event_record(record, &record->event);
}

/* ---------------------------------------------------------------------- */
/* Copies */

static char *
copy_record_text(const char *text)
{
	return text ? pstrdup(text) : NULL;
}

static Jsonb *
copy_record_json(const Jsonb *json)
{
	Jsonb	   *copy;

	if (json == NULL)
		return NULL;
	copy = palloc(VARSIZE(json));
	memcpy(copy, json, VARSIZE(json));
	return copy;
}

/* Copy all of it into the present memory context. */
void
sagaz_record_copy(const SagazRecord *from, SagazRecord *to)
{
	*to = *from;
	to->problem = copy_record_text(from->problem);
	to->saga.saga_id = copy_record_text(from->saga.saga_id);
	to->saga.saga_name = copy_record_text(from->saga.saga_name);
	to->saga.status = copy_record_text(from->saga.status);
	to->saga.steps = copy_record_json(from->saga.steps);
	to->saga.context = copy_record_json(from->saga.context);
	to->saga.metadata = copy_record_json(from->saga.metadata);
	to->event.event_id = copy_record_text(from->event.event_id);
	to->event.saga_id = copy_record_text(from->event.saga_id);
	to->event.aggregate_type = copy_record_text(from->event.aggregate_type);
	to->event.aggregate_id = copy_record_text(from->event.aggregate_id);
	to->event.event_type = copy_record_text(from->event.event_type);
	to->event.payload = copy_record_json(from->event.payload);
	to->event.headers = copy_record_json(from->event.headers);
	to->event.status = copy_record_text(from->event.status);
	to->event.last_error = copy_record_text(from->event.last_error);
	to->event.worker_id = copy_record_text(from->event.worker_id);
	to->event.routing_key = copy_record_text(from->event.routing_key);
	to->event.partition_key = copy_record_text(from->event.partition_key);
}

static bool
record_same_json(Jsonb *a, Jsonb *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return compareJsonbContainers(&sagaz_normal_json(a)->root,
								  &sagaz_normal_json(b)->root) == 0;
}

/* Do two states of a saga say the same, times and version aside? */
bool
sagaz_record_same_saga(const SagazSaga *a, const SagazSaga *b)
{
	return strcmp(a->saga_name, b->saga_name) == 0 &&
		strcmp(a->status, b->status) == 0 &&
		record_same_json(sagaz_normal_steps(a->steps), sagaz_normal_steps(b->steps)) &&
		record_same_json(a->context, b->context) && record_same_json(a->metadata, b->metadata);
}

/* Are they the same in normal form? */
bool
sagaz_record_same(const SagazRecord *a, const SagazRecord *b)
{
	Jsonb	   *x = sagaz_record_to_json(a);
	Jsonb	   *y = sagaz_record_to_json(b);

	return compareJsonbContainers(&x->root, &y->root) == 0;
}
