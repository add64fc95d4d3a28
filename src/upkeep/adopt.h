/*
 * adopt.h
 *		Events that somebody elsewhere holds.
 */
#ifndef SAGAZ_ADOPT_H
#define SAGAZ_ADOPT_H

#include "datatype/timestamp.h"

#include "outbox/group.h"

extern int64 sagaz_adopted_batch(const SagazGroup *group, const int *counts,
								 TimestampTz claimed_at);

#endif							/* SAGAZ_ADOPT_H */
