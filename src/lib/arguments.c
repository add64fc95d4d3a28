/*
 * arguments.c
 *		Reading of SQL arguments, each complaint naming the field.
 */
#include "lib/sagaz.h"

#include <limits.h>

#include "catalog/pg_type.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* What must be there, of any type. */
Datum
sagaz_argument(FunctionCallInfo fcinfo, int argno, const char *field)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("%s must not be null", field)));
	return PG_GETARG_DATUM(argno);
}

/* A text that must be there and not be empty. */
char *
sagaz_text_argument(FunctionCallInfo fcinfo, int argno, const char *field)
{
	char	   *value = sagaz_text_argument_or_null(fcinfo, argno);

	if (value == NULL || value[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("%s must not be %s", field,
						value == NULL ? "null" : "empty")));
	return value;
}

/* A text or NULL. */
char *
sagaz_text_argument_or_null(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return NULL;
	return text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

/* Microseconds of an interval; a month counts as 30 days. */
static double
microseconds(const Interval *value)
{
	return (double) value->time +
		((double) value->month * DAYS_PER_MONTH + value->day) * USECS_PER_DAY;
}

/* Milliseconds of an interval that was checked before it was stored. */
int
sagaz_interval_in_ms(const Interval *value)
{
	return (int) Min(microseconds(value) / 1000, INT_MAX);
}

/*
 * An interval that must be there, be finite and not be negative, in
 * microseconds.
 */
int64
sagaz_interval_argument(FunctionCallInfo fcinfo, int argno, const char *field)
{
	double		total = microseconds(DatumGetIntervalP(sagaz_argument(fcinfo, argno, field)));

	if (total < 0 || total > (double) INT64CONST(3652500) * USECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("%s must be between 0 and 10000 years", field)));
	return (int64) total;
}

/* A number of rows, which must be there and may be 0. */
int
sagaz_rows_argument(FunctionCallInfo fcinfo, int argno, const char *field)
{
	int			count = DatumGetInt32(sagaz_argument(fcinfo, argno, field));

	if (count < 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("%s must not be negative", field)));
	return count;
}

/* How many rows at most, 1 at least; what stands for all of them where it is null. */
int64
sagaz_max_rows_argument(FunctionCallInfo fcinfo, int argno, int64 all)
{
	if (PG_ARGISNULL(argno))
		return all;
	if (PG_GETARG_INT32(argno) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("max_rows must be at least 1")));
	return PG_GETARG_INT32(argno);
}

/* The ids of an array that must be there, and in which none may be null. */
Datum *
sagaz_ids_argument(FunctionCallInfo fcinfo, int argno, const char *field, int *count)
{
	Datum	   *ids;
	bool	   *nulls;

	deconstruct_array(DatumGetArrayTypeP(sagaz_argument(fcinfo, argno, field)),
					  UUIDOID, UUID_LEN, false, TYPALIGN_CHAR, &ids, &nulls, count);
	for (int i = 0; i < *count; i++)
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_SAGAZ_INPUT),
					 errmsg("%s must not contain null", field)));
	return ids;
}
