/*
 * saga_record.c
 *		Steps of a saga: from JSON to rows.
 *
 * A key that is missing and a key that is null mean the same: its default.
 * Keys that have no column of their own are kept in "extra".  Where the
 * Python library wrote a time or an enumeration as a typed object,
 * {"__type__": …, "value": …}, the value is what counts.
 */
#include "lib/sagaz.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "saga/saga.h"
#include "lib/times.h"

/* bytes of a refused value that an error message shows */
#define SHOWN_LENGTH 80

/* A step being read. */
typedef struct StepReader
{
	int			position;
	SagaRow    *row;
	JsonbParseState *extra;		/* an object with the further keys, if any */
} StepReader;

/* A text argument that is neither NULL nor empty nor too long for an index. */
Datum
saga_text_argument(FunctionCallInfo fcinfo, int argno, const char *field,
				   int max_length)
{
	text	   *value = DatumGetTextPP(sagaz_argument(fcinfo, argno, field));

	if (VARSIZE_ANY_EXHDR(value) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("%s must not be empty", field)));
	if ((int) VARSIZE_ANY_EXHDR(value) > max_length)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("%s is too long", field),
				 errdetail("It has %d bytes; the limit is %d.",
						   (int) VARSIZE_ANY_EXHDR(value), max_length)));
	return PointerGetDatum(value);
}

/* The version that a saga must have to be saved; 0: it must not exist. */
int64
saga_version_argument(FunctionCallInfo fcinfo, int argno)
{
	int64		version = PG_ARGISNULL(argno) ? 0 : PG_GETARG_INT64(argno);

	if (version < 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("expected_version must not be negative"),
				 errhint("0 means that the saga must not exist yet.")));
	return version;
}

/* What is wrong with a key of a step, with its place in the array. */
static void
refuse_saga_record(const StepReader *reader, const char *key, const char *complaint)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_INPUT),
			 errmsg("steps[%d].%s %s", reader->position, key, complaint)));
}

static bool
is_object(const JsonbValue *value)
{
	return value->type == jbvBinary &&
		JsonContainerIsObject(value->val.binary.data);
}

static bool
string_is(const JsonbValue *string, const char *word)
{
	return string->val.string.len == (int) strlen(word) &&
		memcmp(string->val.string.val, word, string->val.string.len) == 0;
}

/* The value in a typed object of that type; the value itself otherwise. */
static JsonbValue *
unwrap(JsonbValue *value, const char *type)
{
	JsonbValue	word;
	JsonbValue *inner;

	if (!is_object(value) ||
		getKeyJsonValueFromContainer(value->val.binary.data,
									 "__type__", 8, &word) == NULL ||
		word.type != jbvString ||
		!string_is(&word, type))
		return value;
	inner = getKeyJsonValueFromContainer(value->val.binary.data,
										 "value", 5, NULL);
	return inner ? inner : value;
}

static void
read_text(StepReader *reader, int attnum, const char *key, JsonbValue *value)
{
	if (value->type != jbvString)
		refuse_saga_record(reader, key, "must be a string");
	saga_set(reader->row, attnum,
			 PointerGetDatum(cstring_to_text_with_len(value->val.string.val,
													  value->val.string.len)));
}

static void
read_name(StepReader *reader, int attnum, const char *key, JsonbValue *value)
{
	read_text(reader, attnum, key, value);
	if (value->val.string.len == 0)
		refuse_saga_record(reader, key, "must not be empty");
	if (value->val.string.len > STEP_NAME_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("steps[%d].%s is too long", reader->position, key),
				 errdetail("It has %d bytes; the limit is %d.",
						   value->val.string.len, STEP_NAME_LENGTH)));
}

static void
read_status(StepReader *reader, int attnum, const char *key,
			JsonbValue *value)
{
	char	   *word;

	value = unwrap(value, "enum");
	if (value->type != jbvString)
		refuse_saga_record(reader, key, "must be a string");
	word = pnstrdup(value->val.string.val,
					pg_mbcliplen(value->val.string.val, value->val.string.len,
								 SHOWN_LENGTH));
	saga_set(reader->row, attnum,
			 ObjectIdGetDatum(saga_status_of_word(&step_statuses, word,
												  psprintf("steps[%d].%s", reader->position, key))));
}

static void
read_json(StepReader *reader, int attnum, const char *key, JsonbValue *value)
{
	saga_set(reader->row, attnum, JsonbPGetDatum(JsonbValueToJsonb(value)));
}

static void
read_time(StepReader *reader, int attnum, const char *key, JsonbValue *value)
{
	TimestampTz time;

	value = unwrap(value, "datetime");
	if (value->type != jbvString)
		refuse_saga_record(reader, key, "must be a string");
	if (!sagaz_parse_time(value->val.string.val, value->val.string.len, &time))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("steps[%d].%s is not a time: \"%.*s\"",
						reader->position, key,
						pg_mbcliplen(value->val.string.val,
									 value->val.string.len, SHOWN_LENGTH),
						value->val.string.val),
				 errhint("Write times in ISO 8601, such as 2024-02-29T23:59:59.678901+00:00.")));
	saga_set(reader->row, attnum, TimestampTzGetDatum(time));
}

static void
read_count(StepReader *reader, int attnum, const char *key, JsonbValue *value)
{
	Datum		number;
	Datum		whole;
	bool		out_of_range = false;
	int32		count = 0;

	if (value->type != jbvNumeric)
		refuse_saga_record(reader, key, "must be a number");
	number = NumericGetDatum(value->val.numeric);
	whole = DirectFunctionCall2(numeric_trunc, number, Int32GetDatum(0));
	if (DatumGetBool(DirectFunctionCall2(numeric_eq, number, whole)))
		count = numeric_int4_opt_error(value->val.numeric, &out_of_range);
	else
		refuse_saga_record(reader, key, "must be a whole number");
	if (out_of_range || count < 0)
		refuse_saga_record(reader, key, "must be between 0 and 2147483647");
	saga_set(reader->row, attnum, Int32GetDatum(count));
}

static const struct
{
	const char *key;
	int			attnum;
	void		(*read) (StepReader *reader, int attnum, const char *key,
						 JsonbValue *value);
}			step_keys[] =
{
	{"name", step_step_name, read_name},
	{"status", step_status, read_status},
	{"result", step_result, read_json},
	{"error", step_error, read_text},
	{"executed_at", step_executed_at, read_time},
	{"compensated_at", step_compensated_at, read_time},
	{"retry_count", step_retry_count, read_count},
};

static void
read_extra(StepReader *reader, JsonbValue *key, JsonbValue *value)
{
	if (reader->extra == NULL)
		pushJsonbValue(&reader->extra, WJB_BEGIN_OBJECT, NULL);
	pushJsonbValue(&reader->extra, WJB_KEY, key);
	pushJsonbValue(&reader->extra, WJB_VALUE, value);
}

static void
read_key(StepReader *reader, JsonbValue *key, JsonbValue *value)
{
	for (int i = 0; i < (int) lengthof(step_keys); i++)
	{
		if (!string_is(key, step_keys[i].key))
			continue;
		if (value->type != jbvNull)
			step_keys[i].read(reader, step_keys[i].attnum, step_keys[i].key,
							  value);
		return;
	}
	read_extra(reader, key, value);
}

/* Fill the row of a step that is the object in value. */
static void
read_step(StepReader *reader, Datum saga_id, Oid pending, JsonbValue *object)
{
	SagaRow    *row = reader->row;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	value;

	if (!is_object(object))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("steps[%d] must be an object", reader->position)));
	ItemPointerSetInvalid(&row->tid);
	memset(row->values, 0, sizeof(row->values));
	memset(row->nulls, true, sizeof(row->nulls));
	saga_set(row, step_saga_id, saga_id);
	saga_set(row, step_ordinal, Int32GetDatum(reader->position));
	saga_set(row, step_status, ObjectIdGetDatum(pending));
	saga_set(row, step_retry_count, Int32GetDatum(0));

	iterator = JsonbIteratorInit(object->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &key, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&iterator, &value, true);
		read_key(reader, &key, &value);
	}
	if (saga_is_null(row, step_step_name))
		refuse_saga_record(reader, "name", "must be given");
	if (reader->extra != NULL)
		saga_set(row, step_extra,
				 JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&reader->extra,
																 WJB_END_OBJECT, NULL))));
}

/* Put the steps in the order of their names, each of which occurs once. */
static void
sort_steps(SagaSteps *steps)
{
	qsort(steps->rows, steps->count, sizeof(SagaRow), saga_by_step_name);
	for (int i = 1; i < steps->count; i++)
	{
		SagaRow    *step = &steps->rows[i];

		if (saga_by_step_name(step - 1, step) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_SAGAZ_INPUT),
					 errmsg("steps[%d].name occurs twice: \"%s\"",
							Max(DatumGetInt32(saga_get(step, step_ordinal)),
								DatumGetInt32(saga_get(step - 1, step_ordinal))),
							TextDatumGetCString(saga_get(step, step_step_name)))));
	}
}

/* The steps in an array of objects, in the order of their names. */
SagaSteps
saga_parse_steps(Datum saga_id, Jsonb *json)
{
	SagaSteps	steps = {0};
	Oid			pending = saga_status_word_oid(&step_statuses, "pending");
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (!JB_ROOT_IS_ARRAY(json) || JB_ROOT_IS_SCALAR(json))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("steps must be an array of objects")));
	steps.rows = palloc(Max(JB_ROOT_COUNT(json), 1) * sizeof(SagaRow));
	iterator = JsonbIteratorInit(&json->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		StepReader	reader = {0};

		if (token != WJB_ELEM)
			continue;
		reader.position = steps.count;
		reader.row = &steps.rows[steps.count++];
		read_step(&reader, saga_id, pending, &value);
	}
	sort_steps(&steps);
	return steps;
}
