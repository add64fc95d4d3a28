/*
 * text_array.c
 *		Arrays of text, from and to strings.
 */
#include "lib/sagaz.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

/*
 * An array of text, in the present memory context; none of the strings may be
 * NULL.
 */
Datum
sagaz_text_array(const char *const *texts, int count)
{
	Datum	   *values = palloc((count + 1) * sizeof(Datum));

	for (int i = 0; i < count; i++)
		values[i] = CStringGetTextDatum(texts[i]);
	return PointerGetDatum(construct_array(values, count, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

/* Texts of an array that must be there, and in which none may be null. */
char **
sagaz_text_array_argument(FunctionCallInfo fcinfo, int argno, const char *field,
						  int *count)
{
	Datum	   *elements;
	bool	   *nulls;
	char	  **texts;

	deconstruct_array(DatumGetArrayTypeP(sagaz_argument(fcinfo, argno, field)),
					  TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, count);
	texts = palloc((*count + 1) * sizeof(char *));
	for (int i = 0; i < *count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_SAGAZ_INPUT),
					 errmsg("%s must not contain null", field)));
		texts[i] = TextDatumGetCString(elements[i]);
	}
	return texts;
}
