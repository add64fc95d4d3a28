/*
 * redis_scripts.h
 *		The scripts that run on the Redis server, in redis_*.lua.
 */
#ifndef SAGAZ_REDIS_SCRIPTS_H
#define SAGAZ_REDIS_SCRIPTS_H

#include "backends/redis/redis.h"

extern const RedisScript redis_write_script;
extern const RedisScript redis_claim_script;
extern const RedisScript redis_finish_script;
extern const RedisScript redis_append_script;
extern const RedisScript redis_look_script;

#endif							/* SAGAZ_REDIS_SCRIPTS_H */
