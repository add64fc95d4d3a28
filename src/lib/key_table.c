/*
 * key_table.c
 *		Hash tables whose entries begin with a pointer to their key.
 */
#include "lib/sagaz.h"

#include "common/hashfn.h"

#include "lib/key_table.h"

static uint32
hash_key(const void *key, Size size)
{
	const char *text = *(const char *const *) key;

	return DatumGetUInt32(hash_any((const unsigned char *) text, strlen(text)));
}

static int
match_key(const void *a, const void *b, Size size)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* The keys belong to the caller, and must last as long as their entries. */
HTAB *
sagaz_key_table(const char *name, long count, Size entry_size,
				MemoryContext context)
{
	HASHCTL		control = {
		.keysize = sizeof(char *),
		.entrysize = entry_size,
		.hash = hash_key,
		.match = match_key,
		.hcxt = context
	};

	return hash_create(name, count, &control,
					   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}
