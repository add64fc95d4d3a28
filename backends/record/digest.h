/*
 * digest.h
 *		Digests of records, and checksums made of them.
 */
#ifndef SAGAZ_DIGEST_H
#define SAGAZ_DIGEST_H

#include "backends/record/record.h"

#define SAGAZ_DIGEST_SIZE 32

typedef struct SagazDigest
{
	uint8		bytes[SAGAZ_DIGEST_SIZE];
} SagazDigest;

extern void sagaz_digest(const SagazRecord *record, SagazDigest *digest);
extern void sagaz_digest_add(SagazDigest *sum, const SagazDigest *digest);
extern char *sagaz_digest_text(const SagazDigest *digest);

#endif							/* SAGAZ_DIGEST_H */
