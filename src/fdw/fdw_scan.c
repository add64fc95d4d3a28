/*
 * fdw_scan.c
 *		Reading foreign tables over storages.
 */
#include "lib/sagaz.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

#include "fdw/fdw.h"
#include "storage/calls.h"

#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

#if PG_VERSION_NUM >= 160000
#define checked_as(node, plan) ((plan)->checkAsUser)
#else
#define checked_as(node, plan) \
	(exec_rt_fetch((plan)->scan.scanrelid, (node)->ss.ps.state)->checkAsUser)
#endif

typedef struct ForeignTableScan
{
	SagazTable *table;
	Oid			user;
	List	   *values;			/* ExprState of what is asked for */
	SagazHow	how[ASKED_LAST + 1];
	int64		limit;
	MemoryContext context;		/* of one scan */
	MemoryContext row;
	SagazStore *store;
	SagazReader *reader;
	bool		at_end;
	bool		gathers;		/* reads all before the first row goes on */
	Tuplestorestate *rows;
	TupleTableSlot *kept;		/* a row of them */
} ForeignTableScan;

/*
 * Does the statement insert into the same server?  Then it must not meet its
 * own rows, which storages show at once.
 */
static bool
scan_reads_what_it_inserts(ForeignScanState *node, Oid server)
{
	EState	   *estate = node->ss.ps.state;
	PlannedStmt *statement = estate->es_plannedstmt;
	ListCell   *cell;

	if (statement->commandType != CMD_INSERT && !statement->hasModifyingCTE)
		return false;
	foreach(cell, statement->resultRelations)
	{
		RangeTblEntry *entry = exec_rt_fetch(lfirst_int(cell), estate);

		if (entry->relkind == RELKIND_PARTITIONED_TABLE ||
			(entry->relkind == RELKIND_FOREIGN_TABLE &&
			 GetForeignTable(entry->relid)->serverid == server))
			return true;
	}
	return false;
}

static void
begin_foreign_scan(ForeignScanState *node, int flags)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	ForeignTableScan *scan = palloc0(sizeof(ForeignTableScan));

	node->fdw_state = scan;
	scan->table = sagaz_table_open(node->ss.ss_currentRelation);
	scan->user = checked_as(node, plan);
	for (SagazAsked asked = ASKED_KEY; asked <= ASKED_LAST; asked++)
		scan->how[asked] = intVal(list_nth(plan->fdw_private, asked));
	scan->limit = strtoll(strVal(llast(plan->fdw_private)), NULL, 10);
	if (flags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	scan->values = ExecInitExprList(plan->fdw_exprs, (PlanState *) node);
	scan->context = AllocSetContextCreate(CurrentMemoryContext, "sagaz foreign scan",
										  ALLOCSET_DEFAULT_SIZES);
	scan->gathers = scan_reads_what_it_inserts(node, scan->table->server);
	if (scan->gathers)
		scan->kept = ExecInitExtraTupleSlot(node->ss.ps.state,
											RelationGetDescr(node->ss.ss_currentRelation),
											&TTSOpsMinimalTuple);
	scan->row = AllocSetContextCreate(CurrentMemoryContext, "sagaz foreign row",
									  ALLOCSET_DEFAULT_SIZES);
}

/* ---------------------------------------------------------------------- */
/* The filter */

static int
compare_scan_texts(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* Each text once: a storage gives a record as often as its key is named. */
static int
remove_repeated_scan_keys(const char **texts, int count)
{
	int			kept = 0;

	qsort(texts, count, sizeof(char *), compare_scan_texts);
	for (int i = 0; i < count; i++)
		if (kept == 0 || strcmp(texts[kept - 1], texts[i]) != 0)
			texts[kept++] = texts[i];
	return kept;
}

/* The texts that a value stands for; none for null. */
static int
read_scan_value(Datum value, bool isnull, SagazHow how, const char ***texts)
{
	Datum	   *elements;
	bool	   *nulls;
	int			count;
	int			kept = 0;

	*texts = NULL;
	if (isnull)
		return 0;
	if (how == EQUALS_VALUE)
	{
		*texts = palloc(sizeof(char *));
		(*texts)[0] = TextDatumGetCString(value);
		return 1;
	}
	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &count);
	*texts = palloc((count + 1) * sizeof(char *));
	for (int i = 0; i < count; i++)
		if (!nulls[i])
			(*texts)[kept++] = TextDatumGetCString(elements[i]);
	return remove_repeated_scan_keys(*texts, kept);
}

static void
add_to_scan_filter(SagazFilter *filter, SagazAsked asked, SagazHow how,
				   const char **texts, int count)
{
	switch (asked)
	{
		case ASKED_KEY:
			if (how == EQUALS_VALUE)
				filter->key = texts[0];
			else
			{
				filter->keys = texts;
				filter->nkeys = count;
			}
			break;
		case ASKED_STATUS:
			filter->statuses = texts;
			filter->nstatuses = count;
			break;
		case ASKED_SAGA:
			filter->saga_id = texts[0];
			break;
	}
}

/* Evaluate what is asked for; false if no row can have it. */
static bool
make_scan_filter(ForeignScanState *node, ForeignTableScan *scan, SagazFilter *filter)
{
	ExprContext *context = node->ss.ps.ps_ExprContext;
	ListCell   *cell = list_head(scan->values);

	memset(filter, 0, sizeof(SagazFilter));
	filter->limit = scan->limit;
	for (SagazAsked asked = ASKED_KEY; asked <= ASKED_LAST; asked++)
	{
		const char **texts;
		int			count;
		bool		isnull;
		Datum		value;

		if (scan->how[asked] == NOT_ASKED)
			continue;
		value = ExecEvalExpr((ExprState *) lfirst(cell), context, &isnull);
		cell = lnext(scan->values, cell);
		count = read_scan_value(value, isnull, scan->how[asked], &texts);
		if (count == 0)
			return false;
		add_to_scan_filter(filter, asked, scan->how[asked], texts, count);
	}
	return true;
}

/* ---------------------------------------------------------------------- */
/* Rows */

/* Parameters are known by now. */
static void
start_scan(ForeignScanState *node, ForeignTableScan *scan)
{
	MemoryContext outer = MemoryContextSwitchTo(scan->context);
	SagazFilter filter;

	if (make_scan_filter(node, scan, &filter))
	{
		scan->store = sagaz_table_store(scan->table, scan->user);
		scan->reader = sagaz_store_read_begin(scan->store, scan->table->kind, &filter);
	}
	else
		scan->at_end = true;
	MemoryContextSwitchTo(outer);
}

/* Store the next record in the slot; false at the end. */
static bool
next_scan_row(ForeignTableScan *scan, TupleTableSlot *slot)
{
	MemoryContext outer;
	SagazRecord record;

	CHECK_FOR_INTERRUPTS();
	ExecClearTuple(slot);
	if (scan->at_end)
		return false;
	MemoryContextReset(scan->row);
	outer = MemoryContextSwitchTo(scan->row);
	if (sagaz_store_read_next(scan->reader, &record))
	{
		sagaz_call_check_readable(scan->store, &record);
		sagaz_table_row(scan->table, &record, slot);
	}
	else
		scan->at_end = true;
	MemoryContextSwitchTo(outer);
	return !scan->at_end;
}

static TupleTableSlot *
iterate_foreign_scan(ForeignScanState *node)
{
	ForeignTableScan *scan = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;

	if (scan->reader == NULL && !scan->at_end)
		start_scan(node, scan);
	if (!scan->gathers)
	{
		(void) next_scan_row(scan, slot);
		return slot;
	}
	if (scan->rows == NULL)
	{
		MemoryContext outer = MemoryContextSwitchTo(scan->context);

		scan->rows = tuplestore_begin_heap(false, false, work_mem);
		MemoryContextSwitchTo(outer);
		while (next_scan_row(scan, slot))
			tuplestore_puttupleslot(scan->rows, slot);
	}
	if (tuplestore_gettupleslot(scan->rows, true, false, scan->kept))
		ExecCopySlot(slot, scan->kept);
	else
		ExecClearTuple(slot);
	return slot;
}

static void
stop_scan(ForeignTableScan *scan)
{
	if (scan->reader)
		sagaz_store_read_end(scan->reader);
	if (scan->rows)
		tuplestore_end(scan->rows);
	scan->reader = NULL;
	scan->rows = NULL;
	scan->at_end = false;
	if (scan->context)
		MemoryContextReset(scan->context);
}

static void
rescan_foreign_scan(ForeignScanState *node)
{
	stop_scan(node->fdw_state);
}

static void
end_foreign_scan(ForeignScanState *node)
{
	if (node->fdw_state)
		stop_scan(node->fdw_state);
}

/* What the storage is asked for, beside the conditions that are checked here. */
static void
explain_foreign_scan(ForeignScanState *node, ExplainState *es)
{
	ForeignTableScan *scan = node->fdw_state;
	List	   *asked_for = NIL;

	for (SagazAsked asked = ASKED_KEY; asked <= ASKED_LAST; asked++)
		if (scan->how[asked] != NOT_ASKED)
			asked_for = lappend(asked_for,
								unconstify(char *, sagaz_plan_asked_name(scan->table->kind, asked)));
	if (scan->limit > 0)
		asked_for = lappend(asked_for, "LIMIT");
	if (asked_for != NIL)
		ExplainPropertyList("Asked of the storage", asked_for, es);
}

void
sagaz_fdw_scan(FdwRoutine *routine)
{
	routine->BeginForeignScan = begin_foreign_scan;
	routine->IterateForeignScan = iterate_foreign_scan;
	routine->ReScanForeignScan = rescan_foreign_scan;
	routine->EndForeignScan = end_foreign_scan;
	routine->ExplainForeignScan = explain_foreign_scan;
}
