/*
 * saga_steps.c
 *		Making the steps of a saga what they are to be, by writing those that
 *		differ.
 */
#include "lib/sagaz.h"

#include "utils/memutils.h"
#include "utils/rel.h"

#include "saga/saga.h"
#include "lib/tuples.h"

/*
 * Compare the steps that are there with those wanted, which are in the order
 * of their names; returns how many differ.  The changes point into both.
 */
int
saga_step_changes(SagazWriter *steps, const SagaSteps *wanted, Datum saga_id,
				  Snapshot snapshot, SagaStepChange **changes)
{
	SagaSteps	old = saga_read_steps(saga_id, snapshot);
	SagaRow    *old_row = old.rows;
	SagaRow    *old_end = old.rows + old.count;
	SagaRow    *row = wanted->rows;
	SagaRow    *end = row + wanted->count;
	SagaStepChange *change;

	qsort(old.rows, old.count, sizeof(SagaRow), saga_by_step_name);
	*changes = change = MemoryContextAllocHuge(CurrentMemoryContext,
											   (old.count + (end - row) + 1) * sizeof(SagaStepChange));
	while (old_row < old_end || row < end)
	{
		int			order = old_row == old_end ? 1 : row == end ? -1 :
			saga_by_step_name(old_row, row);

		change->old = order <= 0 ? old_row++ : NULL;
		change->row = order >= 0 ? row++ : NULL;
		if (order == 0)
		{
			SagaRow    *merged = palloc(sizeof(SagaRow));

			*merged = *change->row;
			change->row = merged;
			if (saga_keep_unchanged(RelationGetDescr(steps->rel),
									merged, change->old))
				continue;
		}
		change++;
	}
	return change - *changes;
}

/* Write a step that differs; its saga's row is this transaction's by now. */
void
saga_change_step(SagazWriter *steps, const SagaStepChange *change,
				 Snapshot snapshot)
{
	if (change->row == NULL)
	{
		saga_step_written(sagaz_writer_try_delete(steps, &change->old->tid,
												  snapshot));
		return;
	}
	saga_put_row(steps, change->row);
	if (change->old == NULL)
		sagaz_writer_insert(steps);
	else
		saga_step_written(sagaz_writer_try_update(steps, &change->old->tid,
												  snapshot));
}
