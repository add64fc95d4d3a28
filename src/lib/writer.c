/*
 * writer.c
 *		Writing rows of the extension's own tables without SPI.
 *
 * The executor's index machinery is used for writes, so unique and partial
 * indexes behave as they do for SQL; constraints and triggers of the table
 * are not looked at, the callers guarantee what those would.
 */
#include "lib/sagaz.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "lib/tuples.h"

#if PG_VERSION_NUM >= 160000
typedef TU_UpdateIndexes IndexUpdates;
#define updates_any(u) ((u) != TU_None)
#define insert_index_tuples(rri, slot, estate, update, which) \
	ExecInsertIndexTuples(rri, slot, estate, update, false, NULL, NIL, \
						  (update) && (which) == TU_Summarizing)
#define insert_index_tuples_unless(rri, slot, estate, taken) \
	ExecInsertIndexTuples(rri, slot, estate, false, true, taken, NIL, false)
#else
typedef bool IndexUpdates;
#define updates_any(u) (u)
#define insert_index_tuples(rri, slot, estate, update, which) \
	ExecInsertIndexTuples(rri, slot, estate, update, false, NULL, NIL)
#define insert_index_tuples_unless(rri, slot, estate, taken) \
	ExecInsertIndexTuples(rri, slot, estate, false, true, taken, NIL)
#endif
#if PG_VERSION_NUM >= 180000
#define check_unique_keys(rri, slot, estate, other) \
	ExecCheckIndexConstraints(rri, slot, estate, other, NULL, NIL)
#else
#define check_unique_keys(rri, slot, estate, other) \
	ExecCheckIndexConstraints(rri, slot, estate, other, NIL)
#endif

/*
 * Takes ROW EXCLUSIVE on the table until the transaction ends.  An error
 * where the transaction may not write.  The writer lies in the present
 * memory context.
 */
SagazWriter *
sagaz_writer_begin(const char *table)
{
	SagazWriter *writer = palloc0(sizeof(SagazWriter));

	if (XactReadOnly)
		PreventCommandIfReadOnly(psprintf("a write to %s.%s", SAGAZ_SCHEMA,
										  table));
	writer->context = CurrentMemoryContext;
	writer->rel = sagaz_relation_open(table, RowExclusiveLock);
	writer->slot = table_slot_create(writer->rel, NULL);
	writer->estate = CreateExecutorState();
	writer->result_rel = makeNode(ResultRelInfo);
	InitResultRelInfo(writer->result_rel, writer->rel, 0, NULL, 0);
	ExecOpenIndices(writer->result_rel, false);
	return writer;
}

/* Start a row in which every column is NULL. */
void
sagaz_writer_row(SagazWriter *writer)
{
	ExecClearTuple(writer->slot);
	memset(writer->slot->tts_isnull, true,
		   writer->slot->tts_tupleDescriptor->natts);
	memset(writer->slot->tts_values, 0,
		   writer->slot->tts_tupleDescriptor->natts * sizeof(Datum));
}

/*
 * The value is not copied: it must last until the row is written or queued.
 */
void
sagaz_writer_set(SagazWriter *writer, int attnum, Datum value)
{
	writer->slot->tts_values[attnum - 1] = value;
	writer->slot->tts_isnull[attnum - 1] = false;
}

/* Null in the row that is being made. */
void
sagaz_writer_clear(SagazWriter *writer, int attnum)
{
	writer->slot->tts_isnull[attnum - 1] = true;
}

/* Start a new version of a row; old stays where it is until that is written. */
void
sagaz_writer_copy(SagazWriter *writer, TupleTableSlot *old)
{
	int			columns = writer->slot->tts_tupleDescriptor->natts;

	ExecClearTuple(writer->slot);
	memcpy(writer->slot->tts_values, old->tts_values, columns * sizeof(Datum));
	memcpy(writer->slot->tts_isnull, old->tts_isnull, columns * sizeof(bool));
}

/*
 * Write the row and its index entries; a repeated key is 23505.  The
 * caller's own snapshots see it after CommandCounterIncrement(), as all that
 * is written here.
 */
void
sagaz_writer_insert(SagazWriter *writer)
{
	ExecStoreVirtualTuple(writer->slot);
	writer->slot->tts_tableOid = RelationGetRelid(writer->rel);
	table_tuple_insert(writer->rel, writer->slot, GetCurrentCommandId(true),
					   0, NULL);
	insert_index_tuples(writer->result_rel, writer->slot, writer->estate,
						false, 0);
	ResetPerTupleExprContext(writer->estate);
}

/*
 * Keep the row for sagaz_writer_flush(), which must be called when the queue
 * is full and before the end.
 */
void
sagaz_writer_queue(SagazWriter *writer)
{
	MemoryContext outer = MemoryContextSwitchTo(writer->context);

	Assert(writer->queued < SAGAZ_WRITER_QUEUE);
	if (writer->queue[writer->queued] == NULL)
		writer->queue[writer->queued] = table_slot_create(writer->rel, NULL);
	ExecStoreVirtualTuple(writer->slot);
	ExecCopySlot(writer->queue[writer->queued++], writer->slot);
	MemoryContextSwitchTo(outer);
}

/* Write what is queued: one WAL record a page instead of one a row. */
void
sagaz_writer_flush(SagazWriter *writer)
{
	if (writer->queued == 0)
		return;
	table_multi_insert(writer->rel, writer->queue, writer->queued,
					   GetCurrentCommandId(true), 0, NULL);
	for (int i = 0; i < writer->queued; i++)
	{
		insert_index_tuples(writer->result_rel, writer->queue[i],
							writer->estate, false, 0);
		ResetPerTupleExprContext(writer->estate);
		ExecClearTuple(writer->queue[i]);
	}
	writer->queued = 0;
}

/*
 * Replace the row in old by the writer's.  Whoever calls holds a lock that
 * keeps others from changing it meanwhile.
 */
void
sagaz_writer_update(SagazWriter *writer, TupleTableSlot *old,
					Snapshot snapshot)
{
	IndexUpdates updates;
	ItemPointerData tid = old->tts_tid;

	ExecStoreVirtualTuple(writer->slot);
	writer->slot->tts_tableOid = RelationGetRelid(writer->rel);
	simple_table_tuple_update(writer->rel, &tid, writer->slot, snapshot,
							  &updates);
	if (updates_any(updates))
		insert_index_tuples(writer->result_rel, writer->slot, writer->estate,
							true, updates);
	ResetPerTupleExprContext(writer->estate);
}

/* Let the unique indexes be asked before they are written, as long as the writer lasts. */
static void
prepare_tuple_speculation(SagazWriter *writer)
{
	ResultRelInfo *result_rel = writer->result_rel;
	MemoryContext outer = MemoryContextSwitchTo(writer->estate->es_query_cxt);

	for (int i = 0; i < result_rel->ri_NumIndices; i++)
	{
		IndexInfo  *info = result_rel->ri_IndexRelationInfo[i];

		if (info->ii_Unique && info->ii_UniqueOps == NULL)
			BuildSpeculativeIndexInfo(result_rel->ri_IndexRelationDescs[i],
									  info);
	}
	MemoryContextSwitchTo(outer);
}

/*
 * Write the row unless another has one of its unique keys: then false, after
 * the transaction that was about to write that other one has committed.
 */
bool
sagaz_writer_try_insert(SagazWriter *writer)
{
	TransactionId xid = GetCurrentTransactionId();
	ItemPointerData other;
	bool		taken;

	prepare_tuple_speculation(writer);
	ExecStoreVirtualTuple(writer->slot);
	writer->slot->tts_tableOid = RelationGetRelid(writer->rel);
	do
	{
		uint32		token;

		CHECK_FOR_INTERRUPTS();
		if (!check_unique_keys(writer->result_rel, writer->slot,
							   writer->estate, &other))
			return false;
		taken = false;
		token = SpeculativeInsertionLockAcquire(xid);
		table_tuple_insert_speculative(writer->rel, writer->slot,
									   GetCurrentCommandId(true), 0, NULL,
									   token);
		insert_index_tuples_unless(writer->result_rel, writer->slot,
								   writer->estate, &taken);
		table_tuple_complete_speculative(writer->rel, writer->slot, token,
										 !taken);
		SpeculativeInsertionLockRelease(xid);
	} while (taken);
	ResetPerTupleExprContext(writer->estate);
	return true;
}

/*
 * Replace the row at tid by the writer's, after whoever is changing it has
 * finished.  If they did change it, nothing is done and the result says so.
 */
TM_Result
sagaz_writer_try_update(SagazWriter *writer, ItemPointer tid,
						Snapshot snapshot)
{
	TM_FailureData failure;
	LockTupleMode lock_mode;
	IndexUpdates updates;
	TM_Result	result;

	ExecStoreVirtualTuple(writer->slot);
	writer->slot->tts_tableOid = RelationGetRelid(writer->rel);
	result = table_tuple_update(writer->rel, tid, writer->slot,
								GetCurrentCommandId(true), snapshot,
								InvalidSnapshot, true, &failure, &lock_mode,
								&updates);
	if (result == TM_Ok && updates_any(updates))
		insert_index_tuples(writer->result_rel, writer->slot, writer->estate,
							true, updates);
	ResetPerTupleExprContext(writer->estate);
	return result;
}

/* Delete the row at tid; like sagaz_writer_try_update() otherwise. */
TM_Result
sagaz_writer_try_delete(SagazWriter *writer, ItemPointer tid,
						Snapshot snapshot)
{
	TM_FailureData failure;

	return table_tuple_delete(writer->rel, tid, GetCurrentCommandId(true),
							  snapshot, InvalidSnapshot, true, &failure,
							  false);
}

/* The table stays locked until the transaction ends. */
void
sagaz_writer_end(SagazWriter *writer)
{
	Assert(writer->queued == 0);
	for (int i = 0; i < SAGAZ_WRITER_QUEUE && writer->queue[i]; i++)
		ExecDropSingleTupleTableSlot(writer->queue[i]);
	ExecCloseIndices(writer->result_rel);
	ExecDropSingleTupleTableSlot(writer->slot);
	FreeExecutorState(writer->estate);
	table_close(writer->rel, NoLock);
	pfree(writer);
}
