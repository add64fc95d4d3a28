/*
 * json_build.c
 *		Objects of JSON, pair by pair.
 */
#include "backends/record/record.h"

#include "utils/builtins.h"
#include "utils/numeric.h"

#include "lib/times.h"

/*
 * The string is not copied, here and in what follows: it must last until the
 * end.
 */
void
sagaz_json_push_key(JsonbParseState **state, const char *key)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = unconstify(char *, key);
	value.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &value);
}

/* A pair; null where the value is NULL. */
void
sagaz_json_push_string(JsonbParseState **state, const char *key, const char *string)
{
	JsonbValue	value = {.type = jbvNull};

	sagaz_json_push_key(state, key);
	if (string)
	{
		value.type = jbvString;
		value.val.string.val = unconstify(char *, string);
		value.val.string.len = strlen(string);
	}
	pushJsonbValue(state, WJB_VALUE, &value);
}

void
sagaz_json_push_int(JsonbParseState **state, const char *key, int64 number)
{
	JsonbValue	value = {.type = jbvNumeric};

	sagaz_json_push_key(state, key);
	value.val.numeric = int64_to_numeric(number);
	pushJsonbValue(state, WJB_VALUE, &value);
}

/* A time as UTC text; null where there is none. */
void
sagaz_json_push_time(JsonbParseState **state, const char *key, TimestampTz time)
{
	char	   *text = NULL;

	if (time != 0)
	{
		text = palloc(SAGAZ_TIME_SIZE);
		(void) sagaz_format_time(sagaz_real_time(time), text);
	}
	sagaz_json_push_string(state, key, text);
}

/* A document as a value, to be pushed. */
void
sagaz_json_value_of(Jsonb *json, JsonbValue *value)
{
	if (JB_ROOT_IS_SCALAR(json) && JsonbExtractScalar(&json->root, value))
		return;
	value->type = jbvBinary;
	value->val.binary.data = &json->root;
	value->val.binary.len = VARSIZE_ANY_EXHDR(json);
}

/* NULL: null. */
void
sagaz_push_json(JsonbParseState **state, const char *key, Jsonb *json)
{
	JsonbValue	value = {.type = jbvNull};

	sagaz_json_push_key(state, key);
	if (json)
		sagaz_json_value_of(json, &value);
	pushJsonbValue(state, WJB_VALUE, &value);
}
