/*
 * postgres_libpq.h
 *		What the files that know libpq share.
 */
#ifndef SAGAZ_POSTGRES_LIBPQ_H
#define SAGAZ_POSTGRES_LIBPQ_H

#include "backends/postgres/postgres_store.h"

#include <libpq-fe.h>

struct PostgresConnection
{
	PostgresStore *store;
	PGconn	   *conn;
	PGresult   *result;			/* being copied */
	PQconninfoOption *known;	/* being looked through */
	bool		has_fd;			/* counted as one of our descriptors */
	int			queued;			/* statements whose results are to be read */
	bool		rolling_back;	/* nobody has read how a ROLLBACK went */
	uint64		requested;		/* whose results are still to come, 0: none */
	size_t		received;		/* bytes of the present exchange, about */
	int			statement_timeout;	/* that the server knows */
	int			server_version;
	bool		met_limit;		/* on its time, as far as can be told */
	MemoryContextCallback close;
};

/* postgres_connection.c */
extern void postgres_disconnect(PostgresConnection *connection);
extern char *postgres_peer_text(const char *text);

/* postgres_session.c */
extern void postgres_pin_settings(PostgresStore *store);
extern bool postgres_pin_first(PostgresStore *store);
extern char *postgres_unlimited_options(const char *options, int server_version);

#endif							/* SAGAZ_POSTGRES_LIBPQ_H */
