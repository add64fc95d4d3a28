/*
 * stream_row.h
 *		Rows of outbox_batch that say where in a stream their events lie.
 */
#ifndef SAGAZ_STREAM_ROW_H
#define SAGAZ_STREAM_ROW_H

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "utils/snapshot.h"

#include "lib/tuples.h"

/* The places of a row's events, in the order of their entries. */
typedef struct SagazStreamPlaces
{
	int			count;
	int64		last;
	StringInfoData bytes;
} SagazStreamPlaces;

/* Entry i, counted from 0, has the id ms-i and the event at seqs[i]. */
typedef struct SagazStreamRow
{
	int64		ms;
	int64		batch_id;
	TimestampTz claimed_at;
	int16		lane;
	int			closed_by;		/* kind of the batch's closing receipt, 0: open */
	int			count;
	int64	   *seqs;
} SagazStreamRow;

extern void sagaz_stream_places_init(SagazStreamPlaces *places);
extern void sagaz_stream_places_reset(SagazStreamPlaces *places);
extern void sagaz_stream_places_add(SagazStreamPlaces *places, int64 seq);
extern bytea *sagaz_stream_places_encode(SagazStreamPlaces *places);

extern int64 sagaz_stream_next_ms(int16 group_no, int64 after);
extern SagazScan *sagaz_stream_scan_from(int16 group_no, int64 ms,
										 Snapshot snapshot);
extern SagazScan *sagaz_stream_scan_back(int16 group_no, int64 ms,
										 Snapshot snapshot);
extern bool sagaz_stream_scan_next(SagazScan *scan, const char *worker_id,
								   Snapshot snapshot, SagazStreamRow *row);

#endif							/* SAGAZ_STREAM_ROW_H */
