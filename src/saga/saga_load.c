/*
 * saga_load.c
 *		load_saga_state(): a saga and its steps as JSON.
 *
 * The keys are those of the Python library, all of them, absent values as
 * null; the saga's version and the steps' further keys come on top.
 */
#include "lib/sagaz.h"

#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "saga/saga.h"
#include "lib/times.h"

PG_FUNCTION_INFO_V1(sagaz_load_saga_state);

static void
push_string(JsonbParseState **state, JsonbIteratorToken token,
			const char *string, int length)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, string);
	value.val.string.len = length;
	pushJsonbValue(state, token, &value);
}

/* Start a pair of an object; true if there is a value to follow. */
static bool
push_key(JsonbParseState **state, const char *key, const SagaRow *row,
		 int attnum)
{
	JsonbValue	null = {.type = jbvNull};

	push_string(state, WJB_KEY, key, strlen(key));
	if (!saga_is_null(row, attnum))
		return true;
	pushJsonbValue(state, WJB_VALUE, &null);
	return false;
}

static void
push_text(JsonbParseState **state, const char *key, const SagaRow *row,
		  int attnum)
{
	text	   *value;

	if (!push_key(state, key, row, attnum))
		return;
	value = DatumGetTextPP(saga_get(row, attnum));
	push_string(state, WJB_VALUE, VARDATA_ANY(value),
				VARSIZE_ANY_EXHDR(value));
}

static void
push_status(JsonbParseState **state, const SagaRow *row, int attnum)
{
	const char *word = saga_status_word(DatumGetObjectId(saga_get(row, attnum)));

	(void) push_key(state, "status", row, attnum);
	push_string(state, WJB_VALUE, word, strlen(word));
}

static void
push_time(JsonbParseState **state, const char *key, const SagaRow *row,
		  int attnum)
{
	char	   *buffer;

	if (!push_key(state, key, row, attnum))
		return;
	buffer = palloc(SAGAZ_TIME_SIZE);
	push_string(state, WJB_VALUE, buffer,
				sagaz_format_time(DatumGetTimestampTz(saga_get(row, attnum)),
								  buffer));
}

static void
push_int(JsonbParseState **state, const char *key, int64 number)
{
	JsonbValue	value;

	push_string(state, WJB_KEY, key, strlen(key));
	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(number);
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_json(JsonbParseState **state, const char *key, const SagaRow *row,
		  int attnum)
{
	Jsonb	   *json;
	JsonbValue	value;

	if (!push_key(state, key, row, attnum))
		return;
	json = DatumGetJsonbP(saga_get(row, attnum));
	if (!JB_ROOT_IS_SCALAR(json) || !JsonbExtractScalar(&json->root, &value))
	{
		value.type = jbvBinary;
		value.val.binary.data = &json->root;
		value.val.binary.len = VARSIZE_ANY_EXHDR(json);
	}
	pushJsonbValue(state, WJB_VALUE, &value);
}

/* The pairs of a step's further keys. */
static void
push_extra(JsonbParseState **state, const SagaRow *step)
{
	Jsonb	   *extra;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (saga_is_null(step, step_extra))
		return;
	extra = DatumGetJsonbP(saga_get(step, step_extra));
	iterator = JsonbIteratorInit(&extra->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
		if (token == WJB_KEY || token == WJB_VALUE)
			pushJsonbValue(state, token, &value);
}

/* jsonb sorts keys by length first: those in its order need no sorting. */
static void
push_step(JsonbParseState **state, const SagaRow *step)
{
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_text(state, "name", step, step_step_name);
	push_text(state, "error", step, step_error);
	push_json(state, "result", step, step_result);
	push_status(state, step, step_status);
	push_time(state, "executed_at", step, step_executed_at);
	push_int(state, "retry_count",
			 DatumGetInt32(saga_get(step, step_retry_count)));
	push_time(state, "compensated_at", step, step_compensated_at);
	push_extra(state, step);
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static JsonbValue *
push_steps(JsonbParseState **state, const SagaSteps *steps)
{
	qsort(steps->rows, steps->count, sizeof(SagaRow), saga_by_ordinal);
	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < steps->count; i++)
		push_step(state, &steps->rows[i]);
	return pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

/* Steps that were read, as an array; they are put in order. */
Jsonb *
saga_steps_to_json(const SagaSteps *steps)
{
	JsonbParseState *state = NULL;

	return JsonbValueToJsonb(push_steps(&state, steps));
}

static Jsonb *
saga_to_json(const SagaRow *saga, const SagaSteps *steps)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_string(&state, WJB_KEY, "steps", strlen("steps"));
	(void) push_steps(&state, steps);
	push_status(&state, saga, saga_status);
	push_json(&state, "context", saga, saga_context);
	push_text(&state, "saga_id", saga, saga_saga_id);
	push_int(&state, "version", DatumGetInt64(saga_get(saga, saga_version)));
	push_json(&state, "metadata", saga, saga_metadata);
	push_text(&state, "saga_name", saga, saga_saga_name);
	push_time(&state, "created_at", saga, saga_created_at);
	push_time(&state, "updated_at", saga, saga_updated_at);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* A saga that was read, with its steps. */
static Jsonb *
saga_load_json(const SagaRow *saga, Snapshot snapshot)
{
	SagaSteps	steps = saga_read_steps(saga_get(saga, saga_saga_id), snapshot);

	return saga_to_json(saga, &steps);
}

/*
 * load_saga_state(saga_id, storage)
 */
Datum
sagaz_load_saga_state(PG_FUNCTION_ARGS)
{
	Snapshot	snapshot = GetActiveSnapshot();
	Datum		saga_id;
	SagaRow		saga;

	saga_id = saga_text_argument(fcinfo, 0, "saga_id", INT_MAX);
	if (!saga_read(saga_id, snapshot, &saga))
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(saga_load_json(&saga, snapshot));
}
