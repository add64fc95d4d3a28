/*
 * storage_health.c
 *		health_check() of a storage: is it there and fit for what it keeps, and
 *		how soon does it answer?
 */
#include "lib/sagaz.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"

#include "storage/examine.h"
#include "storage/secrets.h"
#include "storage/storage.h"

extern Datum sagaz_health_check(PG_FUNCTION_ARGS);


/* What health_check() finds out about a storage. */
typedef struct StorageHealth
{
	SagazStore *store;			/* NULL if it cannot be opened */
	char	   *complaint;
	double		latency_ms;		/* of the first answer */
	SagazExamination examination;
} StorageHealth;

/* What it keeps is tried, each kind by itself. */
static void
try_storage_kinds(StorageHealth *health)
{
	instr_time	start;
	instr_time	end;

	INSTR_TIME_SET_CURRENT(start);
	health->store->backend->ping(health->store);
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	health->latency_ms = INSTR_TIME_GET_MILLISEC(end);
	for (SagazKind kind = SAGAZ_SAGA; kind <= SAGAZ_EVENT; kind++)
		if (sagaz_examine_has_kind(health->store, kind))
			sagaz_storage_examine(health->store, kind, &health->examination);
}

/*
 * Open and try the storage that the last argument names.  That it does not
 * answer is a finding; that there is none, or that the caller may not use it,
 * is an error, and a cancel is passed on.
 */
static void
try_storage(FunctionCallInfo fcinfo, StorageHealth *health)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		health->store = sagaz_storage_argument_of_any(fcinfo);
		if (health->store)
			try_storage_kinds(health);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_SAGAZ_STORAGE &&
			error->sqlerrcode != ERRCODE_SAGAZ_CONNECTION &&
			error->sqlerrcode != ERRCODE_SAGAZ_CONCURRENCY &&
			error->sqlerrcode != ERRCODE_SAGAZ_CAPACITY)
			PG_RE_THROW();
		FlushErrorState();
		health->complaint = sagaz_error_text(error);
	}
	PG_END_TRY();
}

/* All faults in one text; each stands there once, though both kinds have it. */
static char *
join_faults(List *faults)
{
	StringInfoData text;
	ListCell   *cell;

	initStringInfo(&text);
	foreach(cell, faults)
	{
		const char *fault = ((SagazFault *) lfirst(cell))->text;

		if (strstr(text.data, fault) == NULL)
			appendStringInfo(&text, "%s%s", text.len > 0 ? "; " : "", fault);
	}
	return text.len > 0 ? text.data : NULL;
}

static void
add_words(JsonbParseState **state, const char *name, List *words)
{
	ListCell   *cell;

	sagaz_json_push_key(state, name);
	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	foreach(cell, words)
	{
		JsonbValue	value;

		value.type = jbvString;
		value.val.string.val = lfirst(cell);
		value.val.string.len = strlen(lfirst(cell));
		pushJsonbValue(state, WJB_ELEM, &value);
	}
	pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

static Datum
health_row(FunctionCallInfo fcinfo, const StorageHealth *health)
{
	JsonbParseState *state = NULL;
	const SagazStore *store = health->store;
	char	   *faults = join_faults(health->examination.faults);
	TupleDesc	row_type;
	Datum		values[4];
	bool		nulls[4] = {false};

	if (get_call_result_type(fcinfo, NULL, &row_type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (store)
	{
		sagaz_json_push_string(&state, "storage", store->name);
		sagaz_json_push_string(&state, "backend", store->backend->name);
		sagaz_json_push_string(&state, "library_version", store->backend->version());
		sagaz_json_push_string(&state, "consumer_group", store->consumer_group);
		if (store->backend->describe)
			store->backend->describe(health->store, &state);
	}
	add_words(&state, "checked", health->examination.checked);
	values[0] = CStringGetTextDatum(health->complaint ? "unhealthy" :
									faults ? "degraded" : "healthy");
	values[1] = Float8GetDatum(health->latency_ms);
	values[2] = CStringGetTextDatum(health->complaint ? health->complaint :
									faults ? faults : "the storage is fit");
	values[3] = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(row_type),
													  values, nulls)));
}

static Datum
check_health(FunctionCallInfo fcinfo)
{
	StorageHealth health = {0};

	try_storage(fcinfo, &health);
	if (health.store == NULL && health.complaint == NULL)
		return sagaz_health_check(fcinfo);
	return health_row(fcinfo, &health);
}

/* health_check(storage): is the storage there, and how soon does it answer? */
SAGAZ_SQL_FUNCTION(sagaz_any_health_check, sagaz_secrets_hide_storage, check_health);
