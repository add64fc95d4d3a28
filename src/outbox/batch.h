/*
 * batch.h
 *		The lease of a batch.
 */
#ifndef SAGAZ_BATCH_H
#define SAGAZ_BATCH_H

#include "datatype/timestamp.h"
#include "utils/snapshot.h"

#include "outbox/group.h"
#include "outbox/receipt.h"

/* An open batch that the caller's worker holds and has locked. */
typedef struct SagazLease
{
	int64		batch_id;
	SagazGroup	group;
	char	   *worker_id;		/* who has it */
	int			events;			/* handed out, all lanes */
	bool		in_stream;		/* its events have places in a stream */
	TimestampTz claimed_at;
	SagazReceipts receipts;
	Snapshot	snapshot;		/* taken under the lock; registered */
} SagazLease;

extern void sagaz_batch_lost(int64 batch_id, const char *detail);
extern TimestampTz sagaz_batch_lease_end(TimestampTz claimed_at, TimestampTz extended,
										 TimestampTz now);
extern bool sagaz_batch_is_older(TimestampTz claimed_at, int64 age, TimestampTz now);
extern void sagaz_batch_lease_open(int64 batch_id, const char *worker_id,
								   SagazLease *lease);
extern void sagaz_batch_lease_done(SagazLease *lease);
extern int	sagaz_batch_still_owed(const SagazLease *lease);
extern void sagaz_batch_close_if_done(SagazLease *lease, int events,
									  TimestampTz at);
extern TimestampTz sagaz_batch_keep_lease(int64 batch_id, const char *worker_id);
extern bool sagaz_batch_is_of(int64 batch_id, const char *worker_id);
extern int	sagaz_batch_finish(int64 batch_id, const char *worker_id);
extern int	sagaz_batch_release(int64 batch_id, const char *worker_id,
								const char *error, int64 delay);
extern void sagaz_batch_read(int64 batch_id, Snapshot snapshot, SagazLease *lease);

#endif							/* SAGAZ_BATCH_H */
