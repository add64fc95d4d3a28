/*
 * varint.c
 *		Whole numbers in as few bytes as they need, and what such values of a
 *		row begin with.
 */
#include "lib/sagaz.h"

#include "fmgr.h"

#include "lib/varint.h"

/* Seven bits a byte, the lowest first; the high bit says that more follow. */
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

/* An error if the value ends in the number, as all that reads it. */
uint64
sagaz_varint_get(SagazBytes *bytes)
{
	uint64		value = 0;
	int			shift = 0;

	for (;;)
	{
		unsigned char byte;

		if (bytes->at >= bytes->end || shift > 63)
			refuse_varint();
		byte = *bytes->at++;
		value |= (uint64) (byte & 0x7f) << shift;
		if (byte < 0x80)
			return value;
		shift += 7;
	}
}

/* How many numbers follow, each of which takes a byte at least. */
int
sagaz_varint_get_count(SagazBytes *bytes)
{
	uint64		count = sagaz_varint_get(bytes);

	if (count > (uint64) (bytes->end - bytes->at))
		refuse_varint();
	return (int) count;
}

/* A number that may be negative but is small: the sign goes last. */
void
sagaz_varint_put_signed(StringInfo buffer, int64 value)
{
	sagaz_varint_put(buffer, ((uint64) value << 1) ^ (uint64) (value >> 63));
}

/*
 * The sign is the lowest bit, so that small negative numbers are short, too.
 */
int64
sagaz_varint_get_signed(SagazBytes *bytes)
{
	uint64		value = sagaz_varint_get(bytes);

	return (int64) (value >> 1) ^ -(int64) (value & 1);
}

/* Begin a value in an empty buffer. */
void
sagaz_varint_begin(StringInfo buffer, int version)
{
	appendStringInfoSpaces(buffer, VARHDRSZ);
	sagaz_varint_put(buffer, version);
}

/* The value, in the buffer's memory. */
bytea *
sagaz_varint_end(StringInfo buffer)
{
	SET_VARSIZE(buffer->data, buffer->len);
	return (bytea *) buffer->data;
}

/*
 * Read a value, which must outlive the reading where it is not toasted.  One
 * that a newer version of sagaz wrote is an error: what is guessed of it could
 * lose events.
 */
void
sagaz_varint_open(SagazBytes *bytes, Datum value, const char *column,
				 int version)
{
	bytea	   *stored = DatumGetByteaPP(value);
	uint64		found;

	bytes->at = (unsigned char *) VARDATA_ANY(stored);
	bytes->end = bytes->at + VARSIZE_ANY_EXHDR(stored);
	found = sagaz_varint_get(bytes);
	if (found == 0)
		refuse_varint();
	if (found > (uint64) version)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a row of %s.outbox_batch was written by a newer version of sagaz",
						SAGAZ_SCHEMA),
				 errdetail("Column \"%s\" has version " UINT64_FORMAT ", known are those up to %d.",
						   column, found, version),
				 errhint("Install the newer version here, too.")));
}
