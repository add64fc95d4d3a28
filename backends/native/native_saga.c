/*
 * native_saga.c
 *		Putting and removing sagas of the native tables.
 *
 * Most sagas of a copy are new: each is tried as such, and its steps wait in
 * the writer's queue.  One that is there is compared with the bytes of its
 * columns first, and in normal form only if those differ.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "backends/native/native_store.h"
#include "backends/record/record.h"
#include "lib/tuples.h"

typedef struct SagaPut
{
	NativePut  *put;
	SagazWriter *sagas;
	SagazWriter *steps;
	Snapshot	snapshot;		/* registered */
	const SagazRecord *record;	/* the present one, and its rows: */
	SagaRow		row;
	SagaSteps	wanted;			/* in the order of their names */
} SagaPut;

/* JSON's null is a NULL. */
static void
set_saga_json(SagaRow *row, int attnum, Jsonb *json)
{
	JsonbValue	scalar;

	row->nulls[attnum - 1] = true;
	if (json == NULL ||
		(JB_ROOT_IS_SCALAR(json) && JsonbExtractScalar(&json->root, &scalar) &&
		 scalar.type == jbvNull))
		return;
	saga_set(row, attnum, JsonbPGetDatum(json));
}

/* Make the rows of a record. */
static void
make_saga_rows(SagaPut *put, const SagazRecord *record)
{
	const SagazSaga *saga = &record->saga;
	SagaRow    *row = &put->row;

	put->record = record;
	saga_set(row, saga_saga_id, CStringGetTextDatum(saga->saga_id));
	saga_set(row, saga_saga_name, CStringGetTextDatum(saga->saga_name));
	saga_set(row, saga_status,
			 ObjectIdGetDatum(saga_status_word_oid(&saga_statuses, saga->status)));
	set_saga_json(row, saga_context, saga->context);
	set_saga_json(row, saga_metadata, saga->metadata);
	saga_set(row, saga_version, Int64GetDatum(Max(saga->version, 1)));
	saga_set(row, saga_created_at,
			 TimestampTzGetDatum(sagaz_real_time(saga->created_at)));
	saga_set(row, saga_updated_at,
			 TimestampTzGetDatum(sagaz_real_time(saga->updated_at)));
	put->wanted = saga_parse_steps(saga_get(row, saga_saga_id), saga->steps);
}

static void
look_at_saga_anew(SagaPut *put)
{
	sagaz_writer_flush(put->steps);
	CommandCounterIncrement();
	UnregisterSnapshot(put->snapshot);
	put->snapshot = saga_latest_snapshot();
}

/* False if there is one of that id, as far as others have committed. */
static bool
insert_native_saga(SagaPut *put)
{
	saga_put_row(put->sagas, &put->row);
	if (!sagaz_writer_try_insert(put->sagas))
		return false;
	for (int i = 0; i < put->wanted.count; i++)
	{
		saga_put_row(put->steps, &put->wanted.rows[i]);
		sagaz_writer_queue(put->steps);
		if (put->steps->queued == SAGAZ_WRITER_QUEUE)
			sagaz_writer_flush(put->steps);
	}
	put->put->merged.added++;
	return true;
}

static bool
saga_is_same(SagaPut *put, SagaRow *old)
{
	SagazRecord there = {.kind = SAGAZ_SAGA};
	SagaSteps	steps = saga_read_steps(saga_get(old, saga_saga_id),
										put->snapshot);

	native_saga_of_row(old, &steps, &there.saga);
	return sagaz_record_same(&there, put->record);
}

/* False if another transaction was faster. */
static bool
replace_native_saga(SagaPut *put, SagaRow *old)
{
	SagaRow		row = put->row;
	int64		version = DatumGetInt64(saga_get(old, saga_version));
	SagaStepChange *changes;
	int			count = saga_step_changes(put->steps, &put->wanted,
										  saga_get(old, saga_saga_id),
										  put->snapshot, &changes);
	bool		same;

	saga_set(&row, saga_version, saga_get(old, saga_version));
	same = saga_keep_unchanged(RelationGetDescr(put->sagas->rel), &row, old);
	if ((same && count == 0) || saga_is_same(put, old))
	{
		put->put->merged.unchanged++;
		return true;
	}
	saga_set(&row, saga_version,
			 Int64GetDatum(Max(version + 1, put->record->saga.version)));
	saga_put_row(put->sagas, &row);
	if (saga_look_again(sagaz_writer_try_update(put->sagas, &old->tid,
												put->snapshot)))
		return false;
	for (int i = 0; i < count; i++)
		saga_change_step(put->steps, &changes[i], put->snapshot);
	put->put->merged.changed++;
	return true;
}

/*
 * Merge with the one that is there.  One that the snapshot has not was made
 * or removed by another since; false then, to look again.
 */
static bool
merge_saga(SagaPut *put)
{
	SagaRow		old;

	if (saga_read(saga_get(&put->row, saga_saga_id), put->snapshot, &old))
		return replace_native_saga(put, &old);
	return insert_native_saga(put) || !saga_look_again(TM_Updated);
}

static void
put_saga(SagaPut *put, const SagazRecord *record)
{
	sagaz_check_fit(record);
	make_saga_rows(put, record);
	if (insert_native_saga(put))
		return;
	if (put->put->mode == SAGAZ_PUT_NEW)
		native_refuse_twin(record);
	if (put->put->mode == SAGAZ_PUT_MISSING)
		return;
	while (!merge_saga(put))
	{
		CHECK_FOR_INTERRUPTS();
		look_at_saga_anew(put);
	}
}

/*
 * Where another transaction changes a saga at the same time it is waited
 * for, and looked at anew; in a REPEATABLE READ transaction that is an
 * error.  What is written is visible to the next snapshot.
 */
void
native_put_sagas(NativePut *put, SagazRecord *records, int count)
{
	SagaPut		sagas = {.put = put};
	MemoryContext item = AllocSetContextCreate(CurrentMemoryContext,
											   "sagaz put",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer;

	sagas.sagas = sagaz_writer_begin("sagas");
	sagas.steps = sagaz_writer_begin("saga_steps");
	sagas.snapshot = saga_latest_snapshot();
	outer = MemoryContextSwitchTo(item);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		put_saga(&sagas, &records[i]);
		MemoryContextReset(item);
	}
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(item);
	sagaz_writer_flush(sagas.steps);
	UnregisterSnapshot(sagas.snapshot);
	sagaz_writer_end(sagas.steps);
	sagaz_writer_end(sagas.sagas);
	CommandCounterIncrement();
}

/*
 * Waits for who is changing one of them; what is gone is visible to the next
 * snapshot.
 */
int64
native_remove_sagas(const char *const *keys, int nkeys)
{
	int64		removed = 0;

	for (int i = 0; i < nkeys; i++)
	{
		Datum		saga_id = CStringGetTextDatum(keys[i]);

		removed += saga_delete(saga_id);
		pfree(DatumGetPointer(saga_id));
	}
	return removed;
}
