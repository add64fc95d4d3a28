/*
 * target.h
 *		The one interface of all targets: what takes a delivery's batches.
 *
 * A target delivers events and raises an error where it cannot.  Everything
 * else stands above it, in attempt.c, once for all targets: trying a batch in
 * parts until an event that fails stands alone, what becomes of that one and
 * of those of its saga behind it, retries, dead letters, giving back.  When a
 * batch is claimed, and how long one waits after an error, is worker.c's.
 *
 * A further target is a file with one constant SagazTarget and a line in
 * target.c.
 */
#ifndef SAGAZ_TARGET_H
#define SAGAZ_TARGET_H

#include "utils/uuid.h"

#include "backends/common/backend.h"
#include "outbox/claim.h"
#include "wakeup/shared.h"
#include "worker/delivery.h"

/* What is to become of one event. */
typedef enum SagazTargetVerdict
{
	TARGET_DONE,				/* delivered, as far as anybody knows */
	TARGET_AGAIN,				/* to be tried again, so many times */
	TARGET_NEVER,				/* refused for good: a dead letter */
	TARGET_ASIDE				/* to be tried again, and it may have no fault */
} SagazTargetVerdict;

/* One event of the batch. */
typedef struct SagazHanded
{
	Datum		row;			/* of type outbox_event; what read() made of it */
	SagazRecord *record;		/* likewise; NULL in a stream: not to be added */
	SagazStreamId place;		/* in a stream, where each event has one */
	Datum		event_id;
	char	   *saga_id;
	int64		seq;			/* its place; only read for an ordered group */
	int			retry_count;
	SagazTargetVerdict verdict;
	char	   *reason;			/* of another one than done */
	bool		doubted;		/* it may be the target's fault as well */
	bool		settled;		/* the verdict is written and committed */
	bool		skipped;		/* not to be delivered: it has a verdict, or waits
								 * behind an event that has */
	bool		delivered;
} SagazHanded;

/* How a batch is tried, after the target failed on it. */
typedef enum SagazCare
{
	CARE_NONE,					/* as a whole; no event is to blame */
	CARE_PARTS,					/* in ever smaller parts */
	CARE_SINGLY					/* event by event */
} SagazCare;

typedef struct SagazTarget SagazTarget;

/* An event on which a target failed that may be to blame itself. */
typedef struct SagazSuspect
{
	pg_uuid_t	event_id;
	bool		others_went;	/* since then */
} SagazSuspect;

#define SAGAZ_SUSPECTS 64

/* What a worker's process knows from one batch to the next. */
typedef struct SagazRun
{
	SagazWorkerSlot *slot;
	const char *worker_id;		/* in claims */
	const SagazTarget *target;
	void	   *state;			/* the target's, in TopMemoryContext */
	bool		once;			/* what it does once is done */
	bool		patient;		/* errors that may pass blame no event */
	int			max_vain;		/* so many attempts without any success */
	int			nsuspects;		/* ever; the newest are kept, in turn */
	SagazSuspect suspects[SAGAZ_SUSPECTS];
	int			caught_up;		/* events that catch_up() finished */
} SagazRun;

typedef struct SagazBatch
{
	SagazRun   *run;
	const SagazDelivery *delivery;
	SagazClaim	claim;
	Oid			row_type;
	void	   *bound;			/* the target's, what it delivers to */
	bool		out;			/* the claim is committed, and it has to be given
								 * back if it is not finished */
	int			count;			/* events that were read and are worked on */
	SagazHanded *events;
	int			failed;			/* events that will be tried again */
	int			dead;			/* events that will not */
	int			behind;			/* events that wait for one of those */
	int			vain;			/* attempts since something went */
	bool		went;			/* some of it was delivered */
	ErrorData  *doubt;			/* the first error that may be the target's fault */
	TimestampTz lease_until;	/* as far as we know */
	TimestampTz called_at;		/* the target is at work since then; 0: it is not */
} SagazBatch;

struct SagazTarget
{
	const char *name;

	/*
	 * deliver() runs in the transaction of the claim, and is undone with it or
	 * with a subtransaction.  Else the claim is committed first, and no
	 * transaction is open.
	 */
	bool		undoes;

	/*
	 * A batch that failed stays open, and catch_up() decides what becomes of
	 * it; a verdict is committed before anything behind that event is tried.
	 */
	bool		keeps;

	/* Is it for this delivery?  In a transaction. */
	bool		(*serves) (const SagazDelivery *delivery);

	/*
	 * Settle what earlier batches left.  Called in a transaction before each
	 * claim; where there was something to do it ends the transaction and
	 * returns true, and then nothing is claimed in this round.
	 */
	bool		(*catch_up) (SagazRun *run, const SagazDelivery *delivery);

	/* Say more of what is to be claimed. */
	void		(*prepare) (SagazBatch *batch);

	/* Take what the target needs from a claimed row; the slot is reused. */
	void		(*read) (TupleTableSlot *slot, SagazHanded *event);

	/* In the transaction of the claim: what is needed of the catalogs. */
	void		(*bind) (SagazBatch *batch);

	/* The claim is committed.  False: not now, catch_up() comes first. */
	bool		(*begin) (SagazBatch *batch);

	/*
	 * Deliver the events from first up to end that are not skipped, in this
	 * order, and mark them as delivered.  After an error those of one that
	 * undoes nothing may be there, and may be delivered once more.  last: no
	 * other call follows in the transaction.
	 */
	void		(*deliver) (SagazBatch *batch, int first, int end, bool last);

	/* Before the verdict on one event of a target that keeps is written. */
	void		(*judged) (SagazBatch *batch, int event);

	/* After the batch, outside of a transaction; done: nothing is left of it. */
	void		(*end) (SagazRun *run, bool done);
};

/* each at the end of its own file */
extern const SagazTarget sagaz_handler_target;
extern const SagazTarget sagaz_forward_target;
extern const SagazTarget sagaz_stream_target;

/* prepare, begin and judged of a target that has nothing to do there */
static inline void
sagaz_target_no_more(SagazBatch *batch)
{
}

static inline bool
sagaz_target_begins(SagazBatch *batch)
{
	return true;
}

static inline void
sagaz_target_judges_nothing(SagazBatch *batch, int event)
{
}

extern const SagazTarget *sagaz_target_of(const SagazDelivery *delivery);

#endif							/* SAGAZ_TARGET_H */
