/*
 * outbox_calls.c
 *		Claims, leases and what becomes of events on storages other than the
 *		native tables.
 *
 * Each change is one edit, which the backend makes atomic; it is not undone
 * when the PostgreSQL transaction rolls back.  A lease that is lost shows as
 * a batch without events: whoever takes an event over gives it another batch.
 */
#include "lib/sagaz.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "port.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "outbox/batch.h"
#include "status/event_scan.h"
#include "storage/calls.h"
#include "storage/event_row_out.h"
#include "backends/record/record.h"
#include "outbox/retry.h"
#include "lib/rows.h"
#include "storage/storage.h"
#include "lib/words.h"

/* ---------------------------------------------------------------------- */
/* Claim */

/* Nobody can tell the number of a batch that is not his. */
static int64
random_batch_id(void)
{
	int64		id = 0;

	while (id <= 0)
	{
		if (!pg_strong_random(&id, sizeof(id)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a random batch number")));
		id &= PG_INT64_MAX;
	}
	return id;
}

/* claim_batch(worker_id, batch_size, older_than, consumer_group) */
Datum
sagaz_call_claim_batch(FunctionCallInfo fcinfo, SagazStore *store)
{
	SagazClaimOrder order;
	ListCell   *cell;

	sagaz_rows_begin(fcinfo);
	order.worker_id = sagaz_text_argument(fcinfo, 0, "worker_id");
	if (PG_ARGISNULL(1) || PG_GETARG_INT32(1) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("batch_size must be at least 1")));
	order.limit = PG_GETARG_INT32(1);
	order.now = GetCurrentTimestamp();
	order.created_before = order.now - sagaz_interval_argument(fcinfo, 2, "older_than");
	order.lease_us = sagaz_claim_timeout * INT64CONST(1000);
	order.batch_id = random_batch_id();
	sagaz_storage_check_group(store, fcinfo, 3);
	foreach(cell, store->backend->claim(store, &order))
		sagaz_put_asked_row(fcinfo, store, lfirst(cell));
	return (Datum) 0;
}

/* ---------------------------------------------------------------------- */
/* The lease */

typedef enum LeaseEnd
{
	LEASE_RELEASE,
	LEASE_EXTEND
} LeaseEnd;

typedef struct Lease
{
	LeaseEnd	how;
	int64		batch_id;
	const char *worker_id;
	const char *error;
	TimestampTz now;
	TimestampTz until;			/* released: not before; extended: to */
	int64		events;
} Lease;

/* The event is back where a claim finds it. */
static void
give_back(SagazEvent *event, TimestampTz next_attempt_at)
{
	event->status = "pending";
	event->claimed_at = 0;
	event->worker_id = NULL;
	event->batch_id = 0;
	event->lease_until = 0;
	event->next_attempt_at = next_attempt_at;
}

static SagazVerdict
lease_edit(SagazRecord *record, bool exists, void *arg)
{
	Lease	   *lease = arg;
	SagazEvent *event = &record->event;

	if (strcmp(event->status, "claimed") != 0)
		return SAGAZ_KEEP;
	sagaz_check_claimed_by(event, lease->batch_id, lease->worker_id);
	switch (lease->how)
	{
		case LEASE_RELEASE:
			give_back(event, lease->until);
			if (lease->error)
				event->last_error = unconstify(char *, lease->error);
			break;
		case LEASE_EXTEND:
			lease->until = Max(lease->until, event->lease_until);
			lease->until = Max(lease->until, event->claimed_at +
							   sagaz_claim_timeout * INT64CONST(1000));
			event->lease_until = lease->until;
			break;
	}
	return SAGAZ_CHANGE;
}

static void
no_event_in(int64 batch_id)
{
	sagaz_batch_lost(batch_id, "No event is in it now.");
}

static void
change_lease(FunctionCallInfo fcinfo, SagazStore *store, Lease *lease)
{
	SagazFilter filter = {0};

	lease->batch_id = filter.batch_id = DatumGetInt64(sagaz_argument(fcinfo, 0, "batch_id"));
	lease->worker_id = sagaz_text_argument(fcinfo, 1, "worker_id");
	if (lease->batch_id > 0)
		lease->events = sagaz_edit(store, SAGAZ_EVENT, &filter, false, lease_edit, lease);
	if (lease->events == 0)
		no_event_in(lease->batch_id);
}

/* finish_batch(batch_id, worker_id) */
Datum
sagaz_call_finish_batch(FunctionCallInfo fcinfo, SagazStore *store)
{
	int64		batch_id = DatumGetInt64(sagaz_argument(fcinfo, 0, "batch_id"));
	char	   *worker_id = sagaz_text_argument(fcinfo, 1, "worker_id");
	int			events = batch_id <= 0 ? 0 :
		store->backend->finish(store, batch_id, worker_id, GetCurrentTimestamp());

	if (events == 0)
		no_event_in(batch_id);
	PG_RETURN_INT32(events);
}

/* release_batch(batch_id, worker_id, error, delay) */
Datum
sagaz_call_release_batch(FunctionCallInfo fcinfo, SagazStore *store)
{
	Lease		lease = {.how = LEASE_RELEASE,.now = GetCurrentTimestamp()};

	lease.error = sagaz_text_argument_or_null(fcinfo, 2);
	lease.until = lease.now + sagaz_interval_argument(fcinfo, 3, "delay");
	change_lease(fcinfo, store, &lease);
	PG_RETURN_INT32((int32) lease.events);
}

/* extend_batch(batch_id, worker_id, by) */
Datum
sagaz_call_extend_batch(FunctionCallInfo fcinfo, SagazStore *store)
{
	Lease		lease = {.how = LEASE_EXTEND,.now = GetCurrentTimestamp()};

	lease.until = lease.now + sagaz_interval_argument(fcinfo, 2, "by");
	change_lease(fcinfo, store, &lease);
	PG_RETURN_TIMESTAMPTZ(lease.until);
}

/* ---------------------------------------------------------------------- */
/* Single events */

typedef struct MarkCall
{
	const char *worker_id;
	const char *error;
	bool		failed;
	TimestampTz now;
} MarkCall;

static void
no_such_event(const char *event_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_NOT_FOUND),
			 errmsg("event %s is not in the outbox", event_id)));
}

/* One more failure: a retry later, or a dead letter. */
static void
fail_event(SagazEvent *event, TimestampTz now, const char *error)
{
	event->retry_count++;
	event->last_error = unconstify(char *, error);
	event->batch_id = 0;
	event->lease_until = 0;
	event->next_attempt_at = 0;
	if (event->retry_count > sagaz_max_retries)
	{
		event->status = "dead_letter";
		return;
	}
	event->status = "failed";
	event->next_attempt_at = sagaz_retry_next_attempt(now, event->retry_count);
}

static SagazVerdict
mark_edit(SagazRecord *record, bool exists, void *arg)
{
	MarkCall	   *mark = arg;
	SagazEvent *event = &record->event;

	if (strcmp(event->status, "sent") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_TRANSITION),
				 errmsg("event %s is sent already", event->event_id)));
	if (strcmp(event->status, "claimed") != 0 || event->worker_id == NULL ||
		strcmp(event->worker_id, mark->worker_id) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CONCURRENCY),
				 errmsg("event %s is not in a batch of worker \"%s\"",
						event->event_id, mark->worker_id),
				 errhint("Only events of a batch that the worker holds can be marked.")));
	if (mark->failed)
		fail_event(event, mark->now, mark->error);
	else
		sagaz_claim_mark_sent(event, mark->now);
	return SAGAZ_CHANGE;
}

/* The ids in an array argument, as text. */
static const char **
read_ids(FunctionCallInfo fcinfo, int argno, int *count)
{
	Datum	   *ids = sagaz_ids_argument(fcinfo, argno, "event_ids", count);
	const char **texts = palloc((*count + 1) * sizeof(char *));

	for (int i = 0; i < *count; i++)
		texts[i] = DatumGetCString(DirectFunctionCall1(uuid_out, ids[i]));
	return texts;
}

static void
check_all_there(SagazStore *store, const char **ids, int count)
{
	SagazFilter all = {.keys = ids,.nkeys = count};

	if (sagaz_count(store, SAGAZ_EVENT, &all) == count)
		return;
	for (int i = 0; i < count; i++)
	{
		SagazFilter filter = {.key = ids[i]};

		if (sagaz_count(store, SAGAZ_EVENT, &filter) == 0)
			no_such_event(ids[i]);
	}
}

static Datum
mark_by_call(FunctionCallInfo fcinfo, SagazStore *store, MarkCall *mark, int group)
{
	SagazFilter filter = {0};

	filter.keys = read_ids(fcinfo, 0, &filter.nkeys);
	mark->worker_id = sagaz_text_argument(fcinfo, 1, "worker_id");
	mark->now = GetCurrentTimestamp();
	sagaz_storage_check_group(store, fcinfo, group);
	if (filter.nkeys == 0)
		PG_RETURN_INT32(0);
	check_all_there(store, (const char **) filter.keys, filter.nkeys);
	PG_RETURN_INT32(sagaz_edit(store, SAGAZ_EVENT, &filter, false, mark_edit, mark));
}

/* mark_sent(event_ids, worker_id, consumer_group) */
Datum
sagaz_call_mark_sent(FunctionCallInfo fcinfo, SagazStore *store)
{
	MarkCall		mark = {0};

	return mark_by_call(fcinfo, store, &mark, 2);
}

/* mark_failed(event_ids, worker_id, error, consumer_group) */
Datum
sagaz_call_mark_failed(FunctionCallInfo fcinfo, SagazStore *store)
{
	MarkCall		mark = {.failed = true,.error = sagaz_text_argument_or_null(fcinfo, 2)};

	return mark_by_call(fcinfo, store, &mark, 3);
}

/* ---------------------------------------------------------------------- */
/* An operator's change */

typedef struct ChangeCall
{
	const char *status;
	const char *error;
	TimestampTz now;
	SagazRecord *changed;		/* NULL: there is no such event */
} ChangeCall;

static SagazVerdict
change_edit(SagazRecord *record, bool exists, void *arg)
{
	ChangeCall	   *change = arg;
	SagazEvent *event = &record->event;

	if (!sagaz_event_status_may_follow(sagaz_event_status(event->status),
									   sagaz_event_status(change->status)))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_TRANSITION),
				 errmsg("event %s cannot go from %s to %s", event->event_id,
						event->status, change->status)));
	if (strcmp(change->status, "sent") == 0)
		sagaz_claim_mark_sent(event, change->now);
	else if (strcmp(change->status, "failed") == 0)
		fail_event(event, change->now, change->error);
	else if (strcmp(change->status, "dead_letter") == 0)
	{
		event->status = "dead_letter";
		event->batch_id = 0;
		event->lease_until = event->next_attempt_at = 0;
		event->last_error = unconstify(char *, change->error);
	}
	else
	{
		if (strcmp(event->status, "dead_letter") == 0)
			event->retry_count = 0;
		give_back(event, 0);
		if (change->error)
			event->last_error = unconstify(char *, change->error);
	}
	change->changed = palloc(sizeof(SagazRecord));
	sagaz_record_copy(record, change->changed);
	return SAGAZ_CHANGE;
}

/* change_event_status(event_id, status, error, consumer_group) */
Datum
sagaz_call_change_event_status(FunctionCallInfo fcinfo, SagazStore *store)
{
	ChangeCall		change = {.now = GetCurrentTimestamp()};
	SagazFilter filter = {0};
	char	   *event_id;

	sagaz_rows_begin(fcinfo);
	filter.key = event_id = DatumGetCString(DirectFunctionCall1(uuid_out, sagaz_argument(fcinfo, 0, "event_id")));
	change.status = sagaz_text_argument(fcinfo, 1, "status");
	change.error = sagaz_text_argument_or_null(fcinfo, 2);
	if (strcmp(change.status, "pending") != 0 && strcmp(change.status, "sent") != 0 &&
		strcmp(change.status, "failed") != 0 && strcmp(change.status, "dead_letter") != 0)
		ereport(ERROR,
				(errcode(strcmp(change.status, "claimed") == 0 ?
						 ERRCODE_SAGAZ_TRANSITION : ERRCODE_SAGAZ_INPUT),
				 errmsg("status \"%s\" cannot be set", change.status),
				 errhint("Say 'pending', 'sent', 'failed' or 'dead_letter'.")));
	if (change.error && strcmp(change.status, "sent") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("error must be null for status \"sent\"")));
	sagaz_storage_check_group(store, fcinfo, 3);
	(void) sagaz_edit(store, SAGAZ_EVENT, &filter, false, change_edit, &change);
	if (change.changed == NULL)
		no_such_event(event_id);
	sagaz_put_asked_row(fcinfo, store, change.changed);
	return (Datum) 0;
}

/* ---------------------------------------------------------------------- */
/* Many events */

typedef struct StuckRelease
{
	TimestampTz now;
} StuckRelease;

static SagazVerdict
stuck_edit(SagazRecord *record, bool exists, void *arg)
{
	const StuckRelease *release = arg;

	if (record->event.lease_until > release->now)
		return SAGAZ_KEEP;
	give_back(&record->event, 0);
	return SAGAZ_CHANGE;
}

static const char *const claimed_word[] = {"claimed"};
static const char *const dead_word[] = {"dead_letter"};
static const char *const sent_word[] = {"sent"};

/* release_stuck_events(claimed_older_than, consumer_group) */
Datum
sagaz_call_release_stuck_events(FunctionCallInfo fcinfo, SagazStore *store)
{
	StuckRelease release = {GetCurrentTimestamp()};
	SagazFilter filter = {.statuses = claimed_word,.nstatuses = 1};

	filter.claimed_before = release.now -
		sagaz_interval_argument(fcinfo, 0, "claimed_older_than") + 1;
	sagaz_storage_check_group(store, fcinfo, 1);
	PG_RETURN_INT64(sagaz_edit(store, SAGAZ_EVENT, &filter, false, stuck_edit,
							   &release));
}

typedef struct RequeueCall
{
	TimestampTz now;
	int64		spread;
} RequeueCall;

static SagazVerdict
requeue_edit(SagazRecord *record, bool exists, void *arg)
{
	const RequeueCall *requeue = arg;
	SagazEvent *event = &record->event;
	uint32		chance;

	if (!pg_strong_random(&chance, sizeof(chance)))
		chance = 0;
	event->retry_count = 0;
	give_back(event, requeue->spread == 0 ? 0 :
			  requeue->now + (int64) (requeue->spread * (chance / 4294967296.0)));
	return SAGAZ_CHANGE;
}

/* requeue_dead_letters(event_ids, event_type, saga_id, max_rows, spread, reason, consumer_group) */
Datum
sagaz_call_requeue_dead_letters(FunctionCallInfo fcinfo, SagazStore *store)
{
	RequeueCall		requeue = {.now = GetCurrentTimestamp()};
	SagazFilter filter = {.statuses = dead_word,.nstatuses = 1,
	.order = SAGAZ_OLDEST_FIRST};

	if (!PG_ARGISNULL(0))
	{
		filter.keys = read_ids(fcinfo, 0, &filter.nkeys);
		if (filter.nkeys == 0)
			PG_RETURN_INT64(0);
	}
	filter.event_type = sagaz_text_argument_or_null(fcinfo, 1);
	filter.saga_id = sagaz_text_argument_or_null(fcinfo, 2);
	filter.limit = sagaz_max_rows_argument(fcinfo, 3, 0);
	requeue.spread = sagaz_interval_argument(fcinfo, 4, "spread");
	sagaz_storage_check_group(store, fcinfo, 6);
	PG_RETURN_INT64(sagaz_edit(store, SAGAZ_EVENT, &filter, false, requeue_edit,
							   &requeue));
}

/* archive_sent_events(older_than, max_rows, keep): there is no archive here */
Datum
sagaz_call_archive_sent_events(FunctionCallInfo fcinfo, SagazStore *store)
{
	SagazFilter filter = {.statuses = sent_word,.nstatuses = 1};

	filter.sent_before = GetCurrentTimestamp() -
		sagaz_interval_argument(fcinfo, 0, "older_than") + 1;
	filter.limit = sagaz_max_rows_argument(fcinfo, 1, 0);
	if (PG_ARGISNULL(2) || PG_GETARG_BOOL(2))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_STORAGE),
				 errmsg("storage \"%s\" has no archive", store->name),
				 errhint("Say keep => false to remove the events.")));
	PG_RETURN_INT64(sagaz_remove_matching(store, SAGAZ_EVENT, &filter));
}
