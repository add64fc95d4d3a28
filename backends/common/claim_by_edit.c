/*
 * claim_by_edit.c
 *		Claiming and finishing batches over a backend's edit.
 *
 * A lease that is lost shows as a batch without events: whoever takes an
 * event over gives it another batch.
 */
#include "backends/common/backend.h"

#include "backends/record/record.h"
#include "outbox/batch.h"

typedef struct Claim
{
	const SagazClaimOrder *order;
	List	   *claimed;		/* SagazRecord */
} Claim;

typedef struct Finish
{
	int64		batch_id;
	const char *worker_id;
	TimestampTz now;
	int			events;
} Finish;

/*
 * The event is in that batch now.  The worker's name is the order's, and
 * must last as long.
 */
void
sagaz_claim_mark_claimed(SagazEvent *event, const SagazClaimOrder *order)
{
	event->status = "claimed";
	event->claimed_at = order->now;
	event->worker_id = unconstify(char *, order->worker_id);
	event->batch_id = order->batch_id;
	event->lease_until = 0;
	event->next_attempt_at = 0;
}

/* Whose it was, and since when, stays. */
void
sagaz_claim_mark_sent(SagazEvent *event, TimestampTz now)
{
	event->status = "sent";
	event->sent_at = now;
	event->batch_id = 0;
	event->lease_until = 0;
	event->next_attempt_at = 0;
}

/* An error if another worker has claimed the event. */
void
sagaz_check_claimed_by(const SagazEvent *event, int64 batch_id, const char *worker_id)
{
	if (event->worker_id == NULL || strcmp(event->worker_id, worker_id) != 0)
		sagaz_batch_lost(batch_id, "It was claimed by another worker.");
}

static SagazVerdict
claim_edit(SagazRecord *record, bool exists, void *arg)
{
	Claim	   *claim = arg;
	SagazRecord *copy;

	if (record->event.created_at > claim->order->created_before)
		return SAGAZ_KEEP;
	sagaz_claim_mark_claimed(&record->event, claim->order);
	copy = palloc(sizeof(SagazRecord));
	sagaz_record_copy(record, copy);
	claim->claimed = lappend(claim->claimed, copy);
	return SAGAZ_CHANGE;
}

/* What is too young is left and counts to the limit, as it comes last. */
List *
sagaz_claim_by_edit(SagazStore *store, const SagazClaimOrder *order)
{
	SagazFilter filter = {.order = SAGAZ_OLDEST_FIRST};
	Claim		claim = {.order = order};

	filter.limit = order->limit;
	filter.claimable_at = order->now;
	filter.lease_us = order->lease_us;
	(void) sagaz_edit(store, SAGAZ_EVENT, &filter, false, claim_edit, &claim);
	return claim.claimed;
}

static SagazVerdict
finish_edit(SagazRecord *record, bool exists, void *arg)
{
	Finish	   *finish = arg;

	if (strcmp(record->event.status, "claimed") != 0)
		return SAGAZ_KEEP;
	sagaz_check_claimed_by(&record->event, finish->batch_id, finish->worker_id);
	finish->events++;
	sagaz_claim_mark_sent(&record->event, finish->now);
	return SAGAZ_CHANGE;
}

/*
 * Of another worker's event an error, which undoes what was finished before
 * it.
 */
int
sagaz_finish_by_edit(SagazStore *store, int64 batch_id, const char *worker_id,
					 TimestampTz now)
{
	SagazFilter filter = {.batch_id = batch_id};
	Finish		finish = {.batch_id = batch_id,.worker_id = worker_id,.now = now};

	(void) sagaz_edit(store, SAGAZ_EVENT, &filter, false, finish_edit, &finish);
	return finish.events;
}
