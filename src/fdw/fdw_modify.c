/*
 * fdw_modify.c
 *		INSERT, COPY, UPDATE and DELETE on foreign tables over storages.
 *
 * New rows go to the storage in batches.  Updates and deletions are gathered
 * until the statement ends, so that it does not read its own changes, and so
 * that a batch of them is one operation of the storage.
 */
#include "lib/sagaz.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "optimizer/appendinfo.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "fdw/fdw.h"
#include "backends/record/record.h"
#include "lib/key_table.h"

#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

#if PG_VERSION_NUM >= 160000
#define modified_as(rinfo, estate) ExecGetResultRelCheckAsUser(rinfo, estate)
#else
#define modified_as(rinfo, estate) \
	(named_table(rinfo)->ri_RangeTableIndex == 0 ? InvalidOid : \
	 exec_rt_fetch(named_table(rinfo)->ri_RangeTableIndex, estate)->checkAsUser)
#endif

/* The old row, as the planner is asked for it. */
#define OLD_ROW "wholerow"

/* A new value of a column. */
typedef struct ColumnChange
{
	int			column;
	Datum		value;
	bool		isnull;
} ColumnChange;

/* The changes of a record, by key; without any it is to be removed. */
typedef struct RecordChange
{
	const char *key;			/* must be first */
	List	   *columns;		/* ColumnChange */
	TimestampTz made_at;
} RecordChange;

typedef struct Modify
{
	SagazTable *table;
	Oid			user;
	AttrNumber	old_row;		/* place of the old row among the plan's columns */
	MemoryContext context;
	HTAB	   *changes;		/* RecordChange */
	List	   *keys;			/* char *, in the order of the statement */
	bool		has_all;		/* columns of all fields */
	bool		removes;
	bool		gathers;		/* rows come one by one, and may wait */
	MemoryContext part;			/* of new records */
	SagazRecord *records;
	int			nrecords;
} Modify;

/* ---------------------------------------------------------------------- */
/* Begin */

#if PG_VERSION_NUM < 160000
/* A partition has the rights of the table that the statement names. */
static ResultRelInfo *
named_table(ResultRelInfo *rinfo)
{
	return rinfo->ri_RangeTableIndex == 0 && rinfo->ri_RootResultRelInfo ?
		rinfo->ri_RootResultRelInfo : rinfo;
}
#endif

static bool
has_all_fields(const SagazTable *table)
{
	int			missing = 0;

	for (const SagazField *field = sagaz_table_fields(table->kind); field->name; field++)
		missing++;
	for (int column = 0; column < table->columns->natts; column++)
		missing -= table->fields[column] != NULL;
	return missing == 0;
}

static Modify *
begin_modifying(ResultRelInfo *rinfo, EState *estate)
{
	Modify	   *modify = palloc0(sizeof(Modify));

	modify->table = sagaz_table_open(rinfo->ri_RelationDesc);
	modify->has_all = has_all_fields(modify->table);
	modify->user = modified_as(rinfo, estate);
	modify->context = AllocSetContextCreate(CurrentMemoryContext, "sagaz foreign modify",
											ALLOCSET_DEFAULT_SIZES);
	modify->part = AllocSetContextCreate(modify->context, "sagaz foreign batch",
										 ALLOCSET_DEFAULT_SIZES);
	modify->changes = sagaz_key_table("sagaz foreign changes", 64,
									  sizeof(RecordChange), modify->context);
	rinfo->ri_FdwState = modify;
	return modify;
}

static SagazStore *
modify_store_of(Modify *modify)
{
	return sagaz_table_store(modify->table, modify->user);
}

/*
 * The old row of an update or a deletion has the key.  Its type is the one
 * that the planner takes too, so that partitions can be changed together.
 */
static void
add_update_targets(PlannerInfo *root, Index index, RangeTblEntry *entry, Relation rel)
{
	Var		   *row = makeVar(index, InvalidAttrNumber, RECORDOID, -1, InvalidOid, 0);

	add_row_identity_var(root, row, index, OLD_ROW);
}

static List *
plan_modify(PlannerInfo *root, ModifyTable *plan, Index index, int subplan)
{
	if (plan->onConflictAction != ONCONFLICT_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("ON CONFLICT is not supported for foreign tables of storages"),
				 errhint("%s.import_records(…, if_exists => 'skip') does that.", SAGAZ_SCHEMA)));
	return NIL;
}

/* Records are looked for by what the key's column shows, so that must be the key. */
static void
check_key_type(const SagazTable *table)
{
	Form_pg_attribute key = TupleDescAttr(table->columns, table->key - 1);

	if (key->atttypid != TEXTOID && key->atttypid != VARCHAROID)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column %s must be text for its records to be changed",
						NameStr(key->attname))));
}

static void
begin_modify(ModifyTableState *state, ResultRelInfo *rinfo, List *private,
			 int subplan, int flags)
{
	Modify	   *modify;

	if (flags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	modify = begin_modifying(rinfo, state->ps.state);
	modify->removes = state->operation == CMD_DELETE;
	if (state->operation == CMD_INSERT)
		return;
	if (modify->table->key == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("foreign table \"%s\" has no column %s",
						RelationGetRelationName(rinfo->ri_RelationDesc),
						sagaz_table_fields(modify->table->kind)->name)));
	check_key_type(modify->table);
	modify->old_row = ExecFindJunkAttributeInTlist(outerPlanState(state)->plan->targetlist,
												   OLD_ROW);
}

static void
begin_insert(ModifyTableState *state, ResultRelInfo *rinfo)
{
	if (rinfo->ri_FdwState)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("rows cannot be moved into foreign table \"%s\" by an UPDATE of it",
						RelationGetRelationName(rinfo->ri_RelationDesc))));
	begin_modifying(rinfo, state->ps.state)->gathers = true;
}

/* ---------------------------------------------------------------------- */
/* New rows */

/* Does somebody look at each row once it is inserted? */
static bool
is_looked_at(const ResultRelInfo *rinfo)
{
	const TriggerDesc *triggers = rinfo->ri_TrigDesc;

	return rinfo->ri_projectReturning != NULL || rinfo->ri_WithCheckOptions != NIL ||
		(triggers && (triggers->trig_insert_before_row || triggers->trig_insert_after_row));
}

static int
get_batch_size(ResultRelInfo *rinfo)
{
	Modify	   *modify = rinfo->ri_FdwState;

	if (is_looked_at(rinfo))
		return 1;
	/* EXPLAIN asks without having begun */
	return modify ? modify->table->batch_size :
		sagaz_table_open(rinfo->ri_RelationDesc)->batch_size;
}

static void
add_modified_record(Modify *modify, TupleTableSlot *slot)
{
	MemoryContext outer;

	if (modify->records == NULL)
		modify->records = MemoryContextAlloc(modify->context,
											 modify->table->batch_size * sizeof(SagazRecord));
	outer = MemoryContextSwitchTo(modify->part);
	sagaz_table_record(modify->table, slot, &modify->records[modify->nrecords]);
	MemoryContextSwitchTo(outer);
	modify->nrecords++;
}

static void
put_records(Modify *modify)
{
	MemoryContext outer = MemoryContextSwitchTo(modify->part);

	(void) sagaz_put(modify_store_of(modify), modify->records, modify->nrecords, SAGAZ_PUT_NEW);
	MemoryContextSwitchTo(outer);
	MemoryContextReset(modify->part);
	modify->nrecords = 0;
}

/* Let the slot show the last record with what a storage makes of things left out. */
static void
show_record(Modify *modify, EState *estate, TupleTableSlot *slot)
{
	MemoryContext outer = MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));

	sagaz_table_row(modify->table, &modify->records[modify->nrecords - 1], slot);
	MemoryContextSwitchTo(outer);
}

static TupleTableSlot **
insert_batch(EState *estate, ResultRelInfo *rinfo, TupleTableSlot **slots,
			 TupleTableSlot **plan_slots, int *count)
{
	Modify	   *modify = rinfo->ri_FdwState;

	for (int i = 0; i < *count; i++)
		add_modified_record(modify, slots[i]);
	put_records(modify);
	return slots;
}

/* COPY brings rows one by one, to be put when there are enough of them. */
static TupleTableSlot *
insert_row(EState *estate, ResultRelInfo *rinfo, TupleTableSlot *slot,
		   TupleTableSlot *plan_slot)
{
	Modify	   *modify = rinfo->ri_FdwState;

	add_modified_record(modify, slot);
	if (is_looked_at(rinfo))
		show_record(modify, estate, slot);
	if (!modify->gathers || is_looked_at(rinfo) ||
		modify->nrecords >= modify->table->batch_size)
		put_records(modify);
	return slot;
}

/* So many rows go to the storage at once. */
static void
explain_modify(ModifyTableState *state, ResultRelInfo *rinfo, List *private,
			   int subplan, ExplainState *es)
{
	if (es->verbose && state->operation == CMD_INSERT)
		ExplainPropertyInteger("Batch Size", NULL, get_batch_size(rinfo), es);
}

/* ---------------------------------------------------------------------- */
/* Updates and deletions */

/* The values of the row that is there. */
static void
old_values(Modify *modify, TupleTableSlot *plan_slot, Datum *values, bool *nulls)
{
	bool		isnull;
	Datum		row = ExecGetJunkAttribute(plan_slot, modify->old_row, &isnull);
	HeapTupleHeader header = DatumGetHeapTupleHeader(row);
	HeapTupleData tuple;

	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	heap_deform_tuple(&tuple, modify->table->columns, values, nulls);
}

static char *
modified_key_of(Modify *modify, const Datum *values, const bool *nulls)
{
	SagazRecord record = {.kind = modify->table->kind};
	int			column = modify->table->key - 1;

	sagaz_table_set(modify->table, &record, column, values[column], nulls[column]);
	return pstrdup(sagaz_record_key(&record));
}

/* The changes of that record; the first of them stay, as in any UPDATE. */
static RecordChange *
modify_change_of(Modify *modify, char *key, bool *is_new)
{
	RecordChange *change;
	bool		found;

	change = hash_search(modify->changes, &key, HASH_ENTER, &found);
	*is_new = !found;
	if (*is_new)
	{
		change->columns = NIL;
		change->made_at = GetCurrentTimestamp();
		modify->keys = lappend(modify->keys, key);
	}
	return change;
}

static void
note_modify_changes(Modify *modify, RecordChange *change, TupleTableSlot *slot,
					const Datum *values, const bool *nulls)
{
	for (int column = 0; column < modify->table->columns->natts; column++)
	{
		Form_pg_attribute attribute = TupleDescAttr(modify->table->columns, column);
		ColumnChange *new;

		if (modify->table->fields[column] == NULL ||
			(nulls[column] == slot->tts_isnull[column] &&
			 (nulls[column] || datumIsEqual(values[column], slot->tts_values[column],
											attribute->attbyval, attribute->attlen))))
			continue;
		if (column == modify->table->key - 1)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("%s cannot be changed", NameStr(attribute->attname)),
					 errhint("Delete the record, and insert another.")));
		new = palloc(sizeof(ColumnChange));
		new->column = column;
		new->isnull = slot->tts_isnull[column];
		new->value = new->isnull ? (Datum) 0 :
			datumCopy(slot->tts_values[column], attribute->attbyval, attribute->attlen);
		change->columns = lappend(change->columns, new);
	}
}

/* A changed saga has the next version, where the change does not say another. */
static void
make_modify_changes(const Modify *modify, const RecordChange *change, SagazRecord *record)
{
	bool		sets_version = false;
	bool		sets_time = false;
	ListCell   *cell;

	foreach(cell, change->columns)
	{
		ColumnChange *new = lfirst(cell);
		size_t		offset = modify->table->fields[new->column]->offset;

		sagaz_table_set(modify->table, record, new->column, new->value, new->isnull);
		sets_version |= offset == offsetof(SagazSaga, version);
		sets_time |= offset == offsetof(SagazSaga, updated_at);
	}
	if (record->kind != SAGAZ_SAGA || change->columns == NIL)
		return;
	if (!sets_version)
		record->saga.version++;
	if (!sets_time)
		record->saga.updated_at = change->made_at;
}

/*
 * Let the slot show the record as it will be.  What is wrong with it is an
 * error now, before the first record is written.
 */
static void
show_changes(Modify *modify, const RecordChange *change, TupleTableSlot *slot,
			 const Datum *values, const bool *nulls)
{
	SagazRecord record = {.kind = modify->table->kind};

	for (int column = 0; column < modify->table->columns->natts; column++)
		if (modify->table->fields[column])
			sagaz_table_set(modify->table, &record, column, values[column],
							nulls[column]);
	make_modify_changes(modify, change, &record);
	if (modify->has_all)
		sagaz_table_check_record(&record);
	sagaz_table_row(modify->table, &record, slot);
}

/* At the first change, when the old row has been read and nothing is written. */
static void
check_modify_can_edit(Modify *modify)
{
	SagazStore *store = modify_store_of(modify);

	if (!sagaz_store_can(store, SAGAZ_TAKES_EDITS))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_STORAGE),
				 errmsg("records of storage \"%s\" cannot be updated from here", store->name),
				 errhint("They are changed by the functions of the sagaz that keeps them.")));
}

static TupleTableSlot *
update_row(EState *estate, ResultRelInfo *rinfo, TupleTableSlot *slot,
		   TupleTableSlot *plan_slot)
{
	Modify	   *modify = rinfo->ri_FdwState;
	MemoryContext outer = MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));
	int			natts = modify->table->columns->natts;
	Datum	   *values = palloc(natts * sizeof(Datum));
	bool	   *nulls = palloc(natts * sizeof(bool));
	RecordChange *change;
	bool		is_new;

	if (modify->keys == NIL)
		check_modify_can_edit(modify);
	slot_getallattrs(slot);
	old_values(modify, plan_slot, values, nulls);
	MemoryContextSwitchTo(modify->context);
	change = modify_change_of(modify, modified_key_of(modify, values, nulls), &is_new);
	if (is_new)
		note_modify_changes(modify, change, slot, values, nulls);
	MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));
	if (is_new)
		show_changes(modify, change, slot, values, nulls);
	MemoryContextSwitchTo(outer);
	return is_new ? slot : NULL;
}

static TupleTableSlot *
delete_row(EState *estate, ResultRelInfo *rinfo, TupleTableSlot *slot,
		   TupleTableSlot *plan_slot)
{
	Modify	   *modify = rinfo->ri_FdwState;
	MemoryContext outer = MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));
	int			natts = modify->table->columns->natts;
	Datum	   *values = palloc(natts * sizeof(Datum));
	bool	   *nulls = palloc(natts * sizeof(bool));
	bool		is_new;

	old_values(modify, plan_slot, values, nulls);
	MemoryContextSwitchTo(modify->context);
	(void) modify_change_of(modify, modified_key_of(modify, values, nulls), &is_new);
	MemoryContextSwitchTo(outer);
	ExecClearTuple(slot);
	memcpy(slot->tts_values, values, natts * sizeof(Datum));
	memcpy(slot->tts_isnull, nulls, natts * sizeof(bool));
	ExecStoreVirtualTuple(slot);
	return is_new ? slot : NULL;
}

/* Make the changes of a record that is there still. */
static SagazVerdict
modify_record(SagazRecord *record, bool exists, void *arg)
{
	Modify	   *modify = arg;
	const char *key = sagaz_record_key(record);
	RecordChange *change = hash_search(modify->changes, &key, HASH_FIND, NULL);

	if (change == NULL || change->columns == NIL)
		return SAGAZ_KEEP;
	make_modify_changes(modify, change, record);
	sagaz_table_check_record(record);
	return SAGAZ_CHANGE;
}

static void
flush_keys(Modify *modify, const char *const *keys, int count)
{
	SagazStore *store = modify_store_of(modify);
	SagazFilter filter = {.keys = keys,.nkeys = count};

	if (modify->removes)
		(void) store->backend->remove(store, modify->table->kind, keys, count);
	else
		(void) sagaz_edit(store, modify->table->kind, &filter, false, modify_record, modify);
}

/* Write what was gathered; the statement is over. */
static void
end_modify(EState *estate, ResultRelInfo *rinfo)
{
	Modify	   *modify = rinfo->ri_FdwState;
	MemoryContext part;
	MemoryContext outer;
	const char **keys;
	int			total;

	if (modify == NULL)
		return;
	if (modify->nrecords > 0)
		put_records(modify);
	part = AllocSetContextCreate(CurrentMemoryContext, "sagaz foreign flush",
								 ALLOCSET_DEFAULT_SIZES);
	total = list_length(modify->keys);
	keys = palloc((total + 1) * sizeof(char *));
	for (int i = 0; i < total; i++)
		keys[i] = list_nth(modify->keys, i);
	outer = MemoryContextSwitchTo(part);
	for (int done = 0; done < total; done += modify->table->batch_size)
	{
		flush_keys(modify, keys + done, Min(modify->table->batch_size, total - done));
		MemoryContextReset(part);
	}
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(modify->context);
	rinfo->ri_FdwState = NULL;
}

void
sagaz_fdw_modify(FdwRoutine *routine)
{
	routine->AddForeignUpdateTargets = add_update_targets;
	routine->PlanForeignModify = plan_modify;
	routine->BeginForeignModify = begin_modify;
	routine->ExecForeignInsert = insert_row;
	routine->ExecForeignBatchInsert = insert_batch;
	routine->GetForeignModifyBatchSize = get_batch_size;
	routine->ExecForeignUpdate = update_row;
	routine->ExecForeignDelete = delete_row;
	routine->EndForeignModify = end_modify;
	routine->ExplainForeignModify = explain_modify;
	routine->BeginForeignInsert = begin_insert;
	routine->EndForeignInsert = end_modify;
}
