/*
 * redis_tls.h
 *		TLS over a socket to a Redis server.
 */
#ifndef SAGAZ_REDIS_TLS_H
#define SAGAZ_REDIS_TLS_H

#include "backends/common/backend.h"

/* All zero is none; what the calls leave here is let go by redis_tls_end. */
typedef struct RedisTls
{
	struct ssl_ctx_st *context;
	struct ssl_st *ssl;			/* NULL: no TLS */
	int			reads_after;	/* WL_SOCKET_ events that reading and */
	int			writes_after;	/* writing wait for */
	bool		has_more;		/* that was taken from the socket already */
	bool		has_failed;
	char		error[256];		/* why */
} RedisTls;

extern void redis_tls_check_mode(const char *value);
extern bool redis_tls_is_wanted(const SagazStore *store);
extern void redis_tls_check_options(const SagazStore *store);
extern bool redis_tls_read_files(RedisTls *tls, const SagazStore *store);
extern bool redis_tls_begin(RedisTls *tls, const SagazStore *store, int fd,
							const char *host);
extern int	redis_tls_shake_hands(RedisTls *tls, const char *host);
extern ssize_t redis_tls_read(RedisTls *tls, char *bytes, size_t size);
extern ssize_t redis_tls_write(RedisTls *tls, const char *bytes, size_t size);
extern bool redis_tls_is_quiet(RedisTls *tls);
extern void redis_tls_end(RedisTls *tls);

#endif							/* SAGAZ_REDIS_TLS_H */
