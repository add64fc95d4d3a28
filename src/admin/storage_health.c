/*
 * storage_health.c
 *		health_check() of a storage: is it there, and how soon does it answer?
 */
#include "lib/sagaz.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"

#include "storage/secrets.h"
#include "storage/storage.h"

extern Datum sagaz_health_check(PG_FUNCTION_ARGS);

PG_FUNCTION_INFO_V1(sagaz_any_health_check);

/* What health_check() finds out about a storage. */
typedef struct StorageHealth
{
	SagazStore *store;			/* NULL if it cannot be opened */
	char	   *complaint;
	double		latency_ms;
} StorageHealth;

/*
 * Open and ping the storage that the last argument names.  That it does not
 * answer is a finding; that there is none, or that the caller may not use it,
 * is an error, and a cancel is passed on.
 */
static void
try_storage(FunctionCallInfo fcinfo, StorageHealth *health)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		health->store = sagaz_storage_argument(fcinfo, SAGAZ_EVENT);
		if (health->store)
			health->store->backend->ping(health->store);
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

static Datum
health_row(FunctionCallInfo fcinfo, const StorageHealth *health)
{
	JsonbParseState *state = NULL;
	const SagazStore *store = health->store;
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
	values[0] = CStringGetTextDatum(health->complaint ? "unhealthy" : "healthy");
	values[1] = Float8GetDatum(health->latency_ms);
	values[2] = CStringGetTextDatum(health->complaint ? health->complaint :
									"the storage is fit");
	values[3] = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(row_type),
													  values, nulls)));
}

static Datum
check_health(FunctionCallInfo fcinfo)
{
	StorageHealth health = {0};
	instr_time	start;
	instr_time	end;

	INSTR_TIME_SET_CURRENT(start);
	try_storage(fcinfo, &health);
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	health.latency_ms = INSTR_TIME_GET_MILLISEC(end);
	if (health.store == NULL && health.complaint == NULL)
		return sagaz_health_check(fcinfo);
	return health_row(fcinfo, &health);
}

/* health_check(storage): is the storage there, and how soon does it answer? */
Datum
sagaz_any_health_check(PG_FUNCTION_ARGS)
{
	return sagaz_with_storage(fcinfo, check_health);
}
