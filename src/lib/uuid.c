/*
 * uuid.c
 *		Time-ordered event ids (RFC 9562, version 7).
 */
#include "lib/sagaz.h"

#include "fmgr.h"
#include "port.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "lib/uuid.h"

PG_FUNCTION_INFO_V1(sagaz_uuidv7);

#define UNIX_EPOCH_US \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

#define RANDOM_BYTES (UUID_LEN - 8)

/*
 * Strong random bytes for one id, out of a pool of this process: asking the
 * library each time costs more than writing an event to the log.
 */
static void
uuid_random_bytes(unsigned char *bytes)
{
	static unsigned char pool[128 * RANDOM_BYTES];
	static int	left = 0;

	if (left == 0)
	{
		if (!pg_strong_random(pool, sizeof(pool)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		left = sizeof(pool);
	}
	left -= RANDOM_BYTES;
	memcpy(bytes, pool + left, RANDOM_BYTES);
}

/*
 * 48 bits of Unix milliseconds, then 12 bits of the millisecond's fraction
 * (RFC 9562 section 6.2, method 3), then 62 random bits.
 */
void
sagaz_uuid_make(pg_uuid_t *uuid)
{
	int64		now = GetCurrentTimestamp() + UNIX_EPOCH_US;
	uint64		ms = now / 1000;
	uint32		fraction = (uint32) ((now % 1000) * 4096 / 1000);

	uuid_random_bytes(uuid->data + 8);
	for (int i = 0; i < 6; i++)
		uuid->data[i] = (unsigned char) (ms >> (40 - 8 * i));
	uuid->data[6] = (unsigned char) (0x70 | (fraction >> 8));
	uuid->data[7] = (unsigned char) fraction;
	uuid->data[8] = (unsigned char) (0x80 | (uuid->data[8] & 0x3f));
}

Datum
sagaz_uuidv7(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));

	sagaz_uuid_make(uuid);
	PG_RETURN_UUID_P(uuid);
}
