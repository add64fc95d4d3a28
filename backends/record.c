/*
 * record.c
 *		Records of sagas and events: copying them, and JSON and back.
 *
 * Both kinds are described by a list of their fields, and everything here goes
 * by that list.  The JSON of a record is its normal form: all keys, absent
 * values as null, times as UTC text, steps with all their seven keys.  It is
 * what export_all() gives and checksum() counts.
 *
 * Input that cannot be held is a complaint of the record and not an error, so
 * that one bad record in a store does not keep the others from being read.
 */
#include "sagaz.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "record.h"
#include "times.h"

const char *const sagaz_saga_words[] = {
	"pending", "executing", "completed", "compensating", "failed",
	"rolled_back", "partially_committed", "forward_recovery", NULL
};

const char *const sagaz_event_words[] = {
	"pending", "claimed", "sent", "failed", "dead_letter", NULL
};

typedef enum FieldType
{
	FIELD_TEXT,
	FIELD_JSON,
	FIELD_TIME,
	FIELD_COUNT
} FieldType;

typedef struct Field
{
	const char *name;
	FieldType	type;
	Size		offset;
	bool		required;
} Field;

#define SAGA(name, type, required) \
	{#name, type, offsetof(SagazSagaRecord, name), required}
#define EVENT(name, type, required) \
	{#name, type, offsetof(SagazEventRecord, name), required}

/* the complaint is no field of the record; it is copied by itself */
static const Field saga_fields[] = {
	SAGA(saga_id, FIELD_TEXT, true),
	SAGA(saga_name, FIELD_TEXT, true),
	SAGA(status, FIELD_TEXT, true),
	SAGA(steps, FIELD_JSON, false),
	SAGA(context, FIELD_JSON, false),
	SAGA(metadata, FIELD_JSON, false),
	SAGA(created_at, FIELD_TIME, true),
	SAGA(updated_at, FIELD_TIME, true),
	{0}
};

static const Field event_fields[] = {
	EVENT(event_id, FIELD_TEXT, true),
	EVENT(saga_id, FIELD_TEXT, true),
	EVENT(aggregate_type, FIELD_TEXT, false),
	EVENT(aggregate_id, FIELD_TEXT, false),
	EVENT(event_type, FIELD_TEXT, true),
	EVENT(payload, FIELD_JSON, false),
	EVENT(headers, FIELD_JSON, false),
	EVENT(status, FIELD_TEXT, true),
	EVENT(created_at, FIELD_TIME, true),
	EVENT(claimed_at, FIELD_TIME, false),
	EVENT(sent_at, FIELD_TIME, false),
	EVENT(retry_count, FIELD_COUNT, false),
	EVENT(last_error, FIELD_TEXT, false),
	EVENT(worker_id, FIELD_TEXT, false),
	EVENT(routing_key, FIELD_TEXT, false),
	EVENT(partition_key, FIELD_TEXT, false),
	{0}
};

#define fields_of(kind) ((kind) == SAGAZ_SAGA ? saga_fields : event_fields)
#define record_size(kind) \
	((kind) == SAGAZ_SAGA ? sizeof(SagazSagaRecord) : sizeof(SagazEventRecord))
#define at(record, field, type) \
	(*(type *) ((char *) (record) + (field)->offset))
#define complaint_of(kind, record) \
	((kind) == SAGAZ_SAGA ? &(record)->saga.complaint : \
	 &(record)->event.complaint)

int
sagaz_status_number(SagazKind kind, const char *word)
{
	const char *const *words = kind == SAGAZ_SAGA ? sagaz_saga_words :
		sagaz_event_words;

	for (int i = 0; words[i] != NULL; i++)
		if (strcmp(words[i], word) == 0)
			return i;
	return -1;
}

void
sagaz_record_init(SagazKind kind, SagazRecord *record)
{
	memset(record, 0, sizeof(SagazRecord));
	for (const Field *field = fields_of(kind); field->name; field++)
		if (field->type == FIELD_TIME)
			at(record, field, TimestampTz) = SAGAZ_NO_TIME;
	if (kind == SAGAZ_SAGA)
		record->saga.version = 1;
	else
	{
		record->event.lease_until = SAGAZ_NO_TIME;
		record->event.next_attempt_at = SAGAZ_NO_TIME;
	}
}

static Jsonb *
copy_json(const Jsonb *json)
{
	Jsonb	   *copy = palloc(VARSIZE(json));

	memcpy(copy, json, VARSIZE(json));
	return copy;
}

/* Copy a record with all that hangs off it. */
void
sagaz_record_copy(SagazKind kind, SagazRecord *to, const SagazRecord *from)
{
	char	   *const *complaint = complaint_of(kind, from);

	memset(to, 0, sizeof(SagazRecord));
	memcpy(to, from, record_size(kind));
	for (const Field *field = fields_of(kind); field->name; field++)
		if (field->type == FIELD_TEXT && at(to, field, char *))
			at(to, field, char *) = pstrdup(at(from, field, char *));
		else if (field->type == FIELD_JSON && at(to, field, Jsonb *))
			at(to, field, Jsonb *) = copy_json(at(from, field, Jsonb *));
	*complaint_of(kind, to) = *complaint ? pstrdup(*complaint) : NULL;
}

/* Free what hangs off a record. */
void
sagaz_record_free(SagazKind kind, SagazRecord *record)
{
	for (const Field *field = fields_of(kind); field->name; field++)
		if ((field->type == FIELD_TEXT || field->type == FIELD_JSON) &&
			at(record, field, void *))
		{
			pfree(at(record, field, void *));
			at(record, field, void *) = NULL;
		}
}

const char *
sagaz_record_key(SagazKind kind, const SagazRecord *record)
{
	return kind == SAGAZ_SAGA ? record->saga.saga_id : record->event.event_id;
}

const char *
sagaz_record_complaint(SagazKind kind, const SagazRecord *record)
{
	return *complaint_of(kind, record);
}

void
sagaz_complain(char **complaint, const char *field, const char *reason)
{
	if (*complaint == NULL)
		*complaint = psprintf("%s: %s", field, reason);
}

/*
 * Whether the error being handled is about the input, so that it can become
 * a complaint: data exceptions, and limits of nesting and size.
 */
static bool
about_input(const ErrorData *error)
{
	return ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_DATA_EXCEPTION ||
		ERRCODE_TO_CATEGORY(error->sqlerrcode) ==
		ERRCODE_PROGRAM_LIMIT_EXCEEDED ||
		error->sqlerrcode == ERRCODE_UNTRANSLATABLE_CHARACTER;
}

/*
 * Convert text and parse it as JSON if as_json is set.  Nothing but memory is
 * touched meanwhile, so that an error can be caught without a subtransaction.
 */
static void *
convert(const char *text, int length, bool as_json, const char *field,
		char **complaint)
{
	MemoryContext caller = CurrentMemoryContext;
	void	   *volatile result = NULL;

	if (text == NULL)
		return NULL;
	if (length > 0 && memchr(text, '\0', length) != NULL)
	{
		sagaz_complain(complaint, field, "a zero byte cannot be held");
		return NULL;
	}
	PG_TRY();
	{
		char	   *copy = pnstrdup(text, length);
		char	   *server = pg_any_to_server(copy, length, PG_UTF8);

		result = !as_json ? (void *) server :
			DatumGetPointer(DirectFunctionCall1(jsonb_in,
												CStringGetDatum(server)));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		if (!about_input(error))
			PG_RE_THROW();
		FlushErrorState();
		sagaz_complain(complaint, field, error->detail ? error->detail :
					   error->message);
		FreeErrorData(error);
	}
	PG_END_TRY();
	return result;
}

static bool
is_null(const Jsonb *json)
{
	JsonbValue	scalar;

	return json == NULL ||
		(JB_ROOT_IS_SCALAR(json) &&
		 JsonbExtractScalar(unconstify(JsonbContainer *, &json->root),
							&scalar) &&
		 scalar.type == jbvNull);
}

Jsonb *
sagaz_json_from_text(const char *text, int length, const char *field,
					 char **complaint)
{
	Jsonb	   *json = convert(text, length, true, field, complaint);

	return is_null(json) ? NULL : json;
}

char *
sagaz_text_from_utf8(const char *text, int length, const char *field,
					 char **complaint)
{
	return convert(text, length, false, field, complaint);
}

char *
sagaz_json_to_text(const Jsonb *json)
{
	char	   *text;

	if (json == NULL)
		return NULL;
	text = JsonbToCString(NULL, unconstify(JsonbContainer *, &json->root),
						  VARSIZE(json));
	return pg_server_to_any(text, strlen(text), PG_UTF8);
}

static bool
string_is(const JsonbValue *string, const char *word)
{
	return string->val.string.len == (int) strlen(word) &&
		memcmp(string->val.string.val, word, string->val.string.len) == 0;
}

/* The value in one of the library's typed objects; else the value itself. */
static JsonbValue *
unwrap(JsonbValue *value, const char *type)
{
	JsonbValue	word;
	JsonbValue *inner;

	if (value->type != jbvBinary ||
		!JsonContainerIsObject(value->val.binary.data) ||
		getKeyJsonValueFromContainer(value->val.binary.data, "__type__", 8,
									 &word) == NULL ||
		word.type != jbvString || !string_is(&word, type))
		return value;
	inner = getKeyJsonValueFromContainer(value->val.binary.data, "value", 5,
										 NULL);
	return inner ? inner : value;
}

static TimestampTz
time_from_json(JsonbValue *value, const char *field, char **complaint)
{
	TimestampTz time;

	if (value->type == jbvNull)
		return SAGAZ_NO_TIME;
	value = unwrap(value, "datetime");
	if (value->type == jbvString &&
		sagaz_parse_time(value->val.string.val, value->val.string.len, &time))
		return time;
	sagaz_complain(complaint, field, "not a time");
	return SAGAZ_NO_TIME;
}

TimestampTz
sagaz_time_from_text(const char *text, int length, const char *field,
					 char **complaint)
{
	TimestampTz time;
	Jsonb	   *json;
	JsonbValue	value;

	if (text == NULL || length == 0)
		return SAGAZ_NO_TIME;
	if (sagaz_parse_time(text, length, &time))
		return time;
	if (text[0] != '{')
	{
		sagaz_complain(complaint, field, "not a time");
		return SAGAZ_NO_TIME;
	}
	json = sagaz_json_from_text(text, length, field, complaint);
	if (json == NULL)
		return SAGAZ_NO_TIME;
	value.type = jbvBinary;
	value.val.binary.data = &json->root;
	value.val.binary.len = VARSIZE_ANY_EXHDR(json);
	return time_from_json(&value, field, complaint);
}

/*
 * Writing of JSON
 */

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

static void
push_key(JsonbParseState **state, const char *key)
{
	push_string(state, WJB_KEY, key, strlen(key));
}

static void
push_null(JsonbParseState **state)
{
	JsonbValue	value = {.type = jbvNull};

	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_time(JsonbParseState **state, TimestampTz time)
{
	char	   *buffer;

	if (time == SAGAZ_NO_TIME)
	{
		push_null(state);
		return;
	}
	buffer = palloc(SAGAZ_TIME_SIZE);
	push_string(state, WJB_VALUE, buffer, sagaz_format_time(time, buffer));
}

static void
push_count(JsonbParseState **state, int64 count)
{
	JsonbValue	value;

	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(count);
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_json(JsonbParseState **state, const Jsonb *json)
{
	JsonbContainer *root = unconstify(JsonbContainer *, &json->root);
	JsonbValue	value;

	if (!JB_ROOT_IS_SCALAR(json) || !JsonbExtractScalar(root, &value))
	{
		value.type = jbvBinary;
		value.val.binary.data = root;
		value.val.binary.len = VARSIZE_ANY_EXHDR(json);
	}
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_field(JsonbParseState **state, const Field *field,
		   const SagazRecord *record)
{
	push_key(state, field->name);
	switch (field->type)
	{
		case FIELD_TEXT:
			if (at(record, field, char *const))
				push_string(state, WJB_VALUE, at(record, field, char *const),
							strlen(at(record, field, char *const)));
			else
				push_null(state);
			break;
		case FIELD_JSON:
			if (at(record, field, Jsonb *const))
				push_json(state, at(record, field, Jsonb *const));
			else
				push_null(state);
			break;
		case FIELD_TIME:
			push_time(state, at(record, field, const TimestampTz));
			break;
		case FIELD_COUNT:
			push_count(state, at(record, field, const int32));
			break;
	}
}

Jsonb *
sagaz_record_to_json(SagazKind kind, const SagazRecord *record)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (const Field *field = fields_of(kind); field->name; field++)
		push_field(&state, field, record);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * Steps
 */

static const struct
{
	const char *key;
	FieldType	type;
}			step_keys[] =
{
	{"name", FIELD_TEXT},
	{"status", FIELD_TEXT},
	{"result", FIELD_JSON},
	{"error", FIELD_TEXT},
	{"executed_at", FIELD_TIME},
	{"compensated_at", FIELD_TIME},
	{"retry_count", FIELD_COUNT},
};

static bool
is_step_key(const JsonbValue *key)
{
	for (int i = 0; i < (int) lengthof(step_keys); i++)
		if (string_is(key, step_keys[i].key))
			return true;
	return false;
}

/* A known key of a step, as it is in the normal form. */
static void
push_step_value(JsonbParseState **state, FieldType type, const char *key,
				JsonbValue *value, char **complaint)
{
	push_key(state, key);
	if (value != NULL && type == FIELD_TEXT)
		value = unwrap(value, "enum");
	if (value == NULL || value->type == jbvNull)
	{
		if (strcmp(key, "status") == 0)
			push_string(state, WJB_VALUE, "pending", 7);
		else if (type == FIELD_COUNT)
			push_count(state, 0);
		else
			push_null(state);
	}
	else if (type == FIELD_TIME)
		push_time(state, time_from_json(value, psprintf("steps.%s", key),
										complaint));
	else
	{
		if (type == FIELD_TEXT && value->type != jbvString)
			sagaz_complain(complaint, psprintf("steps.%s", key),
						   "not a text");
		if (type == FIELD_COUNT && value->type != jbvNumeric)
			sagaz_complain(complaint, psprintf("steps.%s", key),
						   "not a number");
		pushJsonbValue(state, WJB_VALUE, value);
	}
}

static void
push_step(JsonbParseState **state, JsonbContainer *step, char **complaint)
{
	JsonbIterator *iterator = JsonbIteratorInit(step);
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	value;

	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < (int) lengthof(step_keys); i++)
		push_step_value(state, step_keys[i].type, step_keys[i].key,
						getKeyJsonValueFromContainer(step, step_keys[i].key,
													 strlen(step_keys[i].key),
													 NULL),
						complaint);
	while ((token = JsonbIteratorNext(&iterator, &key, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&iterator, &value, true);
		if (is_step_key(&key))
			continue;
		pushJsonbValue(state, WJB_KEY, &key);
		pushJsonbValue(state, WJB_VALUE, &value);
	}
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

Jsonb *
sagaz_normal_steps(Jsonb *steps, char **complaint)
{
	JsonbParseState *state = NULL;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	if (!is_null(steps) &&
		(!JB_ROOT_IS_ARRAY(steps) || JB_ROOT_IS_SCALAR(steps)))
		sagaz_complain(complaint, "steps", "not an array");
	else if (!is_null(steps))
	{
		iterator = JsonbIteratorInit(&steps->root);
		while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
		{
			if (token != WJB_ELEM)
				continue;
			if (value.type != jbvBinary ||
				!JsonContainerIsObject(value.val.binary.data))
				sagaz_complain(complaint, "steps", "not an array of objects");
			else
				push_step(&state, value.val.binary.data, complaint);
		}
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

/*
 * Reading of JSON
 */

static void
read_count(const Field *field, SagazRecord *record, JsonbValue *value,
		   char **complaint)
{
	bool		out_of_range = false;
	int32		count = 0;

	if (value->type == jbvNumeric)
		count = numeric_int4_opt_error(value->val.numeric, &out_of_range);
	if (value->type != jbvNumeric || out_of_range || count < 0)
		sagaz_complain(complaint, field->name,
					   "not a number between 0 and 2147483647");
	else
		at(record, field, int32) = count;
}

static void
read_field(const Field *field, SagazRecord *record, JsonbValue *value,
		   char **complaint)
{
	switch (field->type)
	{
		case FIELD_TEXT:
			value = unwrap(value, "enum");
			if (value->type != jbvString)
				sagaz_complain(complaint, field->name, "not a text");
			else
				at(record, field, char *) = pnstrdup(value->val.string.val,
													 value->val.string.len);
			break;
		case FIELD_JSON:
			at(record, field, Jsonb *) = JsonbValueToJsonb(value);
			break;
		case FIELD_TIME:
			at(record, field, TimestampTz) =
				time_from_json(value, field->name, complaint);
			break;
		case FIELD_COUNT:
			read_count(field, record, value, complaint);
			break;
	}
}

/* What is wrong with a record that any store of ours would refuse. */
void
sagaz_record_check(SagazKind kind, SagazRecord *record)
{
	char	  **complaint = complaint_of(kind, record);
	const char *status = kind == SAGAZ_SAGA ? record->saga.status :
		record->event.status;

	for (const Field *field = fields_of(kind); field->name; field++)
	{
		if (!field->required)
			continue;
		if (field->type == FIELD_TIME
			? at(record, field, TimestampTz) == SAGAZ_NO_TIME
			: at(record, field, char *) == NULL)
			sagaz_complain(complaint, field->name, "missing");
		else if (field->type == FIELD_TEXT &&
				 at(record, field, char *)[0] == '\0')
			sagaz_complain(complaint, field->name, "empty");
	}
	if (status != NULL && sagaz_status_number(kind, status) < 0)
		sagaz_complain(complaint, "status",
					   psprintf("\"%s\" is not a status", status));
	if (kind == SAGAZ_EVENT && record->event.headers != NULL &&
		!JB_ROOT_IS_OBJECT(record->event.headers))
		sagaz_complain(complaint, "headers", "not an object");
}

/* Defaults of what a record leaves out, as the library has them. */
static void
fill_in(SagazKind kind, SagazRecord *record)
{
	SagazEventRecord *event = &record->event;

	if (kind == SAGAZ_SAGA)
	{
		record->saga.steps = sagaz_normal_steps(record->saga.steps,
												&record->saga.complaint);
		return;
	}
	if (event->aggregate_type == NULL)
		event->aggregate_type = pstrdup("saga");
	if (event->aggregate_id == NULL && event->saga_id != NULL)
		event->aggregate_id = pstrdup(event->saga_id);
	if (event->headers == NULL)
		event->headers = sagaz_json_from_text("{}", 2, "headers",
											  &event->complaint);
}

void
sagaz_record_from_json(SagazKind kind, SagazRecord *record, Jsonb *json)
{
	char	  **complaint = complaint_of(kind, record);

	sagaz_record_init(kind, record);
	if (!JB_ROOT_IS_OBJECT(json))
	{
		sagaz_complain(complaint, "record", "not an object");
		return;
	}
	for (const Field *field = fields_of(kind); field->name; field++)
	{
		JsonbValue *value =
			getKeyJsonValueFromContainer(&json->root, field->name,
										 strlen(field->name), NULL);

		if (value != NULL && value->type != jbvNull)
			read_field(field, record, value, complaint);
	}
	fill_in(kind, record);
	sagaz_record_check(kind, record);
}
