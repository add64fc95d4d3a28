/*
 * rows.c
 *		Functions that return a set of rows.
 *
 * The server has a function for this, but not under one name, nor at all in
 * the oldest version that we build for.
 */
#include "lib/sagaz.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/tuplestore.h"

#include "lib/rows.h"

/*
 * Make the caller's tuplestore, resultinfo->setResult, and its row type,
 * setDesc.
 */
void
sagaz_rows_begin(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext outer;
	TupleDesc	row_type;

	if (result == NULL || !IsA(result, ReturnSetInfo) ||
		(result->allowedModes & SFRM_Materialize) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));
	outer = MemoryContextSwitchTo(result->econtext->ecxt_per_query_memory);
	if (get_call_result_type(fcinfo, NULL, &row_type) != TYPEFUNC_COMPOSITE)
		row_type = result->expectedDesc;	/* one column */
	result->returnMode = SFRM_Materialize;
	result->setDesc = CreateTupleDescCopy(row_type);
	result->setResult =
		tuplestore_begin_heap((result->allowedModes & SFRM_Materialize_Random) != 0,
							  false, work_mem);
	MemoryContextSwitchTo(outer);
}
