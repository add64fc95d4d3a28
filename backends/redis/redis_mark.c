/*
 * redis_mark.c
 *		The key by which the keyspace of a storage is known again.
 *
 * A server that was restarted without its data, emptied or restored from
 * elsewhere answers at the same address and under the same prefixes; a random
 * value in a key of ours tells it from the one that was there before.  It is
 * made by the first transfer from there, where the user may write and the
 * server takes writes; a copy of the data, such as a replica has, bears it too.
 */
#include "backends/redis/redis.h"

#include "utils/fmgrprotos.h"
#include "utils/uuid.h"

#include "lib/uuid.h"

static char *
redis_mark_make(void)
{
	pg_uuid_t	mark;

	sagaz_uuid_make(&mark);
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&mark)));
}

/*
 * What the key holds; NULL if there is none.  With make it is made where that
 * is allowed, and one that may not be read counts as none: there, no mark is
 * what the keyspace is known by.  Without, not being let to read it is an error.
 */
char *
redis_mark(RedisStore *store, bool make)
{
	char	   *key = psprintf("%s:sagaz:mark", store->outbox_prefix);
	RedisCommand *get = redis_command("GET");
	RedisReply *reply;

	if (make)
	{
		RedisCommand *set = redis_command("SET");

		redis_add(set, key);
		redis_add(set, redis_mark_make());
		redis_add(set, "NX");
		set->spares = REDIS_SPARE_ALL;
		redis_queue_ahead(store, set);
		get->spares = "NOPERM";
	}
	redis_add(get, key);
	reply = redis_call(store, get);
	if (reply->type == REDIS_NIL || reply->type == REDIS_ERROR)
		return NULL;
	redis_expect(store, reply, REDIS_STRING);
	return redis_words_of(reply);
}
