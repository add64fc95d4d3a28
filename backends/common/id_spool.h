/*
 * id_spool.h
 *		Ids in order, as many as there may be.
 */
#ifndef SAGAZ_ID_SPOOL_H
#define SAGAZ_ID_SPOOL_H

#include "backends/common/backend.h"

typedef struct IdSpool IdSpool;

extern IdSpool *id_spool_begin(void);
extern void id_spool_add(IdSpool *spool, TimestampTz time, const char *bytes,
						 size_t length);
extern void id_spool_sort(IdSpool *spool);
extern char *id_spool_next(IdSpool *spool, size_t *length);

#endif							/* SAGAZ_ID_SPOOL_H */
