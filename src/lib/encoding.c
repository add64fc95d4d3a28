/*
 * encoding.c
 *		Text of the database as UTF-8, and back.
 *
 * The server's own functions end the statement at the first character that
 * has no place, and look into the catalog, so they need a transaction, which a
 * worker has not while it talks to a storage.  These tell, and keep what was
 * found in the catalog; whoever finds a storage is in a transaction.
 */
#include "lib/encoding.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

/* A conversion of the session; its function is looked for once. */
typedef struct Converter
{
	int			from;
	int			to;
	FmgrInfo	function;
} Converter;

#define CONVERTERS 8

static Converter converters[CONVERTERS];
static int	nconverters = 0;

/* NULL where there is none. */
static FmgrInfo *
converter_function(int from, int to)
{
	Converter  *converter;
	Oid			function;

	for (int i = 0; i < nconverters; i++)
		if (converters[i].from == from && converters[i].to == to)
			return &converters[i].function;
	if (!IsTransactionState())
		elog(ERROR, "an encoding is met outside a transaction for the first time");
	function = FindDefaultConversionProc(from, to);
	if (!OidIsValid(function))
		return NULL;
	converter = &converters[nconverters < CONVERTERS ? nconverters++ : CONVERTERS - 1];
	converter->from = converter->to = -1;
	fmgr_info_cxt(function, &converter->function, TopMemoryContext);
	converter->from = from;
	converter->to = to;
	return &converter->function;
}

/* A copy in the other encoding; NULL where it has no place for it. */
static char *
convert_text(const char *text, size_t length, int from, int to)
{
	FmgrInfo   *function = converter_function(from, to);
	char	   *converted;
	int			done;

	if (function == NULL || !AllocHugeSizeIsValid(length * MAX_CONVERSION_GROWTH + 1))
		return NULL;
	converted = MemoryContextAllocHuge(CurrentMemoryContext,
									   length * MAX_CONVERSION_GROWTH + 1);
	done = DatumGetInt32(FunctionCall6(function, Int32GetDatum(from), Int32GetDatum(to),
									   CStringGetDatum(text), CStringGetDatum(converted),
									   Int32GetDatum((int) length), BoolGetDatum(true)));
	if (done == (int) length)
		return converted;
	pfree(converted);
	return NULL;
}

static bool
is_text_as_it_is(int encoding)
{
	return encoding == GetDatabaseEncoding() || encoding == PG_SQL_ASCII;
}

/* The text itself where it is that already; NULL where there is no place for it. */
static char *
text_to(const char *text, size_t length, int encoding)
{
	if (is_text_as_it_is(encoding))
		return unconstify(char *, text);
	if (GetDatabaseEncoding() == PG_SQL_ASCII)
		return pg_verify_mbstr(encoding, text, length, true) ? unconstify(char *, text) : NULL;
	return convert_text(text, length, GetDatabaseEncoding(), encoding);
}

void
sagaz_prepare_encodings(void)
{
	if (GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII)
		return;
	(void) converter_function(GetDatabaseEncoding(), PG_UTF8);
	(void) converter_function(PG_UTF8, GetDatabaseEncoding());
}

char *
sagaz_to_utf8_part(const char *text, int length)
{
	char	   *utf8 = text_to(text, length, PG_UTF8);

	if (utf8 == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_SERIALIZATION),
				 errmsg("text of the database cannot be written as UTF-8")));
	return utf8;
}

char *
sagaz_to_utf8(const char *text)
{
	return sagaz_to_utf8_part(text, strlen(text));
}

char *
sagaz_from_utf8(const char *bytes, size_t length)
{
	if (!pg_verify_mbstr(PG_UTF8, bytes, length, true))
		return NULL;
	if (GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII)
		return pnstrdup(bytes, length);
	return convert_text(bytes, length, PG_UTF8, GetDatabaseEncoding());
}

bool
sagaz_text_fits(const char *text, int encoding)
{
	if (is_text_as_it_is(encoding) || !IsTransactionState())
		return true;
	return text_to(text, strlen(text), encoding) != NULL;
}
