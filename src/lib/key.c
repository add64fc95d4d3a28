/*
 * key.c
 *		Keys of scans.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "catalog/pg_collation.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

#include "lib/tuples.h"

/* The function that compares int8, xid8 or int2 values by a btree strategy. */
static RegProcedure
comparison(int strategy, const RegProcedure *procedures)
{
	Assert(strategy >= BTLessStrategyNumber &&
		   strategy <= BTGreaterStrategyNumber);
	return procedures[strategy - 1];
}

void
sagaz_key_int2(ScanKey key, int attnum, int strategy, int16 value)
{
	static const RegProcedure procedures[] = {
		F_INT2LT, F_INT2LE, F_INT2EQ, F_INT2GE, F_INT2GT
	};

	ScanKeyInit(key, attnum, strategy, comparison(strategy, procedures),
				Int16GetDatum(value));
}

void
sagaz_key_int8(ScanKey key, int attnum, int strategy, int64 value)
{
	static const RegProcedure procedures[] = {
		F_INT8LT, F_INT8LE, F_INT8EQ, F_INT8GE, F_INT8GT
	};

	ScanKeyInit(key, attnum, strategy, comparison(strategy, procedures),
				Int64GetDatum(value));
}

void
sagaz_key_xid8(ScanKey key, int attnum, int strategy, uint64 value)
{
	static const RegProcedure procedures[] = {
		F_XID8LT, F_XID8LE, F_XID8EQ, F_XID8GE, F_XID8GT
	};

	ScanKeyInit(key, attnum, strategy, comparison(strategy, procedures),
				UInt64GetDatum(value));
}

void
sagaz_key_time(ScanKey key, int attnum, int strategy, int64 value)
{
	static const RegProcedure procedures[] = {
		F_TIMESTAMPTZ_LT, F_TIMESTAMPTZ_LE, F_TIMESTAMPTZ_EQ,
		F_TIMESTAMPTZ_GE, F_TIMESTAMPTZ_GT
	};

	ScanKeyInit(key, attnum, strategy, comparison(strategy, procedures),
				Int64GetDatum(value));
}

void
sagaz_key_uuid(ScanKey key, int attnum, Datum value)
{
	ScanKeyInit(key, attnum, BTEqualStrategyNumber, F_UUID_EQ, value);
}

void
sagaz_key_text(ScanKey key, int attnum, Datum value)
{
	ScanKeyInit(key, attnum, BTEqualStrategyNumber, F_TEXTEQ, value);
	key->sk_collation = DEFAULT_COLLATION_OID;
}
