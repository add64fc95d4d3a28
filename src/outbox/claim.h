/*
 * claim.h
 *		One call of claim_batch().
 */
#ifndef SAGAZ_CLAIM_H
#define SAGAZ_CLAIM_H

#include "executor/tuptable.h"
#include "utils/tuplestore.h"

#include "lib/tuples.h"
#include "outbox/cursor.h"
#include "outbox/group.h"
#include "outbox/place_number.h"
#include "outbox/stream_row.h"

typedef struct SagazClaim
{
	SagazGroup	group;
	bool		group_is_known; /* to be as it is now, under a lane's lock */
	const char *worker_id;		/* this, what follows and rows: the caller's */
	int			limit;			/* events wanted */
	int64		older_than;		/* microseconds */
	TimestampTz now;

	int64		batch_id;		/* 0 until a lane has something */
	int			picked;			/* events so far, all lanes */
	int64		bytes;			/* of their payloads and headers */
	bool		among_lost;		/* retries of lost batches, and nothing else */
	bool		alone;			/* what it has goes with nothing else */

	Tuplestorestate *rows;
	TupleDesc	row_type;
	Datum		worker_datum;
	Datum		group_datum;
	Datum		status_claimed;

	uint64		next_xid;		/* about when the claim began */
	TransactionId *xids;		/* of the events' transactions */
	int			nxids;
	int			xids_size;

	bool		for_stream;		/* the caller's: give each row ids in a stream */
	int64		stream_after;	/* and have them above this ms */
	int64		stream_ms;		/* of the next row */
	SagazStreamPlaces places;	/* of the present row */
	int			nstream_rows;	/* rows so far, and where their entries are */
	struct
	{
		int64		ms;
		int			count;
	}			stream_rows[SAGAZ_LANES];

	SagazWriter *batch_writer;	/* made when the first lane has a row */
	MemoryContext context;		/* of the whole call */
	MemoryContext lane_context; /* reset after each lane */
} SagazClaim;

extern void sagaz_claim(SagazClaim *claim, const char *consumer_group);

/* claim_rows.c */
extern int64 sagaz_claim_batch_id(SagazClaim *claim);
extern bool sagaz_claim_is_full(const SagazClaim *claim);
extern void sagaz_claim_emit(SagazClaim *claim, TupleTableSlot *event,
							 TupleTableSlot *retry,
							 const SagazCluster *cluster);

/* lane_claim.c */
extern void sagaz_lane_claim(SagazClaim *claim, int16 lane);

#endif							/* SAGAZ_CLAIM_H */
