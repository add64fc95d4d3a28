/*
 * key_table.h
 *		Hash tables whose entries begin with a pointer to their key.
 */
#ifndef SAGAZ_KEY_TABLE_H
#define SAGAZ_KEY_TABLE_H

#include "utils/hsearch.h"

extern HTAB *sagaz_key_table(const char *name, long count, Size entry_size,
							 MemoryContext context);

#endif							/* SAGAZ_KEY_TABLE_H */
