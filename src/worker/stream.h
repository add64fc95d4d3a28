/*
 * stream.h
 *		Delivering an ordered group to a stream, each event exactly once.
 */
#ifndef SAGAZ_STREAM_H
#define SAGAZ_STREAM_H

#include "worker/handler.h"

/* What the worker knows of its stream. */
typedef struct SagazStream
{
	const char *worker_id;
	bool		looked;			/* all that was claimed earlier is decided, as of
								 * the last look */
	bool		sure;			/* and what is claimed now has no earlier try */
	SagazStreamId end;			/* the stream's, unless others write to it */
	int64		passed_ms;		/* rows up to here were looked at for loss */
	TimestampTz looked_at;
} SagazStream;

extern bool sagaz_stream_is_exact(const SagazDelivery *delivery);
extern void sagaz_stream_prepare(const SagazStream *stream, SagazClaim *claim);
extern bool sagaz_stream_deliver(SagazStream *stream, SagazBatch *batch);
extern int	sagaz_stream_look(SagazStream *stream,
							  const SagazDelivery *delivery);

#endif							/* SAGAZ_STREAM_H */
