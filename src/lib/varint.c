/*
 * varint.c
 *		Whole numbers in as few bytes as they need.
 */
#include "lib/sagaz.h"

#include "fmgr.h"

#include "lib/varint.h"

void
sagaz_varint_put(StringInfo buffer, uint64 value)
{
	while (value >= 0x80)
	{
		appendStringInfoCharMacro(buffer, (char) (value | 0x80));
		value >>= 7;
	}
	appendStringInfoCharMacro(buffer, (char) value);
}

static void
refuse_varint(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("a row of %s.outbox_batch is damaged", SAGAZ_SCHEMA)));
}

uint64
sagaz_varint_get(SagazBytes *reader)
{
	uint64		value = 0;
	int			shift = 0;

	for (;;)
	{
		unsigned char byte;

		if (reader->at >= reader->end || shift > 63)
			refuse_varint();
		byte = *reader->at++;
		value |= (uint64) (byte & 0x7f) << shift;
		if (byte < 0x80)
			return value;
		shift += 7;
	}
}

/* A number that may be negative but is small: the sign goes last. */
void
sagaz_varint_put_signed(StringInfo buffer, int64 value)
{
	sagaz_varint_put(buffer, ((uint64) value << 1) ^ (uint64) (value >> 63));
}

int64
sagaz_varint_get_signed(SagazBytes *reader)
{
	uint64		value = sagaz_varint_get(reader);

	return (int64) (value >> 1) ^ -(int64) (value & 1);
}

/* Read a bytea, which must outlive the reader where it is not toasted. */
void
sagaz_varint_begin(SagazBytes *reader, Datum value)
{
	bytea	   *bytes = DatumGetByteaPP(value);

	reader->at = (unsigned char *) VARDATA_ANY(bytes);
	reader->end = reader->at + VARSIZE_ANY_EXHDR(bytes);
}
