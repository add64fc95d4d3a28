/*
 * saga.h
 *		Sagas and their steps as rows of sagaz.sagas and sagaz.saga_steps.
 *
 * A row is an array of column values, so that what is asked for can be
 * compared with what is there column by column, and what did not change goes
 * back as it was read, compressed or out of line.
 *
 * Every function that changes a step changes its saga's row too, and first:
 * so a saga row that is still the version that was read vouches for the steps
 * read with it, and writers of one saga take turns on its row.
 *
 * The folder has the state of sagas in the native tables and the functions
 * that save, load, list and delete it.  Words: a saga has steps, in the order
 * of their ordinal, and a version that rises with each change.  It calls
 * src/lib only.
 */
#ifndef SAGAZ_SAGA_H
#define SAGAZ_SAGA_H

#include "access/tableam.h"
#include "storage/itemptr.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"

#include "lib/tuples.h"
#include "lib/words.h"

/* columns of sagaz.sagas */
enum saga_column
{
	saga_saga_id = 1,
	saga_saga_name,
	saga_status,
	saga_context,
	saga_metadata,
	saga_version,
	saga_created_at,
	saga_updated_at,
	saga_columns = saga_updated_at
};

/* columns of sagaz.saga_steps */
enum step_column
{
	step_saga_id = 1,
	step_step_name,
	step_ordinal,
	step_status,
	step_result,
	step_error,
	step_executed_at,
	step_compensated_at,
	step_retry_count,
	step_extra,
	step_columns = step_extra
};

#define SAGA_MAX_COLUMNS step_columns

/* longest in bytes, so that index entries fit a page */
#define SAGA_ID_LENGTH		1024
#define SAGA_NAME_LENGTH	2048
#define STEP_NAME_LENGTH	1024

typedef struct SagaRow
{
	ItemPointerData tid;		/* invalid if not read from the table */
	Datum		values[SAGA_MAX_COLUMNS];
	bool		nulls[SAGA_MAX_COLUMNS];
} SagaRow;

typedef struct SagaSteps
{
	int			count;
	int			room;			/* of rows that saga_add_step() made */
	SagaRow    *rows;
} SagaSteps;

/* A step that differs: old is NULL where it is new, row where it is gone. */
typedef struct SagaStepChange
{
	SagaRow    *old;
	SagaRow    *row;
} SagaStepChange;

/* attnum counts from 1 */
static inline void
saga_set(SagaRow *row, int attnum, Datum value)
{
	row->values[attnum - 1] = value;
	row->nulls[attnum - 1] = false;
}

static inline Datum
saga_get(const SagaRow *row, int attnum)
{
	return row->values[attnum - 1];
}

static inline bool
saga_is_null(const SagaRow *row, int attnum)
{
	return row->nulls[attnum - 1];
}

/* saga_delete.c */
extern bool saga_delete(Datum saga_id);
extern Oid	saga_finished_status(const char *word);

/* saga_record.c: arguments and JSON to rows */
extern Datum saga_text_argument(FunctionCallInfo fcinfo, int argno,
								const char *field, int max_length);
extern int64 saga_version_argument(FunctionCallInfo fcinfo, int argno);
extern SagaSteps saga_parse_steps(Datum saga_id, Jsonb *json);

/* saga_load.c */
extern Jsonb *saga_steps_to_json(const SagaSteps *steps);

/* saga_row.c: rows in the tables */
extern Snapshot saga_latest_snapshot(void);
extern void saga_copy_row(TupleTableSlot *slot, SagaRow *row);
extern void saga_add_step(SagaSteps *steps, TupleTableSlot *slot);
extern bool saga_read(Datum saga_id, Snapshot snapshot, SagaRow *saga);
extern SagaSteps saga_read_steps(Datum saga_id, Snapshot snapshot);
extern bool saga_read_step(Datum saga_id, Datum step_name, Snapshot snapshot,
						   SagaRow *step);
extern int	saga_by_step_name(const void *a, const void *b);
extern int	saga_by_ordinal(const void *a, const void *b);
extern bool saga_keep_unchanged(TupleDesc type, SagaRow *row,
								const SagaRow *old);
extern void saga_put_row(SagazWriter *writer, const SagaRow *row);
extern bool saga_look_again(TM_Result result);
extern void saga_step_written(TM_Result result);

/* saga_steps.c: writing the steps that differ */
extern int	saga_step_changes(SagazWriter *steps, const SagaSteps *wanted,
							  Datum saga_id, Snapshot snapshot,
							  SagaStepChange **changes);
extern void saga_change_step(SagazWriter *steps, const SagaStepChange *change,
							 Snapshot snapshot);

#endif							/* SAGAZ_SAGA_H */
