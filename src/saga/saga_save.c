/*
 * saga_save.c
 *		save_saga_state() and update_step_state().
 *
 * A save looks at what is there without locking it, works out what differs,
 * and if nothing does, it is done.  Otherwise it writes the saga's row: that
 * waits for others who are changing it, and fails if they did, for then the
 * steps that were looked at may be old too and the save starts over.  From
 * then on the saga is this transaction's, and its steps are written.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "saga/saga.h"
#include "lib/times.h"
#include "lib/tuples.h"

PG_FUNCTION_INFO_V1(sagaz_save_saga_state);
PG_FUNCTION_INFO_V1(sagaz_update_step_state);

/* What to save; the rows keep what the caller said. */
typedef struct SagaSave
{
	SagazWriter *sagas;
	SagazWriter *steps;
	Snapshot	snapshot;		/* of the present attempt */
	SagaRow		wanted;
	SagaSteps	wanted_steps;	/* in the order of their names */
	bool		any_version;
	int64		expected_version;	/* unless any; 0: not there */
	int64		version;		/* the result */
} SagaSave;

/*
 * Put a new version of a saga in place of old; false if another transaction
 * was faster.
 */
static bool
replace_saga(SagazWriter *sagas, SagaRow *saga, SagaRow *old,
			 Snapshot snapshot)
{
	saga_set(saga, saga_version,
			 Int64GetDatum(DatumGetInt64(saga_get(old, saga_version)) + 1));
	saga_set(saga, saga_updated_at,
			 TimestampTzGetDatum(GetCurrentTimestamp()));
	saga_put_row(sagas, saga);
	return !saga_look_again(sagaz_writer_try_update(sagas, &old->tid,
													snapshot));
}

static void
check_saved_version(const SagaSave *save, int64 present)
{
	if (save->any_version || save->expected_version == present)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CONCURRENCY),
			 errmsg("saga is not at the expected version"),
			 present == 0 ?
			 errdetail("Saga \"%s\" does not exist, expected was version " INT64_FORMAT ".",
					   TextDatumGetCString(saga_get(&save->wanted, saga_saga_id)),
					   save->expected_version) :
			 errdetail("Saga \"%s\" is at version " INT64_FORMAT ", expected was " INT64_FORMAT ".",
					   TextDatumGetCString(saga_get(&save->wanted, saga_saga_id)),
					   present, save->expected_version),
			 errhint("Load the saga and apply the change to what is there now.")));
}

/* The first save; false if another transaction made the saga meanwhile. */
static bool
insert_saga(SagaSave *save)
{
	SagaRow		saga = save->wanted;
	Datum		now = TimestampTzGetDatum(GetCurrentTimestamp());

	saga_set(&saga, saga_version, Int64GetDatum(1));
	saga_set(&saga, saga_created_at, now);
	saga_set(&saga, saga_updated_at, now);
	saga_put_row(save->sagas, &saga);
	if (!sagaz_writer_try_insert(save->sagas))
		return !saga_look_again(TM_Updated);
	for (int i = 0; i < save->wanted_steps.count; i++)
	{
		saga_put_row(save->steps, &save->wanted_steps.rows[i]);
		sagaz_writer_insert(save->steps);
	}
	save->version = 1;
	return true;
}

/* A later save; false if another transaction changed the saga meanwhile. */
static bool
update_saga(SagaSave *save, SagaRow *old)
{
	SagaRow		saga = save->wanted;
	SagaStepChange *changes;
	int			count = saga_step_changes(save->steps, &save->wanted_steps,
										  saga_get(&save->wanted, saga_saga_id),
										  save->snapshot, &changes);
	bool		same;

	save->version = DatumGetInt64(saga_get(old, saga_version));
	saga_set(&saga, saga_version, saga_get(old, saga_version));
	saga_set(&saga, saga_created_at, saga_get(old, saga_created_at));
	saga_set(&saga, saga_updated_at, saga_get(old, saga_updated_at));
	same = saga_keep_unchanged(RelationGetDescr(save->sagas->rel), &saga, old);
	if (same && count == 0)
		return true;
	if (!replace_saga(save->sagas, &saga, old, save->snapshot))
		return false;
	for (int i = 0; i < count; i++)
		saga_change_step(save->steps, &changes[i], save->snapshot);
	save->version++;
	return true;
}

static bool
try_save(SagaSave *save)
{
	SagaRow		old;

	if (saga_read(saga_get(&save->wanted, saga_saga_id), save->snapshot, &old))
	{
		check_saved_version(save, DatumGetInt64(saga_get(&old, saga_version)));
		return update_saga(save, &old);
	}
	check_saved_version(save, 0);
	return insert_saga(save);
}

static void
save_saga(SagaSave *save)
{
	bool		done;

	save->sagas = sagaz_writer_begin("sagas");
	save->steps = sagaz_writer_begin("saga_steps");
	do
	{
		CHECK_FOR_INTERRUPTS();
		save->snapshot = saga_latest_snapshot();
		done = try_save(save);
		UnregisterSnapshot(save->snapshot);
	} while (!done);
	sagaz_writer_end(save->steps);
	sagaz_writer_end(save->sagas);
	CommandCounterIncrement();
}

/* A JSON argument; NULL and JSON's null are one and the same. */
static void
set_saved_json(SagaRow *row, int attnum, FunctionCallInfo fcinfo, int argno)
{
	Jsonb	   *json;
	JsonbValue	scalar;

	row->nulls[attnum - 1] = true;
	if (PG_ARGISNULL(argno))
		return;
	json = PG_GETARG_JSONB_P(argno);
	if (JB_ROOT_IS_SCALAR(json) && JsonbExtractScalar(&json->root, &scalar) &&
		scalar.type == jbvNull)
		return;
	saga_set(row, attnum, JsonbPGetDatum(json));
}

/*
 * save_saga_state(saga_id, saga_name, status, steps, context, metadata,
 *				   expected_version, storage)
 */
Datum
sagaz_save_saga_state(PG_FUNCTION_ARGS)
{
	SagaSave	save = {0};

	saga_set(&save.wanted, saga_saga_id,
			 saga_text_argument(fcinfo, 0, "saga_id", SAGA_ID_LENGTH));
	saga_set(&save.wanted, saga_saga_name,
			 saga_text_argument(fcinfo, 1, "saga_name", SAGA_NAME_LENGTH));
	saga_set(&save.wanted, saga_status,
			 ObjectIdGetDatum(saga_status_of_word(&saga_statuses,
												  sagaz_text_argument(fcinfo, 2, "status"),
												  "status")));
	if (PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("steps must not be null"),
				 errhint("A saga without steps has the empty array.")));
	save.wanted_steps = saga_parse_steps(saga_get(&save.wanted, saga_saga_id),
										 PG_GETARG_JSONB_P(3));
	set_saved_json(&save.wanted, saga_context, fcinfo, 4);
	set_saved_json(&save.wanted, saga_metadata, fcinfo, 5);
	save.any_version = PG_ARGISNULL(6);
	save.expected_version = saga_version_argument(fcinfo, 6);
	save_saga(&save);
	PG_RETURN_INT64(save.version);
}

static void
set_saved_time(SagaRow *step, int attnum, FunctionCallInfo fcinfo, int argno,
			   const char *field)
{
	if (PG_ARGISNULL(argno))
		return;
	if (!sagaz_time_in_range(PG_GETARG_TIMESTAMPTZ(argno)))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("%s must be in the years 1 to 9999", field)));
	saga_set(step, attnum, PG_GETARG_DATUM(argno));
}

/* The values that the arguments of update_step_state() give. */
static void
read_step_arguments(SagaRow *given, FunctionCallInfo fcinfo)
{
	if (!PG_ARGISNULL(2))
		saga_set(given, step_status,
				 ObjectIdGetDatum(saga_status_of_word(&step_statuses,
													  sagaz_text_argument(fcinfo, 2, "status"),
													  "status")));
	set_saved_json(given, step_result, fcinfo, 3);
	if (!PG_ARGISNULL(4))
		saga_set(given, step_error, PointerGetDatum(PG_GETARG_TEXT_PP(4)));
	set_saved_time(given, step_executed_at, fcinfo, 5, "executed_at");
	set_saved_time(given, step_compensated_at, fcinfo, 6, "compensated_at");
}

/* Put those of them that are not NULL into the step. */
static void
apply_step_arguments(SagaRow *step, const SagaRow *given,
					 FunctionCallInfo fcinfo)
{
	static const int attnums[] = {
		step_status, step_result, step_error, step_executed_at,
		step_compensated_at
	};

	for (int i = 0; i < (int) lengthof(attnums); i++)
		if (!PG_ARGISNULL(2 + i))
		{
			step->values[attnums[i] - 1] = given->values[attnums[i] - 1];
			step->nulls[attnums[i] - 1] = given->nulls[attnums[i] - 1];
		}
}

static void
find_step_to_save(Datum saga_id, Datum step_name, Snapshot snapshot, SagaRow *saga,
				  SagaRow *step)
{
	if (!saga_read(saga_id, snapshot, saga))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_NOT_FOUND),
				 errmsg("saga \"%s\" does not exist",
						TextDatumGetCString(saga_id))));
	if (!saga_read_step(saga_id, step_name, snapshot, step))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_NOT_FOUND),
				 errmsg("saga \"%s\" has no step \"%s\"",
						TextDatumGetCString(saga_id),
						TextDatumGetCString(step_name))));
}

/*
 * update_step_state(saga_id, step_name, status, result, error, executed_at,
 *					 compensated_at, storage)
 */
Datum
sagaz_update_step_state(PG_FUNCTION_ARGS)
{
	Datum		saga_id;
	Datum		step_name;
	SagaRow		given;
	SagaRow		old_saga;
	SagaRow		old_step;
	SagazWriter *sagas;
	SagazWriter *steps;
	bool		done;

	saga_id = saga_text_argument(fcinfo, 0, "saga_id", SAGA_ID_LENGTH);
	step_name = saga_text_argument(fcinfo, 1, "step_name", STEP_NAME_LENGTH);
	read_step_arguments(&given, fcinfo);

	sagas = sagaz_writer_begin("sagas");
	steps = sagaz_writer_begin("saga_steps");
	do
	{
		Snapshot	snapshot = saga_latest_snapshot();
		SagaRow		saga;
		SagaRow		step;

		CHECK_FOR_INTERRUPTS();
		find_step_to_save(saga_id, step_name, snapshot, &old_saga, &old_step);
		saga = old_saga;
		step = old_step;
		apply_step_arguments(&step, &given, fcinfo);
		done = saga_keep_unchanged(RelationGetDescr(steps->rel), &step,
								   &old_step);
		if (!done)
		{
			done = replace_saga(sagas, &saga, &old_saga, snapshot);
			if (done)
			{
				saga_put_row(steps, &step);
				saga_step_written(sagaz_writer_try_update(steps, &old_step.tid,
														  snapshot));
			}
			old_saga = saga;
		}
		UnregisterSnapshot(snapshot);
	} while (!done);
	sagaz_writer_end(steps);
	sagaz_writer_end(sagas);
	CommandCounterIncrement();
	PG_RETURN_DATUM(saga_get(&old_saga, saga_version));
}
