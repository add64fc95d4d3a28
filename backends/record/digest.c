/*
 * digest.c
 *		Digests of records, and checksums made of them.
 *
 * A record's digest is the SHA-256 of its normal form.  A checksum is the sum
 * of digests as numbers of 256 bits, so that the order in which a storage
 * yields its records makes no difference.
 */
#include "lib/sagaz.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "backends/record/digest.h"
#include "backends/record/record.h"

/*
 * Of the record's normal form as text of the database, so that the same
 * record has the same one in every storage.  Leaves its work in the present
 * memory context.
 */
void
sagaz_digest(const SagazRecord *record, SagazDigest *digest)
{
	Jsonb	   *json = sagaz_record_to_json(record);
	char	   *text = JsonbToCString(NULL, &json->root, VARSIZE(json));
	bytea	   *sha256 =
		DatumGetByteaPP(DirectFunctionCall1(sha256_bytea,
											PointerGetDatum(cstring_to_text(text))));

	memcpy(digest->bytes, VARDATA_ANY(sha256), SAGAZ_DIGEST_SIZE);
}

/*
 * A sum, so that the order in which records are read is of no matter, and
 * two that are the same do not cancel each other out.
 */
void
sagaz_digest_add(SagazDigest *sum, const SagazDigest *digest)
{
	int			carry = 0;

	for (int i = SAGAZ_DIGEST_SIZE - 1; i >= 0; i--)
	{
		carry += sum->bytes[i] + digest->bytes[i];
		sum->bytes[i] = carry & 0xff;
		carry >>= 8;
	}
}

/* In hexadecimal, as validate() shows it. */
char *
sagaz_digest_text(const SagazDigest *digest)
{
	char	   *hex = palloc(2 * SAGAZ_DIGEST_SIZE + 1);

	hex_encode((const char *) digest->bytes, SAGAZ_DIGEST_SIZE, hex);
	hex[2 * SAGAZ_DIGEST_SIZE] = '\0';
	return hex;
}
