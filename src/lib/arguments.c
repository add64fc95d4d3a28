/*
 * arguments.c
 *		Reading of SQL arguments, each complaint naming the field.
 */
#include "lib/sagaz.h"

#include <limits.h>

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

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
	const Interval *value;
	double		total;

	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("%s must not be null", field)));
	value = PG_GETARG_INTERVAL_P(argno);
	total = microseconds(value);
	if (total < 0 || total > (double) INT64CONST(3652500) * USECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("%s must be between 0 and 10000 years", field)));
	return (int64) total;
}
