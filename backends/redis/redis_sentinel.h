/*
 * redis_sentinel.h
 *		What sentinels are asked, and what they may answer.
 */
#ifndef SAGAZ_REDIS_SENTINEL_H
#define SAGAZ_REDIS_SENTINEL_H

#include "backends/redis/redis.h"
#include "backends/redis/redis_socket.h"

extern void redis_sentinel_check_list(const char *value);
extern bool redis_sentinel_knows_primary(const SagazStore *store);
extern List *redis_sentinel_places(const SagazStore *store);
extern RedisCommand *redis_sentinel_question(const SagazStore *store);
extern RedisPeer *redis_sentinel_answer(RedisStore *store, const RedisReply *reply);

#endif							/* SAGAZ_REDIS_SENTINEL_H */
