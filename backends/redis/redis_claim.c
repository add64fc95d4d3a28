/*
 * redis_claim.c
 *		Claiming events from a Redis outbox, and finishing batches: one script,
 *		so one round trip, for each.
 */
#include "backends/redis/redis.h"

#include "utils/timestamp.h"

#include "backends/record/record.h"
#include "backends/redis/redis_scripts.h"
#include "lib/times.h"
#include "outbox/batch.h"

static char *
claim_time_text(TimestampTz time)
{
	char		text[SAGAZ_TIME_SIZE];

	(void) sagaz_format_time(time, text);
	return pstrdup(text);
}

/* Without its offset, as the scripts compare it. */
char *
redis_claim_limit_text(TimestampTz time)
{
	char	   *text = claim_time_text(time);

	text[strlen(text) - strlen("+00:00")] = '\0';
	return text;
}

static RedisCommand *
begin_claim_arguments(RedisStore *store, const char *worker_id)
{
	RedisCommand *arguments = redis_command(store->outbox_prefix);

	redis_add(arguments, store->group);
	redis_add_text(arguments, worker_id);
	return arguments;
}

/* What the script says of an event: its id, and its hash as it was. */
static const RedisReply *
claimed_hash(RedisStore *store, const RedisReply *pair, RedisId *id)
{
	const RedisReply *hash;

	redis_expect(store, pair, REDIS_ARRAY);
	if (pair->count != 2)
		redis_refuse_reply(store);
	redis_expect(store, pair->elements[0], REDIS_STRING);
	id->bytes = pair->elements[0]->str;
	id->length = pair->elements[0]->length;
	hash = pair->elements[1];
	redis_expect(store, hash, REDIS_ARRAY);
	for (int i = 0; i < hash->count; i++)
		redis_expect(store, hash->elements[i], REDIS_STRING);
	return hash;
}

/*
 * The script has taken what a record cannot hold.  Leave it as it was, but
 * for its place in the queue: it comes up again when its lease is over.
 */
static void
queue_claim_give_back(RedisStore *store, const RedisId *id, const RedisReply *hash,
					  int64 batch_id)
{
	static const char *const taken[] = {"status", "claimed_at", "worker_id"};
	char	   *key = psprintf("%s:meta:%s", store->outbox_prefix, id->bytes);

	for (int i = 0; i < (int) lengthof(taken); i++)
	{
		const char *was = NULL;

		for (int j = 0; j + 1 < hash->count; j += 2)
			if (strcmp(hash->elements[j]->str, taken[i]) == 0)
				was = hash->elements[j + 1]->str;
		redis_queue_words(store, was ? "HSET" : "HDEL", key, taken[i], was, NULL);
	}
	redis_queue_words(store, "HDEL", key, "sagaz:batch", NULL);
	redis_queue_words(store, "SREM", psprintf("%s:sagaz:batch:" INT64_FORMAT,
											  store->outbox_prefix, batch_id),
					  id->bytes, NULL);
	redis_queue_words(store, "HDEL", psprintf("%s:processing", store->outbox_prefix),
					  id->bytes, NULL);
}

/* Add the event that the script has claimed; false if it is not fit. */
static bool
add_claimed(List **claimed, const RedisId *id, const RedisReply *hash,
			const SagazClaimOrder *order)
{
	RedisFound *found = palloc0(sizeof(RedisFound));

	if (redis_event_read(id, hash, found))
		sagaz_record_check(&found->record);
	if (found->record.problem)
		return false;
	sagaz_claim_mark_claimed(&found->record.event, order);
	*claimed = lappend(*claimed, &found->record);
	return true;
}

/*
 * What no record can be made of, though the script has claimed it, is given
 * back in a second round trip.
 */
List *
redis_claim(SagazStore *base, const SagazClaimOrder *order)
{
	RedisStore *store = (RedisStore *) base;
	RedisCommand *arguments = begin_claim_arguments(store, order->worker_id);
	RedisReply *reply;
	List	   *claimed = NIL;
	bool		unfit = false;
	int			ignored;

	redis_add_int(arguments, order->limit);
	redis_add_int(arguments, order->now);
	redis_add(arguments, claim_time_text(order->now));
	redis_add_int(arguments, order->batch_id);
	redis_add_int(arguments, order->lease_us / 1000);
	redis_add(arguments, order->created_before < order->now ?
			  redis_claim_limit_text(order->created_before) : "");
	redis_add(arguments, redis_claim_limit_text(order->now - order->lease_us));
	redis_add(arguments, redis_claim_limit_text(order->now + SAGAZ_CLOCK_SLACK));
	redis_ready(store);
	reply = redis_run_script(store, &redis_claim_script, arguments);
	redis_expect(store, reply, REDIS_ARRAY);
	for (int i = 0; i < reply->count; i++)
	{
		RedisId		id;
		const RedisReply *hash = claimed_hash(store, reply->elements[i], &id);

		if (add_claimed(&claimed, &id, hash, order))
			continue;
		queue_claim_give_back(store, &id, hash, order->batch_id);
		unfit = true;
	}
	if (unfit)
		(void) redis_exchange(store, &ignored);
	return claimed;
}

/*
 * One script, so all or nothing; a batch that another worker has is an error.
 */
int
redis_finish(SagazStore *base, int64 batch_id, const char *worker_id,
			 TimestampTz now)
{
	RedisStore *store = (RedisStore *) base;
	RedisCommand *arguments = begin_claim_arguments(store, worker_id);
	RedisReply *reply;

	redis_add_int(arguments, batch_id);
	redis_add(arguments, claim_time_text(now));
	redis_add_int(arguments, store->event_ttl);
	redis_ready(store);
	reply = redis_run_script(store, &redis_finish_script, arguments);
	redis_expect(store, reply, REDIS_INTEGER);
	if (reply->integer < 0)
		sagaz_batch_lost(batch_id, "It was claimed by another worker.");
	return (int) reply->integer;
}
