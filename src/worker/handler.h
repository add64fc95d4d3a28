/*
 * handler.h
 *		Handing a claimed batch to a SQL function.
 */
#ifndef SAGAZ_HANDLER_H
#define SAGAZ_HANDLER_H

#include "backends/common/backend.h"
#include "outbox/claim.h"
#include "worker/delivery.h"

/* One event of the batch. */
typedef struct SagazHanded
{
	Datum		row;			/* of type outbox_event */
	Datum		event_id;
	char	   *saga_id;
	int64		seq;			/* its place; only read for an ordered group */
	int			retry_count;
	char	   *error;			/* why the handler failed on it, or NULL */
	bool		skipped;		/* behind such a one of its saga */
} SagazHanded;

/* How a batch is tried, after the handler failed on it. */
typedef enum SagazCare
{
	CARE_NONE,					/* as a whole, without a subtransaction */
	CARE_PARTS,					/* in ever smaller parts */
	CARE_SINGLY					/* event by event */
} SagazCare;

typedef struct SagazBatch
{
	const SagazDelivery *delivery;
	SagazClaim	claim;
	Oid			row_type;
	int			count;			/* events that were read and are worked on */
	SagazHanded *events;
	int			failed;			/* events that will be tried again */
	int			dead;			/* events that will not */
	int			behind;			/* events that wait for one of those */
	bool		patient;		/* errors that pass by themselves blame no event */
	TimestampTz called_at;		/* the handler runs since then; 0: it does not */
} SagazBatch;

extern void sagaz_handler_prepare(SagazBatch *batch);
extern void sagaz_handler_deliver(SagazBatch *batch, SagazCare care,
								  int at_once);
extern SagazCare sagaz_handler_blame(const SagazBatch *batch,
									 const ErrorData *error);

#endif							/* SAGAZ_HANDLER_H */
