/*
 * saga_row.c
 *		Rows of sagaz.sagas and sagaz.saga_steps: reading and comparing them.
 */
#include "lib/sagaz.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "utils/datum.h"
#include "utils/snapmgr.h"

#include "saga/saga.h"
#include "lib/tuples.h"

/*
 * The snapshot with which a writer looks at what it is about to change; to be
 * unregistered.  Under READ COMMITTED it sees all that is committed by now.
 */
Snapshot
saga_latest_snapshot(void)
{
	return RegisterSnapshot(IsolationUsesXactSnapshot() ?
							GetTransactionSnapshot() : GetLatestSnapshot());
}

/*
 * Copy a row out of its buffer into the present memory context; values out
 * of line stay there, so the snapshot that found it must last as long.
 */
void
saga_copy_row(TupleTableSlot *slot, SagaRow *row)
{
	TupleDesc	type = slot->tts_tupleDescriptor;

	row->tid = slot->tts_tid;
	for (int i = 0; i < type->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(type, i);

		row->nulls[i] = slot->tts_isnull[i];
		row->values[i] = row->nulls[i] ? (Datum) 0 :
			datumCopy(slot->tts_values[i], column->attbyval, column->attlen);
	}
}

/* Copy the row of a step; names of steps are compared byte by byte later. */
static void
copy_step_row(TupleTableSlot *slot, SagaRow *step)
{
	saga_copy_row(slot, step);
	saga_set(step, step_step_name,
			 PointerGetDatum(PG_DETOAST_DATUM_PACKED(saga_get(step,
															  step_step_name))));
}

/* Append a step that was found. */
void
saga_add_step(SagaSteps *steps, TupleTableSlot *slot)
{
	if (steps->rows == NULL)
		steps->rows = palloc((steps->room = 8) * sizeof(SagaRow));
	else if (steps->count == steps->room)
	{
		steps->room *= 2;
		steps->rows = repalloc_huge(steps->rows,
									(Size) steps->room * sizeof(SagaRow));
	}
	copy_step_row(slot, &steps->rows[steps->count++]);
}

/*
 * The row of a saga, in the present memory context; false if there is none.
 * No lock: who changes it learns from saga_look_again() whether it still is
 * the row.
 */
bool
saga_read(Datum saga_id, Snapshot snapshot, SagaRow *saga)
{
	ScanKeyData key;
	SagazScan  *scan;
	bool		found;

	sagaz_key_text(&key, saga_saga_id, saga_id);
	scan = sagaz_scan_begin("sagas", "sagas_pkey", snapshot, &key, 1,
							ForwardScanDirection);
	found = sagaz_scan_next(scan);
	if (found)
		saga_copy_row(scan->slot, saga);
	sagaz_scan_end(scan);
	return found;
}

/* The steps of a saga, in no order. */
SagaSteps
saga_read_steps(Datum saga_id, Snapshot snapshot)
{
	ScanKeyData key;
	SagazScan  *scan;
	SagaSteps	steps = {0};

	sagaz_key_text(&key, step_saga_id, saga_id);
	scan = sagaz_scan_begin("saga_steps", "saga_steps_pkey", snapshot, &key, 1,
							ForwardScanDirection);
	while (sagaz_scan_next(scan))
		saga_add_step(&steps, scan->slot);
	sagaz_scan_end(scan);
	return steps;
}

/* One step of a saga; false if there is none. */
bool
saga_read_step(Datum saga_id, Datum step_name, Snapshot snapshot,
			   SagaRow *step)
{
	ScanKeyData keys[2];
	SagazScan  *scan;
	bool		found;

	sagaz_key_text(&keys[0], 1, saga_id);
	sagaz_key_text(&keys[1], 2, step_name);
	scan = sagaz_scan_begin("saga_steps", "saga_steps_pkey", snapshot, keys, 2,
							ForwardScanDirection);
	found = sagaz_scan_next(scan);
	if (found)
		copy_step_row(scan->slot, step);
	sagaz_scan_end(scan);
	return found;
}

/* qsort() comparator of steps: by the bytes of the name. */
int
saga_by_step_name(const void *a, const void *b)
{
	struct varlena *left = (struct varlena *)
		DatumGetPointer(saga_get(a, step_step_name));
	struct varlena *right = (struct varlena *)
		DatumGetPointer(saga_get(b, step_step_name));
	Size		left_size = VARSIZE_ANY_EXHDR(left);
	Size		right_size = VARSIZE_ANY_EXHDR(right);
	int			order = memcmp(VARDATA_ANY(left), VARDATA_ANY(right),
							   Min(left_size, right_size));

	if (order != 0)
		return order;
	return left_size < right_size ? -1 : left_size > right_size;
}

/* qsort() comparator of steps: as the user gave them. */
int
saga_by_ordinal(const void *a, const void *b)
{
	int32		left = DatumGetInt32(saga_get(a, step_ordinal));
	int32		right = DatumGetInt32(saga_get(b, step_ordinal));

	return left < right ? -1 : left > right;
}

/*
 * Take the values of the old row where they are the same, as they are stored,
 * so that writing the row does not store them again.  Returns whether that
 * was so in all columns.
 */
bool
saga_keep_unchanged(TupleDesc type, SagaRow *row, const SagaRow *old)
{
	bool		all = true;

	for (int i = 0; i < type->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(type, i);

		if (row->nulls[i] && old->nulls[i])
			continue;
		if (!row->nulls[i] && !old->nulls[i] &&
			datum_image_eq(row->values[i], old->values[i],
						   column->attbyval, column->attlen))
			row->values[i] = old->values[i];
		else
			all = false;
	}
	return all;
}

/* Make this the writer's next row; the values are not copied. */
void
saga_put_row(SagazWriter *writer, const SagaRow *row)
{
	sagaz_writer_row(writer);
	for (int i = 0; i < RelationGetDescr(writer->rel)->natts; i++)
		if (!row->nulls[i])
			sagaz_writer_set(writer, i + 1, row->values[i]);
}

/*
 * What to do after an attempt to change a row that was read with
 * saga_latest_snapshot(): false if that worked, true if another transaction
 * changed the row meanwhile, so that the caller looks again.
 */
bool
saga_look_again(TM_Result result)
{
	switch (result)
	{
		case TM_Ok:
			return false;
		case TM_Updated:
		case TM_Deleted:
			if (IsolationUsesXactSnapshot())
				ereport(ERROR,
						(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						 errmsg("could not serialize access due to concurrent update")));
			return true;
		default:
			elog(ERROR, "unexpected result %d of a change to a saga", result);
	}
}

/*
 * Check that a step was written.  Its saga's row is this transaction's by
 * then, so only SQL that leaves that row alone can have been in the way.
 */
void
saga_step_written(TM_Result result)
{
	if (saga_look_again(result))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update"),
				 errdetail("A step was changed without its saga."),
				 errhint("Try again.")));
}
