/*
 * key.c
 *		Keys of scans, by columns of the index and not of the table.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "catalog/pg_collation.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

#include "lib/tuples.h"

/* The function that compares two values of a type by a btree strategy. */
#define COMPARISON(type, strategy) \
	(((const RegProcedure[]) { \
		type##LT, type##LE, type##EQ, type##GE, type##GT \
	})[(strategy) - BTLessStrategyNumber])

void
sagaz_key_int2(ScanKey key, int attnum, int strategy, int16 value)
{
	ScanKeyInit(key, attnum, strategy, COMPARISON(F_INT2, strategy),
				Int16GetDatum(value));
}

void
sagaz_key_int8(ScanKey key, int attnum, int strategy, int64 value)
{
	ScanKeyInit(key, attnum, strategy, COMPARISON(F_INT8, strategy),
				Int64GetDatum(value));
}

void
sagaz_key_xid8(ScanKey key, int attnum, int strategy, uint64 value)
{
	ScanKeyInit(key, attnum, strategy, COMPARISON(F_XID8, strategy),
				UInt64GetDatum(value));
}

void
sagaz_key_time(ScanKey key, int attnum, int strategy, int64 value)
{
	ScanKeyInit(key, attnum, strategy, COMPARISON(F_TIMESTAMPTZ_, strategy),
				Int64GetDatum(value));
}

void
sagaz_key_uuid(ScanKey key, int attnum, Datum value)
{
	ScanKeyInit(key, attnum, BTEqualStrategyNumber, F_UUID_EQ, value);
}

/* Our indexes of text are of the default collation. */
void
sagaz_key_text(ScanKey key, int attnum, Datum value)
{
	ScanKeyInit(key, attnum, BTEqualStrategyNumber, F_TEXTEQ, value);
	key->sk_collation = DEFAULT_COLLATION_OID;
}
