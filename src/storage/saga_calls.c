/*
 * saga_calls.c
 *		Saga functions on storages other than the native tables.
 *
 * Written once over backend.h.  A change reads and writes the saga in one
 * edit, which the backend makes atomic; it is not undone when the PostgreSQL
 * transaction rolls back.
 */
#include "lib/sagaz.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "storage/calls.h"
#include "backends/record/record.h"
#include "lib/rows.h"
#include "saga/saga.h"
#include "storage/records.h"
#include "lib/times.h"
#include "lib/words.h"

/* Raise what is wrong with a stored record. */
void
sagaz_call_check_readable(const SagazStore *store, const SagazRecord *record)
{
	if (record->problem == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_SERIALIZATION),
			 errmsg("record \"%s\" of storage \"%s\" cannot be read",
					sagaz_record_key(record) ? sagaz_record_key(record) : "",
					store->name),
			 errdetail("%s.", record->problem)));
}

/* The saga of that id; false if there is none. */
static bool
get_saga(SagazStore *store, const char *saga_id, SagazRecord *record)
{
	SagazFilter filter = {.key = saga_id};
	SagazReader *reader = sagaz_store_read_begin(store, SAGAZ_SAGA, &filter);
	bool		found = sagaz_store_read_next(reader, record);

	sagaz_store_read_end(reader);
	if (found)
		sagaz_call_check_readable(store, record);
	return found;
}

/* ---------------------------------------------------------------------- */
/* save */

typedef struct Save
{
	SagazSaga	wanted;
	bool		any_version;
	int64		expected_version;
	int64		version;		/* the outcome */
} Save;

static void
version_conflict(const Save *save, int64 present)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CONCURRENCY),
			 errmsg("saga \"%s\" has another version than expected",
					save->wanted.saga_id),
			 errdetail("It has version " INT64_FORMAT ", expected was " INT64_FORMAT ".",
					   present, save->expected_version),
			 errhint("Load the saga again, and decide anew.")));
}

static SagazVerdict
save_edit(SagazRecord *record, bool exists, void *arg)
{
	Save	   *save = arg;
	SagazSaga  *saga = &record->saga;
	int64		present = exists ? saga->version : 0;
	TimestampTz now = GetCurrentTimestamp();

	if (!save->any_version && save->expected_version != present)
		version_conflict(save, present);
	save->version = present;
	if (exists && sagaz_record_same_saga(saga, &save->wanted))
		return SAGAZ_KEEP;
	save->wanted.created_at = exists ? saga->created_at : now;
	save->wanted.updated_at = now;
	save->wanted.version = save->version = present + 1;
	*saga = save->wanted;
	return SAGAZ_CHANGE;
}

static Jsonb *
json_argument(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : PG_GETARG_JSONB_P(argno);
}

static bool
is_json_null(Jsonb *json)
{
	JsonbValue	value;

	return JB_ROOT_IS_SCALAR(json) && JsonbExtractScalar(&json->root, &value) &&
		value.type == jbvNull;
}

/* save_saga_state(saga_id, saga_name, status, steps, context, metadata, expected_version) */
Datum
sagaz_call_save_saga_state(FunctionCallInfo fcinfo, SagazStore *store)
{
	Save		save = {0};
	SagazFilter filter = {0};
	SagazRecord record;
	Datum		saga_id = saga_text_argument(fcinfo, 0, "saga_id", SAGA_ID_LENGTH);

	save.wanted.saga_id = TextDatumGetCString(saga_id);
	save.wanted.saga_name =
		TextDatumGetCString(saga_text_argument(fcinfo, 1, "saga_name", SAGA_NAME_LENGTH));
	save.wanted.status = sagaz_text_argument(fcinfo, 2, "status");
	(void) saga_status_of_word(&saga_statuses, save.wanted.status, "status");
	save.wanted.steps = json_argument(fcinfo, 3);
	if (save.wanted.steps == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("steps must not be null"),
				 errhint("A saga without steps has the empty array.")));
	(void) saga_parse_steps(saga_id, save.wanted.steps);
	save.wanted.steps = sagaz_normal_steps(save.wanted.steps);
	save.wanted.context = json_argument(fcinfo, 4);
	if (save.wanted.context == NULL)
		save.wanted.context = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("null")));
	save.wanted.metadata = json_argument(fcinfo, 5);
	if (save.wanted.metadata && is_json_null(save.wanted.metadata))
		save.wanted.metadata = NULL;
	save.any_version = PG_ARGISNULL(6);
	save.expected_version = saga_version_argument(fcinfo, 6);
	filter.key = save.wanted.saga_id;
	(void) sagaz_edit(store, SAGAZ_SAGA, &filter, true, save_edit, &save);
	if (save.version == 0)		/* an edit passes over what it cannot read */
		(void) get_saga(store, filter.key, &record);
	PG_RETURN_INT64(save.version);
}

/* ---------------------------------------------------------------------- */
/* load, delete */

/* The normal form with the version on top, as the native function has it. */
static Jsonb *
with_version(const SagazRecord *record)
{
	JsonbParseState *state = NULL;
	Jsonb	   *version;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	sagaz_json_push_int(&state, "version", record->saga.version);
	version = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_concat,
											  JsonbPGetDatum(sagaz_record_to_json(record)),
											  JsonbPGetDatum(version)));
}

/* load_saga_state(saga_id) */
Datum
sagaz_call_load_saga_state(FunctionCallInfo fcinfo, SagazStore *store)
{
	char	   *saga_id = sagaz_text_argument(fcinfo, 0, "saga_id");
	SagazRecord record;

	if (!get_saga(store, saga_id, &record))
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(with_version(&record));
}

/* delete_saga_state(saga_id) */
Datum
sagaz_call_delete_saga_state(FunctionCallInfo fcinfo, SagazStore *store)
{
	SagazFilter filter = {.key = sagaz_text_argument(fcinfo, 0, "saga_id")};

	PG_RETURN_BOOL(sagaz_remove_matching(store, SAGAZ_SAGA, &filter) > 0);
}

/* ---------------------------------------------------------------------- */
/* update_step_state */

typedef struct StepUpdate
{
	const char *saga_id;
	const char *step_name;
	const char *status;			/* this and what follows: 0 or NULL leaves it */
	Jsonb	   *result;
	const char *error;
	TimestampTz executed_at;
	TimestampTz compensated_at;
	bool		found;
	int64		version;
} StepUpdate;

static bool
is_the_step(JsonbValue *step, const char *name)
{
	JsonbValue *value;

	if (step->type != jbvBinary || !JsonContainerIsObject(step->val.binary.data))
		return false;
	value = getKeyJsonValueFromContainer(step->val.binary.data, "name", 4, NULL);
	return value && value->type == jbvString &&
		value->val.string.len == (int) strlen(name) &&
		memcmp(value->val.string.val, name, value->val.string.len) == 0;
}

/* The keys that the update gives, as an object to be laid over the step. */
static Jsonb *
update_object(const StepUpdate *update)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (update->status)
		sagaz_json_push_string(&state, "status", update->status);
	if (update->result)
		sagaz_push_json(&state, "result", update->result);
	if (update->error)
		sagaz_json_push_string(&state, "error", update->error);
	if (update->executed_at != 0)
		sagaz_json_push_time(&state, "executed_at", update->executed_at);
	if (update->compensated_at != 0)
		sagaz_json_push_time(&state, "compensated_at", update->compensated_at);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* The steps with the update in its place. */
static Jsonb *
updated_steps(StepUpdate *update, Jsonb *steps)
{
	JsonbParseState *state = NULL;
	JsonbIterator *iterator = JsonbIteratorInit(&steps->root);
	JsonbIteratorToken token;
	JsonbValue	step;

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	while ((token = JsonbIteratorNext(&iterator, &step, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (!update->found && is_the_step(&step, update->step_name))
		{
			Datum		changed =
				DirectFunctionCall2(jsonb_concat,
									JsonbPGetDatum(JsonbValueToJsonb(&step)),
									JsonbPGetDatum(update_object(update)));

			update->found = true;
			sagaz_json_value_of(DatumGetJsonbP(changed), &step);
		}
		pushJsonbValue(&state, WJB_ELEM, &step);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

static SagazVerdict
step_edit(SagazRecord *record, bool exists, void *arg)
{
	StepUpdate *update = arg;
	SagazSaga  *saga = &record->saga;
	SagazSaga	before = *saga;

	update->found = false;
	saga->steps = sagaz_normal_steps(updated_steps(update, saga->steps));
	if (!update->found)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_NOT_FOUND),
				 errmsg("saga \"%s\" has no step \"%s\"", update->saga_id,
						update->step_name)));
	update->version = saga->version;
	if (sagaz_record_same_saga(saga, &before))
		return SAGAZ_KEEP;
	saga->updated_at = GetCurrentTimestamp();
	update->version = ++saga->version;
	return SAGAZ_CHANGE;
}

static TimestampTz
time_argument(FunctionCallInfo fcinfo, int argno, const char *field)
{
	if (PG_ARGISNULL(argno))
		return 0;
	if (!sagaz_time_in_range(PG_GETARG_TIMESTAMPTZ(argno)))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("%s must be in the years 1 to 9999", field)));
	return sagaz_record_time(PG_GETARG_TIMESTAMPTZ(argno));
}

/* update_step_state(saga_id, step_name, status, result, error, executed_at, compensated_at) */
Datum
sagaz_call_update_step_state(FunctionCallInfo fcinfo, SagazStore *store)
{
	StepUpdate	update = {0};
	SagazFilter filter = {0};
	SagazRecord record;

	update.saga_id = sagaz_text_argument(fcinfo, 0, "saga_id");
	update.step_name = sagaz_text_argument(fcinfo, 1, "step_name");
	if (!PG_ARGISNULL(2))
	{
		update.status = sagaz_text_argument(fcinfo, 2, "status");
		(void) saga_status_of_word(&step_statuses, update.status, "status");
	}
	update.result = json_argument(fcinfo, 3);
	update.error = sagaz_text_argument_or_null(fcinfo, 4);
	update.executed_at = time_argument(fcinfo, 5, "executed_at");
	update.compensated_at = time_argument(fcinfo, 6, "compensated_at");
	filter.key = update.saga_id;
	(void) sagaz_edit(store, SAGAZ_SAGA, &filter, false, step_edit, &update);
	if (!update.found && !get_saga(store, update.saga_id, &record))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_NOT_FOUND),
				 errmsg("saga \"%s\" does not exist", update.saga_id)));
	PG_RETURN_INT64(update.version);
}

/* ---------------------------------------------------------------------- */
/* Lists */

static int
count_completed(Jsonb *steps)
{
	JsonbIterator *iterator = JsonbIteratorInit(&steps->root);
	JsonbIteratorToken token;
	JsonbValue	step;
	int			count = 0;

	while ((token = JsonbIteratorNext(&iterator, &step, true)) != WJB_DONE)
	{
		JsonbValue *status;

		if (token != WJB_ELEM || step.type != jbvBinary ||
			!JsonContainerIsObject(step.val.binary.data))
			continue;
		status = getKeyJsonValueFromContainer(step.val.binary.data, "status", 6, NULL);
		if (status && status->type == jbvString && status->val.string.len == 9 &&
			memcmp(status->val.string.val, "completed", 9) == 0)
			count++;
	}
	return count;
}

static bool
is_saga_status(const char *word)
{
	for (int i = 0; sagaz_saga_words[i]; i++)
		if (strcmp(sagaz_saga_words[i], word) == 0)
			return true;
	return false;
}

/* A row of type saga_summary. */
static void
put_summary(ReturnSetInfo *result, const SagazSaga *saga)
{
	Jsonb	   *steps = sagaz_normal_steps(saga->steps);
	Datum		values[] = {
		CStringGetTextDatum(saga->saga_id),
		CStringGetTextDatum(saga->saga_name),
		ObjectIdGetDatum(saga_status_of_word(&saga_statuses, saga->status, "status")),
		TimestampTzGetDatum(sagaz_real_time(saga->created_at)),
		TimestampTzGetDatum(sagaz_real_time(saga->updated_at)),
		Int32GetDatum(JB_ROOT_IS_SCALAR(steps) ? 0 : JB_ROOT_COUNT(steps)),
		Int32GetDatum(count_completed(steps))
	};
	bool		nulls[lengthof(values)] = {false};

	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * Put what can be read of the sagas that the filter finds, but for the first so
 * many; what cannot is returned.  read: how many there were.
 */
static List *
put_summaries(ReturnSetInfo *result, SagazStore *store, const SagazFilter *filter,
			  int64 skip, int64 *read)
{
	SagazReader *reader = sagaz_store_read_begin(store, SAGAZ_SAGA, filter);
	List	   *refused = NIL;
	SagazRecord record;

	for (*read = 0; sagaz_store_read_next(reader, &record); (*read)++)
	{
		/* the library takes any word, a row does not */
		if (record.problem == NULL && !is_saga_status(record.saga.status))
			record.problem = psprintf("status \"%s\" is unknown",
									  record.saga.status);
		if (record.problem)
			refused = lappend(refused, memcpy(palloc(sizeof(SagazRecord)), &record,
											  sizeof(SagazRecord)));
		else if (skip-- <= 0)
			put_summary(result, &record.saga);
	}
	sagaz_store_read_end(reader);
	return refused;
}

/* So many that can be read: where some cannot, more are asked for. */
static void
put_readable_summaries(FunctionCallInfo fcinfo, SagazStore *store, SagazFilter *filter,
					   int64 skip)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int64		wanted = filter->limit;
	List	   *refused;
	ListCell   *cell;
	int64		read;

	while ((refused = put_summaries(result, store, filter, skip, &read)) != NIL &&
		   read == filter->limit && filter->limit < wanted + list_length(refused))
	{
		tuplestore_clear(result->setResult);
		filter->limit = wanted + list_length(refused);
	}
	foreach(cell, refused)
		sagaz_records_warn(store, lfirst(cell));
}

/* list_sagas(status, saga_name, max_rows, skip_rows) */
Datum
sagaz_call_list_sagas(FunctionCallInfo fcinfo, SagazStore *store)
{
	const char *status = sagaz_text_argument_or_null(fcinfo, 0);
	int			max_rows = sagaz_rows_argument(fcinfo, 2, "max_rows");
	int			skip_rows = sagaz_rows_argument(fcinfo, 3, "skip_rows");
	SagazFilter filter = {.order = SAGAZ_NEWEST_FIRST};

	sagaz_rows_begin(fcinfo);
	if (status)
	{
		(void) saga_status_of_word(&saga_statuses, status, "status");
		filter.statuses = &status;
		filter.nstatuses = 1;
	}
	filter.name_part = sagaz_text_argument_or_null(fcinfo, 1);
	filter.limit = (int64) max_rows + skip_rows;
	if (max_rows > 0)
		put_readable_summaries(fcinfo, store, &filter, skip_rows);
	return (Datum) 0;
}

static int
oldest_updated_first(const ListCell *a, const ListCell *b)
{
	const SagazSaga *left = lfirst(a);
	const SagazSaga *right = lfirst(b);

	if (left->updated_at != right->updated_at)
		return left->updated_at < right->updated_at ? -1 : 1;
	return strcmp(left->saga_id, right->saga_id);
}

/* stuck_sagas(older_than) */
Datum
sagaz_call_stuck_sagas(FunctionCallInfo fcinfo, SagazStore *store)
{
	SagazFilter filter = {
		.statuses = sagaz_unfinished_saga_words,.nstatuses = SAGAZ_UNFINISHED_WORDS
	};
	SagazReader *reader;
	SagazRecord record;
	List	   *sagas = NIL;
	ListCell   *cell;

	filter.updated_before = GetCurrentTimestamp() -
		sagaz_interval_argument(fcinfo, 0, "older_than");
	sagaz_rows_begin(fcinfo);
	reader = sagaz_store_read_begin(store, SAGAZ_SAGA, &filter);
	while (sagaz_store_read_next(reader, &record))
		sagas = lappend(sagas, memcpy(palloc(sizeof(SagazSaga)), &record.saga,
									  sizeof(SagazSaga)));
	sagaz_store_read_end(reader);
	list_sort(sagas, oldest_updated_first);
	foreach(cell, sagas)
		put_summary((ReturnSetInfo *) fcinfo->resultinfo, lfirst(cell));
	return (Datum) 0;
}

typedef struct SagaTally
{
	char	   *name;
	const char *status;
	int64		count;
} SagaTally;

static int
compare_tallies(const ListCell *a, const ListCell *b)
{
	const SagaTally *x = lfirst(a);
	const SagaTally *y = lfirst(b);
	int			order = strcmp(x->name, y->name);

	if (order != 0)
		return order;
	for (int i = 0; sagaz_saga_words[i]; i++)
	{
		if (strcmp(sagaz_saga_words[i], x->status) == 0)
			return -1;
		if (strcmp(sagaz_saga_words[i], y->status) == 0)
			return 1;
	}
	return 0;
}

static SagaTally *
find_tally(List **tallies, const SagazSaga *saga)
{
	ListCell   *cell;
	SagaTally  *tally;

	foreach(cell, *tallies)
	{
		tally = lfirst(cell);
		if (strcmp(tally->name, saga->saga_name) == 0 &&
			strcmp(tally->status, saga->status) == 0)
			return tally;
	}
	tally = palloc0(sizeof(SagaTally));
	tally->name = saga->saga_name;
	tally->status = saga->status;
	*tallies = lappend(*tallies, tally);
	return tally;
}

/* get_saga_statistics() */
Datum
sagaz_call_get_saga_statistics(FunctionCallInfo fcinfo, SagazStore *store)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	SagazFilter filter = {0};
	SagazReader *reader = sagaz_store_read_begin(store, SAGAZ_SAGA, &filter);
	SagazRecord record;
	List	   *tallies = NIL;
	ListCell   *cell;

	sagaz_rows_begin(fcinfo);
	while (sagaz_store_read_next(reader, &record))
		if (record.problem == NULL && is_saga_status(record.saga.status))
			find_tally(&tallies, &record.saga)->count++;
	sagaz_store_read_end(reader);
	list_sort(tallies, compare_tallies);
	foreach(cell, tallies)
	{
		SagaTally  *tally = lfirst(cell);
		Datum		values[] = {
			CStringGetTextDatum(tally->name),
			ObjectIdGetDatum(saga_status_of_word(&saga_statuses, tally->status, "status")),
			Int64GetDatum(tally->count),
			BoolGetDatum(false)
		};
		bool		nulls[] = {false, false, false, false};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* cleanup_completed_sagas(older_than, statuses) */
Datum
sagaz_call_cleanup_completed_sagas(FunctionCallInfo fcinfo, SagazStore *store)
{
	SagazFilter filter = {0};
	char	  **statuses;

	filter.updated_before = GetCurrentTimestamp() -
		sagaz_interval_argument(fcinfo, 0, "older_than");
	statuses = sagaz_text_array_argument(fcinfo, 1, "statuses", &filter.nstatuses);
	for (int i = 0; i < filter.nstatuses; i++)
		(void) saga_finished_status(statuses[i]);
	if (filter.nstatuses == 0)
		PG_RETURN_INT64(0);
	filter.statuses = (const char *const *) statuses;
	PG_RETURN_INT64(sagaz_remove_matching(store, SAGAZ_SAGA, &filter));
}
