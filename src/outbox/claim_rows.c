/*
 * claim_rows.c
 *		The rows that a claim returns, and whose commits they need durable.
 */
#include "lib/sagaz.h"

#include "access/detoast.h"
#include "utils/timestamp.h"

#include "outbox/batch.h"
#include "outbox/claim.h"
#include "outbox/event.h"
#include "outbox/outbox.h"

/* Transactions further back were made durable long ago. */
#define CLOG_REACH (UINT64CONST(1) << 30)

#define MAX_BATCH_BYTES (INT64CONST(64) * 1024 * 1024)

/*
 * The batch id of this claim, drawn when the first lane has something; that
 * lane is locked, so the id is above all that its rows have.
 */
int64
sagaz_claim_batch_id(SagazClaim *claim)
{
	if (claim->batch_id == 0)
		claim->batch_id = sagaz_cursor_next_batch_id(claim->group.no);
	return claim->batch_id;
}

/*
 * Has the claim all that it may have?  Its events must fit into one array, and
 * into the worker's memory, so their bytes are limited as well as their number;
 * the last event may exceed the limit.  What was in a lost batch goes alone.
 */
bool
sagaz_claim_is_full(const SagazClaim *claim)
{
	return claim->picked >= claim->limit || claim->bytes >= MAX_BATCH_BYTES ||
		claim->alone;
}

/* Remember the transaction for the flush; neighbours often share it. */
static void
note_claimed_transaction(SagazClaim *claim, uint64 pos, int64 seq,
						 const SagazCluster *cluster)
{
	if (pos < SAGAZ_FIRST_POS || pos + CLOG_REACH < claim->next_xid ||
		sagaz_cluster_epoch(cluster, seq) != cluster->epoch)
		return;
	if (claim->nxids > 0 && claim->xids[claim->nxids - 1] == (TransactionId) pos)
		return;
	if (claim->nxids >= claim->xids_size)
	{
		claim->xids_size *= 2;
		claim->xids = repalloc(claim->xids,
							   claim->xids_size * sizeof(TransactionId));
	}
	claim->xids[claim->nxids++] = (TransactionId) pos;
}

/*
 * Return one event of the log.  retry is its row in outbox_retry, NULL for an
 * event that is handed out off the log.  All is copied, so both rows may go.
 */
void
sagaz_claim_emit(SagazClaim *claim, TupleTableSlot *event,
				 TupleTableSlot *retry, const SagazCluster *cluster)
{
	Datum		values[event_columns];
	bool		nulls[event_columns] = {false};

	sagaz_event_row_of_log(event, values, nulls);
	values[event_status] = claim->status_claimed;
	values[event_claimed_at] = TimestampTzGetDatum(claim->now);
	values[event_worker_id] = claim->worker_datum;
	nulls[event_status] = nulls[event_claimed_at] = nulls[event_worker_id] = false;
	if (retry)
	{
		values[event_retry_count] = sagaz_column(retry, retry_retry_count);
		values[event_last_error] = sagaz_column(retry, retry_last_error);
		nulls[event_last_error] = sagaz_column_is_null(retry, retry_last_error);
	}
	values[event_batch_id] = Int64GetDatum(sagaz_claim_batch_id(claim));
	values[event_consumer_group] = claim->group_datum;
	tuplestore_putvalues(claim->rows, claim->row_type, values, nulls);

	note_claimed_transaction(claim, DatumGetUInt64(sagaz_column(event, outbox_pos)),
							 DatumGetInt64(sagaz_column(event, outbox_seq)), cluster);
	if (claim->for_stream)
		sagaz_stream_places_add(&claim->places,
								DatumGetInt64(sagaz_column(event, outbox_seq)));
	claim->picked++;
	claim->bytes += toast_raw_datum_size(sagaz_column(event, outbox_payload)) +
		toast_raw_datum_size(sagaz_column(event, outbox_headers));
}
