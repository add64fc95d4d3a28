/*
 * normal.c
 *		The normal form of JSON: what two records are compared in.
 *
 * Numbers count by value, so 1.0 is 1; a time in a typed object of the Python
 * library is the instant in UTC; a step has all its keys, missing ones with
 * their defaults.
 */
#include "backends/record/record.h"

#include "miscadmin.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "lib/times.h"

static void push_normal(JsonbParseState **state, JsonbIteratorToken token,
						JsonbValue *value);

static bool
is_string(const JsonbValue *value, const char *word)
{
	return value->type == jbvString &&
		value->val.string.len == (int) strlen(word) &&
		memcmp(value->val.string.val, word, value->val.string.len) == 0;
}

/* Bring a string that is a time to UTC; anything else stays. */
static void
normalize_time(JsonbValue *value)
{
	TimestampTz time;
	char	   *text;

	if (value->type != jbvString ||
		!sagaz_parse_time(value->val.string.val, value->val.string.len, &time))
		return;
	text = palloc(SAGAZ_TIME_SIZE);
	value->val.string.len = sagaz_format_time(time, text);
	value->val.string.val = text;
}

/* The value of a typed object of that type, or NULL. */
static JsonbValue *
typed_value(const JsonbValue *value, const char *type)
{
	JsonbValue	word;

	if (value->type != jbvBinary ||
		!JsonContainerIsObject(value->val.binary.data) ||
		getKeyJsonValueFromContainer(value->val.binary.data, "__type__", 8,
									 &word) == NULL ||
		!is_string(&word, type))
		return NULL;
	return getKeyJsonValueFromContainer(value->val.binary.data, "value", 5, NULL);
}

/* Push an array or object; at the outermost one's end that is returned. */
static JsonbValue *
push_container(JsonbParseState **state, const JsonbValue *value)
{
	bool		is_time = typed_value(value, "datetime") != NULL;
	bool		is_value = false;
	JsonbIterator *iterator = JsonbIteratorInit(value->val.binary.data);
	JsonbIteratorToken token;
	JsonbValue	part;
	JsonbValue *result = NULL;

	check_stack_depth();
	while ((token = JsonbIteratorNext(&iterator, &part, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			is_value = is_string(&part, "value");
		else if (token == WJB_VALUE && is_time && is_value)
			normalize_time(&part);
		if (token == WJB_VALUE || token == WJB_ELEM)
			push_normal(state, token, &part);
		else
			result = pushJsonbValue(state, token,
									token == WJB_KEY ? &part : NULL);
	}
	return result;
}

static void
normalize_number(JsonbValue *value)
{
	value->val.numeric =
		DatumGetNumeric(DirectFunctionCall1(numeric_trim_scale,
											NumericGetDatum(value->val.numeric)));
}

static void
push_normal(JsonbParseState **state, JsonbIteratorToken token, JsonbValue *value)
{
	if (value->type == jbvBinary)
	{
		(void) push_container(state, value);
		return;
	}
	if (value->type == jbvNumeric)
		normalize_number(value);
	(void) pushJsonbValue(state, token, value);
}

/* A document in normal form. */
Jsonb *
sagaz_normal_json(Jsonb *json)
{
	JsonbParseState *state = NULL;
	JsonbValue	value;

	sagaz_json_value_of(json, &value);
	if (value.type == jbvBinary)
		return JsonbValueToJsonb(push_container(&state, &value));
	if (value.type == jbvNumeric)
		normalize_number(&value);
	return JsonbValueToJsonb(&value);
}

/* The keys of a step that the library knows; others are kept as they are. */
static const char *const step_keys[] = {
	"name", "status", "result", "error", "executed_at", "compensated_at",
	"retry_count"
};

static bool
is_step_key(const JsonbValue *key)
{
	for (int i = 0; i < (int) lengthof(step_keys); i++)
		if (is_string(key, step_keys[i]))
			return true;
	return false;
}

/* What a step has where a key is missing or null. */
static void
push_default(JsonbParseState **state, const char *key)
{
	if (strcmp(key, "status") == 0)
		sagaz_json_push_string(state, key, "pending");
	else if (strcmp(key, "retry_count") == 0)
		sagaz_json_push_int(state, key, 0);
	else
		sagaz_json_push_string(state, key, NULL);
}

static bool
is_time_key(const char *key)
{
	return strcmp(key, "executed_at") == 0 || strcmp(key, "compensated_at") == 0;
}

/*
 * What a step has at one of those keys, without the typed object of the Python
 * library around it; NULL where that is missing or null.
 */
JsonbValue *
sagaz_normal_step_value(JsonbContainer *step, const char *key, JsonbValue *buffer)
{
	JsonbValue *value = getKeyJsonValueFromContainer(step, key, strlen(key), buffer);
	const char *type = is_time_key(key) ? "datetime" :
		strcmp(key, "status") == 0 ? "enum" : NULL;
	JsonbValue *inner = value && type ? typed_value(value, type) : NULL;

	if (inner)
		value = inner;
	return value && value->type != jbvNull ? value : NULL;
}

/* Has a step other keys than those? */
bool
sagaz_normal_step_has_more(JsonbContainer *step)
{
	JsonbValue	buffer;
	int			known = 0;

	for (int i = 0; i < (int) lengthof(step_keys); i++)
		known += getKeyJsonValueFromContainer(step, step_keys[i],
											  strlen(step_keys[i]), &buffer) != NULL;
	return (int) JsonContainerSize(step) > known;
}

static void
push_normal_step_key(JsonbParseState **state, JsonbContainer *step, const char *key)
{
	JsonbValue	buffer;
	JsonbValue *value = sagaz_normal_step_value(step, key, &buffer);

	if (value == NULL)
	{
		push_default(state, key);
		return;
	}
	if (is_time_key(key))
		normalize_time(value);
	sagaz_json_push_key(state, key);
	push_normal(state, WJB_VALUE, value);
}

static void
push_normal_step(JsonbParseState **state, JsonbContainer *step)
{
	JsonbIterator *iterator = JsonbIteratorInit(step);
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	value;

	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < (int) lengthof(step_keys); i++)
		push_normal_step_key(state, step, step_keys[i]);
	while ((token = JsonbIteratorNext(&iterator, &key, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&iterator, &value, true);
		if (is_step_key(&key))
			continue;
		pushJsonbValue(state, WJB_KEY, &key);
		push_normal(state, WJB_VALUE, &value);
	}
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/* The steps of a saga in normal form; what is no step stays as it is. */
Jsonb *
sagaz_normal_steps(Jsonb *steps)
{
	JsonbParseState *state = NULL;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	step;

	if (!JB_ROOT_IS_ARRAY(steps) || JB_ROOT_IS_SCALAR(steps))
		return sagaz_normal_json(steps);
	iterator = JsonbIteratorInit(&steps->root);
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	while ((token = JsonbIteratorNext(&iterator, &step, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (step.type == jbvBinary && JsonContainerIsObject(step.val.binary.data))
			push_normal_step(&state, step.val.binary.data);
		else
			push_normal(&state, WJB_ELEM, &step);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}
