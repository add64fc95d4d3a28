/*
 * stream.h
 *		Deliveries to the stream of a broker.
 */
#ifndef SAGAZ_STREAM_H
#define SAGAZ_STREAM_H

#include "claim.h"
#include "delivery.h"
#include "storage.h"

/* What the one writer of a stream knows about it, for an ordered group. */
typedef struct SagazStream
{
	bool		settled;		/* what follows is known, and no earlier batch is open */
	SagazStreamId end;
	int64		last_ms;		/* highest first part of an id that was ever given */
} SagazStream;

extern bool sagaz_stream_is_exact(const SagazDelivery *delivery);
extern void sagaz_stream_settle(SagazStream *stream,
								const SagazDelivery *delivery,
								const char *worker_id);
extern int64 sagaz_stream_next_ms(const SagazStream *stream);
extern void sagaz_stream_append(SagazStream *stream, SagazStore *store,
								const SagazClaim *claim, SagazRecord *records);

#endif							/* SAGAZ_STREAM_H */
