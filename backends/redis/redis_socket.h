/*
 * redis_socket.h
 *		A socket to a Redis server.
 */
#ifndef SAGAZ_REDIS_SOCKET_H
#define SAGAZ_REDIS_SOCKET_H

#include "backends/common/backend.h"

#include "backends/redis/redis_tls.h"

/* Where a server is. */
typedef struct RedisPeer
{
	const char *path;			/* of a socket; NULL: see host */
	const char *host;
	const char *port;
	int			timeout;		/* for connecting, in ms */
} RedisPeer;

/* Bytes that wait to be sent. */
typedef struct RedisUnsent
{
	char	   *bytes;
	size_t		size;
	size_t		from;			/* those before it are sent */
	size_t		to;
} RedisUnsent;

/* Zeroed and then redis_socket_init'ed; it may be opened again and again. */
typedef struct RedisSocket
{
	MemoryContext context;		/* of what is unsent */
	pgsocket	fd;
	bool		has_fd;			/* counted as one of our descriptors */
	bool		takes_no_more;	/* the other end, or nobody knows */
	RedisTls	tls;
	RedisUnsent unsent;
	const char *error;			/* why it is of no use any more */
} RedisSocket;

extern void redis_socket_init(RedisSocket *socket, MemoryContext context);
extern void redis_socket_open(RedisSocket *socket, const SagazStore *store,
							  const RedisPeer *place);
extern void redis_socket_close(RedisSocket *socket);
extern bool redis_socket_queue(RedisSocket *socket, const char *bytes, size_t length);
extern void redis_socket_flush(RedisSocket *socket);
extern bool redis_socket_wait(const RedisSocket *socket, TimestampTz deadline);
extern ssize_t redis_socket_read(RedisSocket *socket, char *bytes, size_t size);
extern bool redis_socket_is_quiet(RedisSocket *socket, bool answers);
SAGAZ_NORETURN extern void redis_socket_refused(const SagazStore *store, const char *why);

#endif							/* SAGAZ_REDIS_SOCKET_H */
