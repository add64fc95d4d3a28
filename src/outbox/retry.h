/*
 * retry.h
 *		Events that left the straight path: rows of outbox_retry.
 */
#ifndef SAGAZ_RETRY_H
#define SAGAZ_RETRY_H

#include "datatype/timestamp.h"

#include "outbox/group.h"
#include "outbox/outbox.h"
#include "lib/tuples.h"

/* Walks the places of a group's retry rows beside a walk over the log. */
typedef struct SagazRetryPlaces
{
	int16		group_no;
	SagazScan  *scan;
	int64		seq;			/* the present one; PG_INT64_MAX at the end */
} SagazRetryPlaces;

/* What a failure means for the event. */
typedef enum SagazFailure
{
	FAILURE_COUNTS,				/* one more of those that it may have */
	FAILURE_LOST,				/* likewise, and it has waited long enough already */
	FAILURE_FOR_GOOD,			/* a dead letter at once */
	FAILURE_ASIDE				/* it may have none: it is only put aside */
} SagazFailure;

extern void sagaz_retry_places_begin(SagazRetryPlaces *places, int16 group_no,
									 int64 after, Snapshot snapshot);
extern bool sagaz_retry_places_have(SagazRetryPlaces *places, int64 seq);
extern void sagaz_retry_places_end(SagazRetryPlaces *places);

extern bool sagaz_retry_any_failed(int16 group_no, Snapshot snapshot);
extern bool sagaz_retry_blocks_any(int16 group_no, Snapshot snapshot);
extern bool sagaz_retry_blocks(int16 group_no, Datum saga_id, int64 before,
							   Snapshot snapshot);
extern SagazScan *sagaz_retry_scan_due(int16 group_no, int16 lane,
									   TimestampTz now, Snapshot snapshot);
extern SagazScan *sagaz_retry_scan_saga(int16 group_no, Datum saga_id,
										int64 after, Snapshot snapshot);
extern SagazScan *sagaz_retry_scan_batch(int64 batch_id, Snapshot snapshot);
extern SagazScan *sagaz_retry_row_of(int16 group_no, int64 seq,
									 Snapshot snapshot);
extern void sagaz_retry_row_of_event(SagazWriter *writer, int16 group_no,
									 TupleTableSlot *event, int state);
extern void sagaz_retry_finish_batch(const SagazGroup *group, int64 batch_id,
									 TimestampTz at, Snapshot snapshot);
extern void sagaz_retry_return_batch(int64 batch_id, TimestampTz next_attempt,
									 Snapshot snapshot);
extern void sagaz_retry_sent(SagazWriter *writer, TimestampTz at);
extern TimestampTz sagaz_retry_next_attempt(TimestampTz now, int retry_count);
extern void sagaz_retry_failed(SagazWriter *writer, TimestampTz at,
							   const char *error, SagazFailure failure);
extern void sagaz_retry_wait(SagazWriter *writer, TimestampTz at);
extern void sagaz_retry_forget_claim(SagazWriter *writer);
extern void sagaz_retry_again(SagazWriter *writer, TimestampTz at, bool anew);
extern void sagaz_retry_let_go(const SagazGroup *group, Datum saga_id, TimestampTz at);

#endif							/* SAGAZ_RETRY_H */
