/*
 * fdw_plan.c
 *		Planning of foreign tables over storages.
 *
 * Conditions that a storage can look up are told to it: equality of the key,
 * of the status and, for events, of the saga.  The server checks all
 * conditions again, so what is told is a hint; only a limit is told where
 * every condition was.
 */
#include "lib/sagaz.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "fdw/fdw.h"
#include "fdw/fdw_count.h"

#if PG_VERSION_NUM >= 180000
#define make_path(root, rel, rows, startup, total, outer) \
	create_foreignscan_path(root, rel, NULL, rows, 0, startup, total, NIL, \
							outer, NULL, NIL, NIL)
#elif PG_VERSION_NUM >= 170000
#define make_path(root, rel, rows, startup, total, outer) \
	create_foreignscan_path(root, rel, NULL, rows, startup, total, NIL, \
							outer, NULL, NIL, NIL)
#else
#define make_path(root, rel, rows, startup, total, outer) \
	create_foreignscan_path(root, rel, NULL, rows, startup, total, NIL, \
							outer, NULL, NIL)
#endif

/* A round trip, in the planner's unit, and a row's way from the storage. */
#define STARTUP_COST 10
#define ROW_COST 0.2

/* What the planner knows of the table; fdw_private of the relation. */
typedef struct PlannedTable
{
	SagazTable *table;
	int			columns[ASKED_LAST + 1];	/* attribute numbers; 0: none */
	double		rows;			/* in the storage */
} PlannedTable;

/* What the storage is asked for. */
typedef struct Question
{
	SagazHow	how[ASKED_LAST + 1];
	Expr	   *value[ASKED_LAST + 1];
	bool		is_all;			/* every condition is in it */
} Question;

/* The name of the field that is asked for. */
const char *
sagaz_plan_asked_name(SagazKind kind, SagazAsked asked)
{
	return asked == ASKED_STATUS ? "status" :
		asked == ASKED_KEY && kind == SAGAZ_EVENT ? "event_id" : "saga_id";
}

/* ---------------------------------------------------------------------- */
/* Conditions */

/* Only text is compared by the storages as it is by the server. */
static int
text_column(const SagazTable *table, const char *name)
{
	for (int column = 0; column < table->columns->natts; column++)
		if (table->fields[column] && strcmp(table->fields[column]->name, name) == 0)
			return TupleDescAttr(table->columns, column)->atttypid == TEXTOID ?
				column + 1 : 0;
	return 0;
}

static bool
is_column(Node *node, Index relid, int attnum)
{
	return attnum > 0 && IsA(node, Var) && ((Var *) node)->varno == (int) relid &&
		((Var *) node)->varlevelsup == 0 && ((Var *) node)->varattno == attnum;
}

/* The same for all rows of one scan: columns of other tables may be in it. */
static bool
is_fixed(Node *node, Index relid)
{
	return !bms_is_member(relid, pull_varnos(NULL, node)) &&
		!contain_volatile_functions(node) && !contain_subplans(node);
}

static bool
is_exact(Oid collation)
{
	return !OidIsValid(collation) || get_collation_isdeterministic(collation);
}

/* The value of "column = value", or NULL. */
static Expr *
value_of(Expr *clause, Index relid, int attnum)
{
	OpExpr	   *op = (OpExpr *) clause;

	if (!IsA(clause, OpExpr) || list_length(op->args) != 2 ||
		get_opcode(op->opno) != F_TEXTEQ || !is_exact(op->inputcollid))
		return NULL;
	if (is_column(linitial(op->args), relid, attnum) &&
		is_fixed(lsecond(op->args), relid))
		return lsecond(op->args);
	if (is_column(lsecond(op->args), relid, attnum) &&
		is_fixed(linitial(op->args), relid))
		return linitial(op->args);
	return NULL;
}

/* The array of "column = ANY (array)", or NULL. */
static Expr *
array_of(Expr *clause, Index relid, int attnum)
{
	ScalarArrayOpExpr *op = (ScalarArrayOpExpr *) clause;

	if (!IsA(clause, ScalarArrayOpExpr) || !op->useOr ||
		get_opcode(op->opno) != F_TEXTEQ || !is_exact(op->inputcollid) ||
		!is_column(linitial(op->args), relid, attnum) ||
		!is_fixed(lsecond(op->args), relid))
		return NULL;
	return lsecond(op->args);
}

/* Put the condition into the question, if there is still room for it. */
static bool
ask(Question *question, SagazAsked asked, Expr *clause, Index relid, int attnum)
{
	Expr	   *value = value_of(clause, relid, attnum);
	SagazHow	how = EQUALS_VALUE;

	if (question->how[asked] != NOT_ASKED)
		return false;
	if (value == NULL && asked != ASKED_SAGA)
	{
		value = array_of(clause, relid, attnum);
		how = EQUALS_ANY;
	}
	if (value == NULL)
		return false;
	question->how[asked] = how;
	question->value[asked] = value;
	return true;
}

static void
make_question(const PlannedTable *planned, List *clauses, Index relid,
			  Question *question)
{
	ListCell   *cell;

	memset(question, 0, sizeof(Question));
	question->is_all = true;
	foreach(cell, clauses)
	{
		Expr	   *clause = ((RestrictInfo *) lfirst(cell))->clause;
		bool		is_asked = false;

		for (SagazAsked asked = ASKED_KEY; asked <= ASKED_LAST && !is_asked; asked++)
			is_asked = ask(question, asked, clause, relid, planned->columns[asked]);
		question->is_all &= is_asked;
	}
}

/* ---------------------------------------------------------------------- */
/* Paths */

/* How many rows come of so many that are there. */
static double
rows_of(const PlannedTable *planned, const Question *question)
{
	double		rows = planned->rows;

	if (question->how[ASKED_KEY] == EQUALS_VALUE)
		return 1;
	if (question->how[ASKED_KEY] == EQUALS_ANY)
		return Min(rows, 10);
	if (question->how[ASKED_SAGA] != NOT_ASKED)
		rows = Min(rows, 10);
	if (question->how[ASKED_STATUS] != NOT_ASKED)
		rows /= 5;
	return clamp_row_est(rows);
}

/*
 * How many rows the table has: as ANALYZE found, or else as the storage says.
 * That may take it a while, so it is asked only where the plan depends on it.
 */
static double
rows_of_table(const SagazTable *table, const RelOptInfo *rel, const Question *question)
{
	if (rel->tuples >= 0)
		return rel->tuples;
	if (question->how[ASKED_KEY] != NOT_ASKED)
		return SAGAZ_UNKNOWN_ROWS;
	return sagaz_table_count(table, OidIsValid(rel->userid) ? rel->userid : GetUserId());
}

static void
get_rel_size(PlannerInfo *root, RelOptInfo *rel, Oid table_id)
{
	PlannedTable *planned = palloc0(sizeof(PlannedTable));
	Relation	table = table_open(table_id, NoLock);
	Question	question;

	planned->table = sagaz_table_open(table);
	table_close(table, NoLock);
	planned->columns[ASKED_KEY] =
		text_column(planned->table, sagaz_plan_asked_name(planned->table->kind, ASKED_KEY));
	planned->columns[ASKED_STATUS] = text_column(planned->table, "status");
	if (planned->table->kind == SAGAZ_EVENT)
		planned->columns[ASKED_SAGA] = text_column(planned->table, "saga_id");
	make_question(planned, rel->baserestrictinfo, rel->relid, &question);
	planned->rows = rows_of_table(planned->table, rel, &question);
	rel->fdw_private = planned;
	rel->tuples = planned->rows;
	set_baserel_size_estimates(root, rel);
	rel->rows = Min(rows_of(planned, &question), Max(rel->rows, 1));
}

static Path *
path_for(PlannerInfo *root, RelOptInfo *rel, double rows, double read, Relids outer)
{
	return (Path *) make_path(root, rel, rows, STARTUP_COST,
							  STARTUP_COST + read * (ROW_COST + cpu_tuple_cost), outer);
}

/* Is the member of an equivalence class our key? */
static bool
member_is_key(PlannerInfo *root, RelOptInfo *rel, EquivalenceClass *class,
			  EquivalenceMember *member, void *arg)
{
	PlannedTable *planned = rel->fdw_private;

	return is_column((Node *) member->em_expr, rel->relid, planned->columns[ASKED_KEY]);
}

/* A path for a join whose other side gives the key. */
static void
add_path_by(PlannerInfo *root, RelOptInfo *rel, RestrictInfo *clause)
{
	PlannedTable *planned = rel->fdw_private;
	Question	question;
	Relids		outer;

	make_question(planned, list_make1(clause), rel->relid, &question);
	if (question.how[ASKED_KEY] == NOT_ASKED)
		return;
	outer = bms_del_member(bms_union(clause->clause_relids, rel->lateral_relids),
						   rel->relid);
	if (bms_is_empty(outer) || !join_clause_is_movable_to(clause, rel))
		return;
	(void) get_baserel_parampathinfo(root, rel, outer);
	add_path(rel, path_for(root, rel, rows_of(planned, &question),
						   rows_of(planned, &question), outer));
}

static void
get_paths(PlannerInfo *root, RelOptInfo *rel, Oid table_id)
{
	PlannedTable *planned = rel->fdw_private;
	Question	question;
	ListCell   *cell;

	make_question(planned, rel->baserestrictinfo, rel->relid, &question);
	add_path(rel, path_for(root, rel, rel->rows, rows_of(planned, &question),
						   rel->lateral_relids));
	if (planned->columns[ASKED_KEY] == 0)
		return;
	foreach(cell, rel->joininfo)
		add_path_by(root, rel, lfirst(cell));
	if (rel->has_eclass_joins)
		foreach(cell, generate_implied_equalities_for_column(root, rel, member_is_key,
															 NULL, rel->lateral_referencers))
			add_path_by(root, rel, lfirst(cell));
}

/* ---------------------------------------------------------------------- */
/* The plan */

static bool
is_constant(Node *node)
{
	return node == NULL || IsA(node, Const);
}

/*
 * So many rows are enough; 0 where that cannot be said.  The planner's own
 * number may be a guess, of a function that gives another value when the plan
 * is used again.
 */
static int64
limit_of(PlannerInfo *root, RelOptInfo *rel, const Question *question)
{
	if (!question->is_all || root->limit_tuples <= 0 ||
		!is_constant(root->parse->limitCount) ||
		!is_constant(root->parse->limitOffset) ||
		root->parse->sortClause != NIL || root->parse->rowMarks != NIL ||
		root->parse->commandType != CMD_SELECT ||
		bms_membership(root->all_baserels) != BMS_SINGLETON ||
		!bms_equal(root->all_baserels, rel->relids))
		return 0;
	return (int64) root->limit_tuples;
}

static ForeignScan *
get_plan(PlannerInfo *root, RelOptInfo *rel, Oid table_id, ForeignPath *path,
		 List *target_list, List *clauses, Plan *outer_plan)
{
	PlannedTable *planned = rel->fdw_private;
	Question	question;
	List	   *expressions = NIL;
	List	   *private = NIL;

	make_question(planned, clauses, rel->relid, &question);
	for (SagazAsked asked = ASKED_KEY; asked <= ASKED_LAST; asked++)
	{
		private = lappend(private, makeInteger(question.how[asked]));
		if (question.how[asked] != NOT_ASKED)
			expressions = lappend(expressions, question.value[asked]);
	}
	private = lappend(private,
					  makeString(psprintf(INT64_FORMAT, limit_of(root, rel, &question))));
	return make_foreignscan(target_list, extract_actual_clauses(clauses, false),
							rel->relid, expressions, private, NIL, NIL, outer_plan);
}

void
sagaz_fdw_plan(FdwRoutine *routine)
{
	routine->GetForeignRelSize = get_rel_size;
	routine->GetForeignPaths = get_paths;
	routine->GetForeignPlan = get_plan;
}
