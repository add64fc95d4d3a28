/*
 * outbox.h
 *		Columns of the outbox tables, and what the files of the engine share
 *		beyond their own headers.
 *
 * The folder is the engine: which events a group is handed, by whom they are
 * held, and what became of them.  Words (doc/internals.md has them all): a
 * place or seq is an event's number in the log, a pos its transaction; an end
 * is a moment, a window lies between two; a cursor is the newest row of a
 * lane; owed is what is out or has to go out again; a receipt ends a lease.
 *
 * It calls what lies below, and knows neither storages nor workers.  What
 * changes anything runs under the locks of locks.h, with a snapshot taken
 * after them.
 */
#ifndef SAGAZ_OUTBOX_H
#define SAGAZ_OUTBOX_H

#include "datatype/timestamp.h"

enum outbox_column
{
	outbox_pos = 1,
	outbox_seq,
	outbox_created_at,
	outbox_event_id,
	outbox_lane,
	outbox_saga_id,
	outbox_aggregate_type,
	outbox_aggregate_id,
	outbox_event_type,
	outbox_payload,
	outbox_headers,
	outbox_routing_key,
	outbox_partition_key,
	outbox_available_at,
	outbox_columns = outbox_available_at
};

enum batch_column
{
	batch_batch_id = 1,
	batch_claimed_at,
	batch_last_seq,
	batch_root,
	batch_events,
	batch_group_no,
	batch_lane,
	batch_worker_id,
	batch_ends,
	batch_owed,
	batch_stream_ms,
	batch_stream_places
};

enum receipt_column
{
	receipt_batch_id = 1,
	receipt_at,
	receipt_until,
	receipt_events,
	receipt_kind,
	receipt_note,
	receipt_seqs
};

/* Kinds of receipts; the first three close a batch. */
enum receipt_kind_code
{
	RECEIPT_SENT = 1,
	RECEIPT_RELEASED,
	RECEIPT_TAKEN_OVER,
	RECEIPT_EXTENDED,
	RECEIPT_EVENTS_SENT,
	RECEIPT_EVENTS_MOVED		/* to outbox_retry */
};

enum retry_column
{
	retry_group_no = 1,
	retry_lane,
	retry_seq,
	retry_state,
	retry_retry_count,
	retry_next_attempt_at,
	retry_batch_id,
	retry_claimed_at,
	retry_sent_at,
	retry_failed_at,
	retry_event_id,
	retry_saga_id,
	retry_event_type,
	retry_worker_id,
	retry_last_error,
	retry_reason,
	retry_batch_limit,
	retry_columns = retry_batch_limit
};

enum retry_state_code
{
	RETRY_WAITING = 1,
	RETRY_HELD,
	RETRY_OUT,
	RETRY_DEAD,
	RETRY_SENT,
	RETRY_SCHEDULED
};

/* An event as it is handed out: the columns of type outbox_event. */
enum event_column
{
	event_event_id,
	event_saga_id,
	event_aggregate_type,
	event_aggregate_id,
	event_event_type,
	event_payload,
	event_headers,
	event_status,
	event_created_at,
	event_claimed_at,
	event_sent_at,
	event_retry_count,
	event_last_error,
	event_worker_id,
	event_routing_key,
	event_partition_key,
	event_batch_id,
	event_consumer_group,
	event_columns
};

/* The columns before this one are the record as other storages have it. */
#define event_record_columns event_batch_id

/* They are the first of outbox_archive, too, where columns count from 1. */
#define archive_column(event) ((event) + 1)
#define archive_archived_at (event_record_columns + 1)

/* A batch_id is a number of sagaz.batch_seq and below it the group's. */
#define SAGAZ_GROUP_BITS 10
#define SAGAZ_MAX_GROUP ((1 << SAGAZ_GROUP_BITS) - 1)
#define sagaz_batch_group(batch_id) ((int16) ((batch_id) & SAGAZ_MAX_GROUP))

#endif							/* SAGAZ_OUTBOX_H */
