/*
 * remote_call.c
 *		Functions that the sagaz at a storage's other end runs.
 *
 * Arguments and results travel as text, in one spelling whatever the session
 * has set; the last argument, the storage, does not travel.
 */
#include "lib/sagaz.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "storage/calls.h"
#include "lib/rows.h"

/* What becomes of the rows. */
typedef struct CallResult
{
	FunctionCallInfo fcinfo;
	TypeFuncClass class;
	AttInMetadata *input;		/* of a row type */
	Oid			type;			/* or else of this type */
	Datum		value;			/* of a function that returns one */
	bool		isnull;
} CallResult;

static Datum
read_call_scalar(Oid type, char *text)
{
	Oid			function;
	Oid			parameter;

	getTypeInputInfo(type, &function, &parameter);
	return OidInputFunctionCall(function, text, parameter, -1);
}

static void
refuse_call_result(const CallResult *result)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_STORAGE),
			 errmsg("%s() returns something else at the other end",
					get_func_name(result->fcinfo->flinfo->fn_oid))));
}

/* Take a row of the other end. */
static void
take_call_row(void *arg, char **columns, int ncolumns)
{
	CallResult *result = arg;
	ReturnSetInfo *set = (ReturnSetInfo *) result->fcinfo->resultinfo;

	if (ncolumns != (result->input ? result->input->tupdesc->natts : 1))
		refuse_call_result(result);
	if (result->input)
	{
		HeapTuple	tuple = BuildTupleFromCStrings(result->input, columns);

		if (result->fcinfo->flinfo->fn_retset)
			tuplestore_puttuple(set->setResult, tuple);
		else
			result->value = HeapTupleGetDatum(tuple);
		result->isnull = false;
		return;
	}
	result->isnull = columns[0] == NULL;
	result->value = result->isnull || result->type == VOIDOID ? (Datum) 0 :
		read_call_scalar(result->type, columns[0]);
	if (result->fcinfo->flinfo->fn_retset)
		tuplestore_putvalues(set->setResult, set->setDesc, &result->value, &result->isnull);
}

/* The types of the function's arguments, and their names. */
static int
find_call_arguments(Oid function, Oid **types, char ***names)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid		   *all_types;
	char	   *modes;
	int			count;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	(void) get_func_arg_info(tuple, &all_types, names, &modes);
	ReleaseSysCache(tuple);
	(void) get_func_signature(function, types, &count);
	return count;
}

/* The arguments but for the storage, whose own group is not that of the other end. */
static void
write_call_arguments(FunctionCallInfo fcinfo, const SagazStore *store, SagazCall *call)
{
	Oid		   *types;
	char	  **names;
	int			count = find_call_arguments(fcinfo->flinfo->fn_oid, &types, &names);
	const char **values = palloc0(count * sizeof(char *));

	call->nargs = count - 1;
	call->types = types;
	for (int i = 0; i < call->nargs; i++)
	{
		Oid			function;
		bool		is_varlena;

		if (PG_ARGISNULL(i))
		{
			if (names && strcmp(names[i], "consumer_group") == 0)
				values[i] = store->consumer_group;
			continue;
		}
		getTypeOutputInfo(types[i], &function, &is_varlena);
		values[i] = OidOutputFunctionCall(function, PG_GETARG_DATUM(i));
	}
	call->values = values;
}

/* The settings that text depends on, until the nest level ends. */
static int
fix_call_spelling(void)
{
	static const char *const settings[][2] = {
		{"DateStyle", "ISO"},
		{"IntervalStyle", "postgres"},
		{"TimeZone", "UTC"},
		{"extra_float_digits", "3"},
		{"bytea_output", "hex"}
	};
	int			level = NewGUCNestLevel();

	for (int i = 0; i < (int) lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return level;
}

/*
 * Have the function run at the other end; false if there is no sagaz.  What
 * it did stays done when our transaction rolls back.
 */
bool
sagaz_remote_call(FunctionCallInfo fcinfo, SagazStore *store, Datum *value)
{
	CallResult	result = {.fcinfo = fcinfo,.isnull = true};
	SagazCall	call = {.row = take_call_row,.arg = &result};
	TupleDesc	row_type = NULL;
	int			level;
	bool		done;

	if (store->backend->call == sagaz_store_no_call)
		return false;
	result.class = get_call_result_type(fcinfo, &result.type, &row_type);
	if (fcinfo->flinfo->fn_retset)
		sagaz_rows_begin(fcinfo);
	if (result.class == TYPEFUNC_COMPOSITE)
		result.input = TupleDescGetAttInMetadata(BlessTupleDesc(row_type));
	call.schema = get_namespace_name(get_func_namespace(fcinfo->flinfo->fn_oid));
	call.function = get_func_name(fcinfo->flinfo->fn_oid);
	level = fix_call_spelling();
	write_call_arguments(fcinfo, store, &call);
	done = store->backend->call(store, &call);
	AtEOXact_GUC(true, level);
	if (done)
		fcinfo->isnull = !fcinfo->flinfo->fn_retset && result.isnull;
	*value = result.value;
	return done;
}
