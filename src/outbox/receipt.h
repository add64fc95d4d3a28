/*
 * receipt.h
 *		What became of a batch.
 */
#ifndef SAGAZ_RECEIPT_H
#define SAGAZ_RECEIPT_H

#include "datatype/timestamp.h"
#include "utils/snapshot.h"

/* A place that a receipt names. */
typedef struct SagazNamedPlace
{
	int64		seq;
	TimestampTz at;
	bool		sent;			/* else its event was moved to outbox_retry */
} SagazNamedPlace;

/* What the receipts of a batch say together. */
typedef struct SagazReceipts
{
	int			closed_by;		/* kind of the closing receipt, 0 while open */
	TimestampTz closed_at;
	TimestampTz until;			/* released: not before; else lease extended to, or 0 */
	const char *error;			/* of a release, or NULL */
	int			events;			/* named events that are finished or moved */
	int			lost;			/* taken over: those that may have to do with it */
	int			nplaces;
	SagazNamedPlace *places;	/* theirs, sorted */
} SagazReceipts;

extern void sagaz_receipts_read(int64 batch_id, Snapshot snapshot,
								SagazReceipts *receipts);
extern const SagazNamedPlace *sagaz_receipts_find(const SagazReceipts *receipts,
												  int64 seq);
extern int	sagaz_receipt_closing(int64 batch_id, Snapshot snapshot,
								  TimestampTz *until);
extern void sagaz_receipt_close(int64 batch_id, int kind, TimestampTz at,
								TimestampTz until, int events,
								const char *note);
extern void sagaz_receipts_remove(int64 batch_id);
extern void sagaz_receipt_extend(int64 batch_id, TimestampTz until);
extern void sagaz_receipt_events(int64 batch_id, int kind, TimestampTz at,
								 int64 *seqs, int nseqs);

#endif							/* SAGAZ_RECEIPT_H */
