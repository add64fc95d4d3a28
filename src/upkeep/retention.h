/*
 * retention.h
 *		Removing what every consumer group has finished.
 */
#ifndef SAGAZ_RETENTION_H
#define SAGAZ_RETENTION_H

#include "datatype/timestamp.h"
#include "utils/snapshot.h"

#include "outbox/state.h"

/* An event that stays, and that a group's batch rows still tell about. */
typedef struct SagazKept
{
	uint64		pos;
	int64		seq;
} SagazKept;

/* One group, as one pass over the log of one lane sees it. */
typedef struct SagazKeeper
{
	SagazStates *states;
	int			nkept;
	int			kept_size;
	SagazKept  *kept;
} SagazKeeper;

extern int64 sagaz_retention_archive(TimestampTz before, int64 max_rows);

/* retention_batch.c */
extern void sagaz_remove_batches(const SagazKeeper *keeper, int16 lane,
								 int64 end_seq, TimestampTz before,
								 List **removed);
extern void sagaz_retention_remove_receipts(List *batch_ids);

#endif							/* SAGAZ_RETENTION_H */
