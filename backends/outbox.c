/*
 * outbox.c
 *		An outbox on top of get, put and scan: leases, retries, dead letters.
 *
 * A claim marks its events claimed, with one batch_id, the worker and the end
 * of the lease.  Whoever finishes, releases or extends the batch must still
 * have it: events of the batch that another claim took over carry another
 * batch_id, and a batch none of whose events is left is lost.  All of it
 * happens within a write transaction of the store, so that two workers never
 * hold one event.
 */
#include "sagaz.h"

#include "utils/timestamp.h"

#include "backend.h"

#define MAX_BACKOFF		(INT64CONST(3600) * USECS_PER_SEC)

#if PG_VERSION_NUM >= 150000
#include "common/pg_prng.h"
#define random_fraction() pg_prng_double(&pg_global_prng_state)
#else
#define random_fraction() ((double) random() / ((double) MAX_RANDOM_VALUE + 1))
#endif

/* What a piece of work is about. */
typedef struct Work
{
	const SagazClaim *claim;
	int64		batch_id;
	const char *worker_id;
	const char *error;
	TimestampTz at;				/* not before, until, or claimed until */
	TimestampTz now;
	SagazRecord *events;
	int			count;
} Work;

void
sagaz_atomically(SagazStore *store, void (*work) (SagazStore *store, void *arg),
				 void *arg)
{
	sagaz_begin(store, true);
	PG_TRY();
	{
		work(store, arg);
		sagaz_commit(store);
	}
	PG_CATCH();
	{
		sagaz_rollback(store);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* Read all events that a filter lets through. */
static void
read_events(SagazStore *store, const SagazFilter *filter, Work *work)
{
	SagazReader *reader = sagaz_scan(store, SAGAZ_EVENT, filter);
	int			room = 64;

	work->events = palloc(room * sizeof(SagazRecord));
	work->count = 0;
	for (;;)
	{
		if (work->count == room)
		{
			room *= 2;
			work->events = repalloc_huge(work->events,
										 (Size) room * sizeof(SagazRecord));
		}
		if (!sagaz_read_next(reader, &work->events[work->count]))
			break;
		if (work->events[work->count].event.complaint == NULL)
			work->count++;
	}
	sagaz_read_end(reader);
}

/*
 * A number for a batch that is not in use.  Batches are told apart by worker
 * as well, so that a time will do; several in a microsecond count on.
 */
static int64
new_batch_id(TimestampTz now)
{
	static int64 last = 0;

	last = Max(last + 1, now);
	return last;
}

static void
claim_work(SagazStore *store, void *arg)
{
	Work	   *work = arg;
	const SagazClaim *claim = work->claim;
	SagazFilter filter;
	int64		batch_id = new_batch_id(claim->now);

	sagaz_filter_init(&filter);
	filter.claimable_at = claim->now;
	filter.created_until = claim->created_until;
	filter.order = SAGAZ_BY_INSERTION;
	filter.limit = claim->batch_size;
	read_events(store, &filter, work);
	for (int i = 0; i < work->count; i++)
	{
		SagazEventRecord *event = &work->events[i].event;

		event->status = pstrdup("claimed");
		event->claimed_at = claim->now;
		event->worker_id = pstrdup(claim->worker_id);
		event->batch_id = batch_id;
		event->lease_until = claim->now + claim->lease;
		event->next_attempt_at = SAGAZ_NO_TIME;
	}
	if (work->count > 0)
		sagaz_put(store, SAGAZ_EVENT, work->events, work->count);
}

int
sagaz_outbox_claim(SagazStore *store, const SagazClaim *claim,
				   SagazEventRecord **events)
{
	Work		work = {.claim = claim};

	sagaz_atomically(store, claim_work, &work);
	*events = palloc(Max(work.count, 1) * sizeof(SagazEventRecord));
	for (int i = 0; i < work.count; i++)
		(*events)[i] = work.events[i].event;
	return work.count;
}

/* Read the events that the worker still owes of a batch; SZ006 if none. */
static void
read_batch(SagazStore *store, Work *work)
{
	SagazFilter filter;
	int			mine = 0;

	sagaz_filter_init(&filter);
	filter.batch_id = work->batch_id;
	filter.statuses = 1 << SAGAZ_CLAIMED;
	read_events(store, &filter, work);
	for (int i = 0; i < work->count; i++)
		if (work->events[i].event.worker_id != NULL &&
			strcmp(work->events[i].event.worker_id, work->worker_id) == 0)
			work->events[mine++] = work->events[i];
	work->count = mine;
	if (mine == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CONCURRENCY),
				 errmsg("batch is not held by the worker"),
				 errdetail("Batch %lld of storage \"%s\" is finished, or was taken over or released, or is not of worker \"%s\".",
						   (long long) work->batch_id, store->name,
						   work->worker_id)));
}

static void
finish_work(SagazStore *store, void *arg)
{
	Work	   *work = arg;

	read_batch(store, work);
	for (int i = 0; i < work->count; i++)
	{
		SagazEventRecord *event = &work->events[i].event;

		event->status = pstrdup("sent");
		event->sent_at = work->now;
		event->lease_until = SAGAZ_NO_TIME;
	}
	sagaz_put(store, SAGAZ_EVENT, work->events, work->count);
}

int
sagaz_outbox_finish(SagazStore *store, int64 batch_id, const char *worker_id,
					TimestampTz now)
{
	Work		work = {.batch_id = batch_id, .worker_id = worker_id,
	.now = now};

	sagaz_atomically(store, finish_work, &work);
	return work.count;
}

/* Make an event claimable again. */
static void
give_back(SagazEventRecord *event, TimestampTz not_before)
{
	event->status = pstrdup("pending");
	event->claimed_at = SAGAZ_NO_TIME;
	event->worker_id = NULL;
	event->batch_id = 0;
	event->lease_until = SAGAZ_NO_TIME;
	event->next_attempt_at = not_before;
}

static void
release_work(SagazStore *store, void *arg)
{
	Work	   *work = arg;

	read_batch(store, work);
	for (int i = 0; i < work->count; i++)
	{
		give_back(&work->events[i].event, work->at);
		if (work->error != NULL)
			work->events[i].event.last_error = pstrdup(work->error);
	}
	sagaz_put(store, SAGAZ_EVENT, work->events, work->count);
}

int
sagaz_outbox_release(SagazStore *store, int64 batch_id, const char *worker_id,
					 const char *error, TimestampTz not_before,
					 TimestampTz now)
{
	Work		work = {.batch_id = batch_id, .worker_id = worker_id,
	.error = error, .at = not_before, .now = now};

	sagaz_atomically(store, release_work, &work);
	return work.count;
}

static void
extend_work(SagazStore *store, void *arg)
{
	Work	   *work = arg;

	read_batch(store, work);
	for (int i = 0; i < work->count; i++)
		work->events[i].event.lease_until = work->at;
	sagaz_put(store, SAGAZ_EVENT, work->events, work->count);
}

void
sagaz_outbox_extend(SagazStore *store, int64 batch_id, const char *worker_id,
					TimestampTz until, TimestampTz now)
{
	Work		work = {.batch_id = batch_id, .worker_id = worker_id,
	.at = until, .now = now};

	sagaz_atomically(store, extend_work, &work);
}

static void
expire_work(SagazStore *store, void *arg)
{
	Work	   *work = arg;
	SagazFilter filter;

	sagaz_filter_init(&filter);
	filter.statuses = 1 << SAGAZ_CLAIMED;
	filter.claimed_until = work->at;
	read_events(store, &filter, work);
	for (int i = 0; i < work->count; i++)
		give_back(&work->events[i].event, SAGAZ_NO_TIME);
	if (work->count > 0)
		sagaz_put(store, SAGAZ_EVENT, work->events, work->count);
}

/* Take claimed events from workers that have had them for too long. */
int
sagaz_outbox_expire(SagazStore *store, TimestampTz claimed_until)
{
	Work		work = {.at = claimed_until};

	sagaz_atomically(store, expire_work, &work);
	return work.count;
}

/* Count one more failure: a retry that waits, or a dead letter. */
void
sagaz_event_failed(SagazEventRecord *event, const char *error,
				   const SagazPolicy *policy, TimestampTz now)
{
	int64		wait = policy->backoff;

	event->retry_count++;
	event->last_error = error ? pstrdup(error) : NULL;
	event->lease_until = SAGAZ_NO_TIME;
	event->batch_id = 0;
	if (event->retry_count > policy->max_retries)
	{
		event->status = pstrdup("dead_letter");
		event->next_attempt_at = SAGAZ_NO_TIME;
		return;
	}
	for (int i = 1; i < event->retry_count && wait < MAX_BACKOFF; i++)
		wait *= 2;
	wait = Min(wait, MAX_BACKOFF);
	event->status = pstrdup("failed");
	event->next_attempt_at = now +
		(int64) (wait * (0.5 + 0.5 * random_fraction()));
}
