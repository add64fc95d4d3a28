/*
 * events_fdw.c
 *		The foreign data wrapper behind the view outbox_events.
 *
 * An event's status is nowhere stored, so neither a plain view nor a set
 * returning function could answer for one event, one saga and one status in
 * a time that does not grow with the log: the first would leave the way to
 * the planner's luck, the second learns nothing of the query's conditions.
 * A foreign table does: conditions on event_id or saga_id choose the way, and
 * those on status alone are tried out on each status before the scan begins,
 * so that only events in the statuses that pass are looked for.
 *
 * The server checks all conditions again, so leaving one out costs time only.
 */
#include "lib/sagaz.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "foreign/fdwapi.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/uuid.h"

#include "outbox/outbox.h"
#include "status/event_scan.h"

#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#define make_path(root, rel, rows, startup, total) \
	create_foreignscan_path(root, rel, NULL, rows, 0, startup, total, NIL, \
							(rel)->lateral_relids, NULL, NIL, NIL)
#elif PG_VERSION_NUM >= 170000
#define make_path(root, rel, rows, startup, total) \
	create_foreignscan_path(root, rel, NULL, rows, startup, total, NIL, \
							(rel)->lateral_relids, NULL, NIL, NIL)
#else
#define make_path(root, rel, rows, startup, total) \
	create_foreignscan_path(root, rel, NULL, rows, startup, total, NIL, \
							(rel)->lateral_relids, NULL, NIL)
#endif

PG_FUNCTION_INFO_V1(sagaz_events_fdw);

/* How a scan finds its events. */
typedef enum Way
{
	WAY_STATUS,
	WAY_SAGA,
	WAY_ID
} Way;

/* What the planner found in the conditions; fdw_private of the relation. */
typedef struct EventsPlan
{
	Way			way;
	Expr	   *key;			/* the id or ids, or the saga, looked for */
	List	   *status_clauses;
} EventsPlan;

typedef struct EventsScan
{
	Way			way;
	ExprState  *key;
	ExprState  *status_filter;
	MemoryContext context;		/* reset with each scan */
	SagazStates *states;
	SagazEventScan *scan;
	bool		done;
} EventsScan;

static bool
is_events_column(Node *node, Index relid, int column)
{
	return IsA(node, Var) && ((Var *) node)->varno == (int) relid &&
		((Var *) node)->varlevelsup == 0 &&
		((Var *) node)->varattno == column + 1;
}

/* A value that is the same for all rows of the scan. */
static bool
is_fixed_for_events(Node *node)
{
	return !contain_var_clause(node) && !contain_volatile_functions(node) &&
		!contain_subplans(node);
}

/* The other side of "column = value", if the clause is one. */
static Expr *
events_equal_to(Expr *clause, Index relid, int column, RegProcedure equal)
{
	OpExpr	   *op = (OpExpr *) clause;
	Node	   *left;
	Node	   *right;

	if (!IsA(clause, OpExpr) || list_length(op->args) != 2 ||
		get_opcode(op->opno) != equal ||
		(OidIsValid(op->inputcollid) &&
		 !get_collation_isdeterministic(op->inputcollid)))
		return NULL;
	left = linitial(op->args);
	right = lsecond(op->args);
	if (is_events_column(left, relid, column) && is_fixed_for_events(right))
		return (Expr *) right;
	if (is_events_column(right, relid, column) && is_fixed_for_events(left))
		return (Expr *) left;
	return NULL;
}

/* The array of "event_id = ANY (array)", if the clause is one. */
static Expr *
events_any_of_ids(Expr *clause, Index relid)
{
	ScalarArrayOpExpr *op = (ScalarArrayOpExpr *) clause;

	if (!IsA(clause, ScalarArrayOpExpr) || !op->useOr ||
		get_opcode(op->opno) != F_UUID_EQ ||
		!is_events_column(linitial(op->args), relid, event_event_id) ||
		!is_fixed_for_events(lsecond(op->args)))
		return NULL;
	return lsecond(op->args);
}

/* Does the clause depend on the status and on no other column? */
static bool
events_clause_is_about_status(Expr *clause, Index relid)
{
	Bitmapset  *columns = NULL;

	if (contain_volatile_functions((Node *) clause) ||
		contain_subplans((Node *) clause))
		return false;
	pull_varattnos((Node *) clause, relid, &columns);
	return bms_membership(columns) == BMS_SINGLETON &&
		bms_is_member(event_status + 1 - FirstLowInvalidHeapAttributeNumber,
					  columns);
}

static void
read_events_clause(EventsPlan *plan, Expr *clause, Index relid)
{
	Expr	   *key;

	if ((key = events_equal_to(clause, relid, event_event_id, F_UUID_EQ)) != NULL ||
		(key = events_any_of_ids(clause, relid)) != NULL)
	{
		plan->way = WAY_ID;
		plan->key = key;
	}
	else if (plan->way != WAY_ID &&
			 (key = events_equal_to(clause, relid, event_saga_id, F_TEXTEQ)) != NULL)
	{
		plan->way = WAY_SAGA;
		plan->key = key;
	}
	else if (events_clause_is_about_status(clause, relid))
		plan->status_clauses = lappend(plan->status_clauses, clause);
}

/* As many as the log has rows, by the last ANALYZE or VACUUM. */
static double
events_log_rows(void)
{
	HeapTuple	tuple = SearchSysCache1(RELOID,
										ObjectIdGetDatum(sagaz_relation_id("outbox")));
	double		rows;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for the outbox");
	rows = ((Form_pg_class) GETSTRUCT(tuple))->reltuples;
	ReleaseSysCache(tuple);
	return Max(rows, 1000);
}

static void
get_events_rel_size(PlannerInfo *root, RelOptInfo *rel, Oid table_id)
{
	EventsPlan *plan = palloc0(sizeof(EventsPlan));
	ListCell   *cell;

	foreach(cell, rel->baserestrictinfo)
		read_events_clause(plan, ((RestrictInfo *) lfirst(cell))->clause, rel->relid);
	rel->fdw_private = plan;
	rel->rows = plan->way == WAY_ID ? 1 : plan->way == WAY_SAGA ? 10 :
		plan->status_clauses ? events_log_rows() / 5 : events_log_rows();
}

static void
get_events_paths(PlannerInfo *root, RelOptInfo *rel, Oid table_id)
{
	EventsPlan *plan = rel->fdw_private;
	double		startup = plan->way == WAY_SAGA ? 100 : 10;

	add_path(rel, (Path *) make_path(root, rel, rel->rows, startup,
									 startup + rel->rows * 10 * cpu_tuple_cost));
}

static ForeignScan *
get_events_plan(PlannerInfo *root, RelOptInfo *rel, Oid table_id, ForeignPath *path,
				List *target_list, List *clauses, Plan *outer_plan)
{
	EventsPlan *plan = rel->fdw_private;
	List	   *expressions = NIL;

	if (plan->key)
		expressions = lappend(expressions, plan->key);
	expressions = list_concat(expressions, plan->status_clauses);
	return make_foreignscan(target_list, extract_actual_clauses(clauses, false),
							rel->relid, expressions,
							list_make1(makeInteger(plan->way)), NIL, NIL,
							outer_plan);
}

static void
begin_events_scan(ForeignScanState *node, int flags)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	EventsScan *events = palloc0(sizeof(EventsScan));
	List	   *expressions = plan->fdw_exprs;

	node->fdw_state = events;
	events->way = intVal(linitial(plan->fdw_private));
	if (events->way != WAY_STATUS)
	{
		events->key = ExecInitExpr(linitial(expressions), (PlanState *) node);
		expressions = list_copy_tail(expressions, 1);
	}
	events->status_filter = ExecInitQual(expressions, (PlanState *) node);
	events->context = AllocSetContextCreate(CurrentMemoryContext,
											"sagaz events",
											ALLOCSET_DEFAULT_SIZES);
}

/* The statuses that the conditions leave. */
static int
possible_events_statuses(ForeignScanState *node, EventsScan *events)
{
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;
	ExprContext *context = node->ss.ps.ps_ExprContext;
	int			statuses = 0;

	for (int status = 0; status < EVENT_STATUSES; status++)
	{
		ExecClearTuple(slot);
		memset(slot->tts_isnull, true,
			   slot->tts_tupleDescriptor->natts * sizeof(bool));
		slot->tts_values[event_status] =
			sagaz_event_status_value(status);
		slot->tts_isnull[event_status] = false;
		ExecStoreVirtualTuple(slot);
		context->ecxt_scantuple = slot;
		if (ExecQual(events->status_filter, context))
			statuses |= status_bit(status);
	}
	ExecClearTuple(slot);
	return statuses;
}

static int
compare_event_ids(const void *a, const void *b)
{
	return memcmp(DatumGetUUIDP(*(const Datum *) a),
				  DatumGetUUIDP(*(const Datum *) b), UUID_LEN);
}

/* The ids in an array, none twice, no nulls; returns how many. */
static int
read_events_ids(Datum array, Datum **ids)
{
	bool	   *nulls;
	int			count;
	int			kept = 0;
	int			unique = 0;

	deconstruct_array(DatumGetArrayTypePCopy(array), UUIDOID, UUID_LEN, false,
					  TYPALIGN_CHAR, ids, &nulls, &count);
	for (int i = 0; i < count; i++)
		if (!nulls[i])
			(*ids)[kept++] = (*ids)[i];
	qsort(*ids, kept, sizeof(Datum), compare_event_ids);
	for (int i = 0; i < kept; i++)
		if (unique == 0 || compare_event_ids(&(*ids)[unique - 1], &(*ids)[i]) != 0)
			(*ids)[unique++] = (*ids)[i];
	return unique;
}

static SagazEventScan *
begin_events_by_key(EventsScan *events, int statuses, ExprContext *context,
					Oid key_type)
{
	bool		isnull;
	Datum		key = ExecEvalExpr(events->key, context, &isnull);
	Datum	   *ids;

	if (isnull)
		return NULL;
	if (events->way == WAY_SAGA)
		return sagaz_scan_by_saga(events->states, statuses,
								  PointerGetDatum(PG_DETOAST_DATUM_COPY(key)));
	if (key_type != UUIDOID)
	{
		int			count = read_events_ids(key, &ids);

		return sagaz_scan_by_ids(events->states, statuses, ids, count);
	}
	ids = palloc(sizeof(Datum));
	ids[0] = UUIDPGetDatum(memcpy(palloc(UUID_LEN), DatumGetUUIDP(key), UUID_LEN));
	return sagaz_scan_by_ids(events->states, statuses, ids, 1);
}

/* Parameters are known by now. */
static void
start_events(ForeignScanState *node, EventsScan *events)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	MemoryContext outer = MemoryContextSwitchTo(events->context);
	int			statuses;

	events->states = sagaz_states_open_shown(SAGAZ_DEFAULT_GROUP,
											 node->ss.ps.state->es_snapshot);
	statuses = possible_events_statuses(node, events);
	if (events->way == WAY_STATUS)
		events->scan = statuses == 0 ? NULL :
			sagaz_scan_by_status(events->states, statuses);
	else
		events->scan = begin_events_by_key(events, statuses,
										   node->ss.ps.ps_ExprContext,
										   exprType(linitial(plan->fdw_exprs)));
	events->done = events->scan == NULL;
	MemoryContextSwitchTo(outer);
}

static TupleTableSlot *
iterate_events_scan(ForeignScanState *node)
{
	EventsScan *events = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;
	const SagazFoundEvent *event;
	Datum		values[event_columns];
	bool		nulls[event_columns];

	if (events->states == NULL)
		start_events(node, events);
	ExecClearTuple(slot);
	event = events->done ? NULL : sagaz_event_scan_next(events->scan);
	if (event == NULL)
	{
		events->done = true;
		return slot;
	}
	sagaz_event_row(events->states, event, values, nulls);
	memcpy(slot->tts_values, values,
		   slot->tts_tupleDescriptor->natts * sizeof(Datum));
	memcpy(slot->tts_isnull, nulls,
		   slot->tts_tupleDescriptor->natts * sizeof(bool));
	return ExecStoreVirtualTuple(slot);
}

static void
stop_events(EventsScan *events)
{
	if (events->scan)
		sagaz_event_scan_end(events->scan);
	if (events->states)
		sagaz_states_close(events->states);
	events->scan = NULL;
	events->states = NULL;
	MemoryContextReset(events->context);
}

static void
rescan_events(ForeignScanState *node)
{
	stop_events(node->fdw_state);
}

static void
end_events_scan(ForeignScanState *node)
{
	if (node->fdw_state)
		stop_events(node->fdw_state);
}

static void
explain_events_scan(ForeignScanState *node, ExplainState *es)
{
	static const char *const ways[] = {"status", "saga_id", "event_id"};
	EventsScan *events = node->fdw_state;

	ExplainPropertyText("Events by", ways[events->way], es);
}

Datum
sagaz_events_fdw(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = get_events_rel_size;
	routine->GetForeignPaths = get_events_paths;
	routine->GetForeignPlan = get_events_plan;
	routine->BeginForeignScan = begin_events_scan;
	routine->IterateForeignScan = iterate_events_scan;
	routine->ReScanForeignScan = rescan_events;
	routine->EndForeignScan = end_events_scan;
	routine->ExplainForeignScan = explain_events_scan;
	PG_RETURN_POINTER(routine);
}
