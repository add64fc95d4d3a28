/*
 * redis_connection.h
 *		Opening the connection to a Redis server.
 */
#ifndef SAGAZ_REDIS_CONNECTION_H
#define SAGAZ_REDIS_CONNECTION_H

#include "backends/redis/redis.h"
#include "backends/redis/redis_socket.h"

extern void redis_connection_make(RedisStore *store);
extern void redis_connection_open(RedisStore *store, const RedisPeer *place);
extern void redis_connection_greeted(RedisStore *store);
extern bool redis_connection_is_usable(RedisStore *store);

#endif							/* SAGAZ_REDIS_CONNECTION_H */
