/*
 * retry.c
 *		Events that left the straight path: rows of outbox_retry.
 *
 * A row that is handed out belongs to its batch's lease and is changed under
 * the batch's lock, any other under the lock of its lane.
 *
 * In an ordered group a row that is waiting, held or out blocks its saga:
 * events that come behind it are held.  When the last blocking row before
 * them is sent or dead, the first of the held ones becomes due.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "common/pg_prng.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "lib/times.h"
#include "outbox/place_number.h"
#include "outbox/retry.h"
#include "wakeup/wake.h"

/* No wait for a retry is longer. */
#define MAX_BACKOFF_MS (3600 * 1000)
/* Rows of a walk over places that are passed before it jumps ahead. */
#define STEPS_BEFORE_JUMP 4
/* Among so many that wait in a lane is one that has failed, or there is none. */
#define ENOUGH_TO_SEE 100

static void
next_retry_place(SagazRetryPlaces *places)
{
	places->seq = PG_INT64_MAX;
	if (sagaz_scan_next(places->scan))
		places->seq = DatumGetInt64(sagaz_column(places->scan->slot, retry_seq));
}

/* Begin behind the place "after".  Cheap where the group has no retry rows. */
void
sagaz_retry_places_begin(SagazRetryPlaces *places, int16 group_no,
						 int64 after, Snapshot snapshot)
{
	ScanKeyData keys[2];

	places->group_no = group_no;
	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, group_no);
	sagaz_key_int8(&keys[1], 2, BTGreaterStrategyNumber, after);
	places->scan = sagaz_scan_begin("outbox_retry", "outbox_retry_pkey",
									snapshot, keys, 2, ForwardScanDirection);
	next_retry_place(places);
}

/* Go to the first of the group's rows at a place from seq on. */
static void
jump_to_retry_place(SagazRetryPlaces *places, int64 seq)
{
	ScanKeyData keys[2];

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, places->group_no);
	sagaz_key_int8(&keys[1], 2, BTGreaterStrategyNumber, seq - 1);
	sagaz_scan_again(places->scan, keys, 2);
	next_retry_place(places);
}

/* Has the place a retry row?  To be asked with rising places. */
bool
sagaz_retry_places_have(SagazRetryPlaces *places, int64 seq)
{
	for (int step = 0; places->seq < seq; step++)
	{
		if (step < STEPS_BEFORE_JUMP)
			next_retry_place(places);
		else
			jump_to_retry_place(places, seq);
	}
	return places->seq == seq;
}

/* Close the walk's scan; the struct is the caller's. */
void
sagaz_retry_places_end(SagazRetryPlaces *places)
{
	sagaz_scan_end(places->scan);
}

/* Is any saga of the group blocked? */
bool
sagaz_retry_blocks_any(int16 group_no, Snapshot snapshot)
{
	ScanKeyData key;
	SagazScan  *scan;
	bool		found;

	sagaz_key_int2(&key, 1, BTEqualStrategyNumber, group_no);
	scan = sagaz_scan_begin("outbox_retry", "outbox_retry_saga", snapshot,
							&key, 1, ForwardScanDirection);
	found = sagaz_scan_next(scan);
	sagaz_scan_end(scan);
	return found;
}

/* The saga's blocking rows behind a place, in order. */
SagazScan *
sagaz_retry_scan_saga(int16 group_no, Datum saga_id, int64 after,
					  Snapshot snapshot)
{
	ScanKeyData keys[3];

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, group_no);
	sagaz_key_text(&keys[1], 2, saga_id);
	sagaz_key_int8(&keys[2], 3, BTGreaterStrategyNumber, after);
	return sagaz_scan_begin("outbox_retry", "outbox_retry_saga", snapshot,
							keys, 3, ForwardScanDirection);
}

/* Is the saga blocked for an event at the place "before"? */
bool
sagaz_retry_blocks(int16 group_no, Datum saga_id, int64 before,
				   Snapshot snapshot)
{
	SagazScan  *scan = sagaz_retry_scan_saga(group_no, saga_id, 0, snapshot);
	bool		blocks = sagaz_scan_next(scan) &&
		DatumGetInt64(sagaz_column(scan->slot, retry_seq)) < before;

	sagaz_scan_end(scan);
	return blocks;
}

/* Rows whose time has come, the longest due first. */
SagazScan *
sagaz_retry_scan_due(int16 group_no, int16 lane, TimestampTz now,
					 Snapshot snapshot)
{
	ScanKeyData keys[3];

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, group_no);
	sagaz_key_int2(&keys[1], 2, BTEqualStrategyNumber, lane);
	sagaz_key_time(&keys[2], 3, BTLessEqualStrategyNumber, now);
	return sagaz_scan_begin("outbox_retry", "outbox_retry_due", snapshot,
							keys, 3, ForwardScanDirection);
}

static bool
has_dead_letter(int16 group_no, Snapshot snapshot)
{
	ScanKeyData key;
	SagazScan  *scan;
	bool		found;

	sagaz_key_int2(&key, 1, BTEqualStrategyNumber, group_no);
	scan = sagaz_scan_begin("outbox_retry", "outbox_retry_dead", snapshot, &key, 1,
							ForwardScanDirection);
	found = sagaz_scan_next(scan);
	sagaz_scan_end(scan);
	return found;
}

/*
 * Has an event of the group failed, and waits or is a dead letter?  Looks at
 * some of those that are due next.
 */
bool
sagaz_retry_any_failed(int16 group_no, Snapshot snapshot)
{
	bool		found = has_dead_letter(group_no, snapshot);

	for (int16 lane = 0; lane < SAGAZ_LANES && !found; lane++)
	{
		SagazScan  *scan = sagaz_retry_scan_due(group_no, lane, PG_INT64_MAX, snapshot);

		for (int i = 0; i < ENOUGH_TO_SEE && !found && sagaz_scan_next(scan); i++)
			found = !sagaz_column_is_null(scan->slot, retry_failed_at);
		sagaz_scan_end(scan);
	}
	return found;
}

/* Rows that are out in a batch. */
SagazScan *
sagaz_retry_scan_batch(int64 batch_id, Snapshot snapshot)
{
	ScanKeyData key;

	sagaz_key_int8(&key, 1, BTEqualStrategyNumber, batch_id);
	return sagaz_scan_begin("outbox_retry", "outbox_retry_batch", snapshot,
							&key, 1, ForwardScanDirection);
}

/* A scan for the retry row of a place; it has at most one row. */
SagazScan *
sagaz_retry_row_of(int16 group_no, int64 seq, Snapshot snapshot)
{
	ScanKeyData keys[2];

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, group_no);
	sagaz_key_int8(&keys[1], 2, BTEqualStrategyNumber, seq);
	return sagaz_scan_begin("outbox_retry", "outbox_retry_pkey", snapshot,
							keys, 2, ForwardScanDirection);
}

/*
 * Start a row for an event of the log, which the caller inserts.  Values are
 * not copied: the event's row must last until then.
 */
void
sagaz_retry_row_of_event(SagazWriter *writer, int16 group_no,
						 TupleTableSlot *event, int state)
{
	sagaz_writer_row(writer);
	sagaz_writer_set(writer, retry_group_no, Int16GetDatum(group_no));
	sagaz_writer_set(writer, retry_lane, sagaz_column(event, outbox_lane));
	sagaz_writer_set(writer, retry_seq, sagaz_column(event, outbox_seq));
	sagaz_writer_set(writer, retry_state, Int16GetDatum(state));
	sagaz_writer_set(writer, retry_retry_count, Int32GetDatum(0));
	sagaz_writer_set(writer, retry_event_id,
					 sagaz_column(event, outbox_event_id));
	sagaz_writer_set(writer, retry_saga_id,
					 sagaz_column(event, outbox_saga_id));
	sagaz_writer_set(writer, retry_event_type,
					 sagaz_column(event, outbox_event_type));
}

/*
 * When the event may be tried again after so many failures: the wait doubles
 * each time and loses up to half by chance, lest all come back at once.
 */
TimestampTz
sagaz_retry_next_attempt(TimestampTz now, int retry_count)
{
	int64		wait = sagaz_backoff(sagaz_retry_backoff, MAX_BACKOFF_MS,
									 retry_count - 1);

	return now + (int64) (wait * (0.5 + 0.5 * pg_prng_double(&pg_global_prng_state)));
}

/*
 * Note a failure in the writer's row, which the caller writes: it waits for a
 * retry, and whoever waits is woken at commit, or is a dead letter.
 */
void
sagaz_retry_failed(SagazWriter *writer, TimestampTz at, const char *error, SagazFailure failure)
{
	int			count = DatumGetInt32(writer->slot->tts_values[retry_retry_count - 1]) +
		(failure == FAILURE_ASIDE ? 0 : 1);
	bool		dead = failure == FAILURE_FOR_GOOD || count > sagaz_max_retries;

	sagaz_writer_set(writer, retry_state,
					 Int16GetDatum(dead ? RETRY_DEAD : RETRY_WAITING));
	sagaz_writer_set(writer, retry_retry_count, Int32GetDatum(count));
	sagaz_writer_set(writer, retry_failed_at, TimestampTzGetDatum(at));
	if (dead)
		sagaz_writer_clear(writer, retry_next_attempt_at);
	else
	{
		sagaz_writer_set(writer, retry_next_attempt_at,
						 TimestampTzGetDatum(failure == FAILURE_LOST ? at :
											 sagaz_retry_next_attempt(at, Max(count, 1))));
		sagaz_wake_at_commit();
	}
	if (error)
		sagaz_writer_set(writer, retry_last_error, CStringGetTextDatum(error));
	else
		sagaz_writer_clear(writer, retry_last_error);
}

/* What became of the writer's row, which the caller writes: it is sent. */
void
sagaz_retry_sent(SagazWriter *writer, TimestampTz at)
{
	sagaz_writer_set(writer, retry_state, Int16GetDatum(RETRY_SENT));
	sagaz_writer_set(writer, retry_sent_at, TimestampTzGetDatum(at));
	sagaz_writer_clear(writer, retry_next_attempt_at);
}

/* It waits until then. */
static void
set_retry_waiting(SagazWriter *writer, TimestampTz at)
{
	sagaz_writer_set(writer, retry_state, Int16GetDatum(RETRY_WAITING));
	sagaz_writer_set(writer, retry_next_attempt_at, TimestampTzGetDatum(at));
}

/* A row that counts as pending again tells of no claim. */
void
sagaz_retry_forget_claim(SagazWriter *writer)
{
	if (!writer->slot->tts_isnull[retry_failed_at - 1])
		return;
	sagaz_writer_clear(writer, retry_claimed_at);
	sagaz_writer_clear(writer, retry_worker_id);
}

/* The writer's row, which the caller writes, was not tried: it waits until then. */
void
sagaz_retry_wait(SagazWriter *writer, TimestampTz at)
{
	set_retry_waiting(writer, at);
	sagaz_retry_forget_claim(writer);
}

/*
 * An operator wants the writer's row tried again at that time: it counts as
 * pending until it fails again.  anew: its failures are forgotten.
 */
void
sagaz_retry_again(SagazWriter *writer, TimestampTz at, bool anew)
{
	set_retry_waiting(writer, at);
	sagaz_writer_clear(writer, retry_failed_at);
	sagaz_retry_forget_claim(writer);
	if (anew)
		sagaz_writer_set(writer, retry_retry_count, Int32GetDatum(0));
}

/*
 * After a row of the saga was sent or given up: if nothing blocks before the
 * first held row, that one is due at that time.  The caller holds the lock of the batch or
 * lane that the row belonged to.  Makes what was written before visible;
 * looks with a snapshot of its own.
 */
void
sagaz_retry_let_go(const SagazGroup *group, Datum saga_id, TimestampTz at)
{
	Snapshot	snapshot;
	SagazScan  *scan;

	if (!group->ordered)
		return;
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = sagaz_retry_scan_saga(group->no, saga_id, 0, snapshot);
	if (sagaz_scan_next(scan) &&
		DatumGetInt16(sagaz_column(scan->slot, retry_state)) == RETRY_HELD)
	{
		SagazWriter *writer = sagaz_writer_begin("outbox_retry");

		sagaz_writer_copy(writer, scan->slot);
		set_retry_waiting(writer, at);
		sagaz_writer_update(writer, scan->slot, snapshot);
		sagaz_writer_end(writer);
		sagaz_wake_at_commit();
	}
	sagaz_scan_end(scan);
	UnregisterSnapshot(snapshot);
}

/*
 * Mark the rows that are out in a batch, whose lock is held, as sent.  The
 * snapshot was taken after it; a new one sees what is written, also of the
 * rows that this lets go.
 */
void
sagaz_retry_finish_batch(const SagazGroup *group, int64 batch_id,
						 TimestampTz at, Snapshot snapshot)
{
	SagazScan  *scan = sagaz_retry_scan_batch(batch_id, snapshot);
	SagazWriter *writer = NULL;

	while (sagaz_scan_next(scan))
	{
		if (writer == NULL)
			writer = sagaz_writer_begin("outbox_retry");
		sagaz_writer_copy(writer, scan->slot);
		sagaz_retry_sent(writer, at);
		sagaz_writer_update(writer, scan->slot, snapshot);
		sagaz_retry_let_go(group, sagaz_column(scan->slot, retry_saga_id), at);
	}
	sagaz_scan_end(scan);
	if (writer)
		sagaz_writer_end(writer);
}

/*
 * Let the rows that are out in a batch wait again; their lease is over, and
 * the batch's lock is held since before the snapshot was taken.  Visible
 * after the caller's CommandCounterIncrement().
 */
void
sagaz_retry_return_batch(int64 batch_id, TimestampTz next_attempt,
						 Snapshot snapshot)
{
	SagazScan  *scan = sagaz_retry_scan_batch(batch_id, snapshot);
	SagazWriter *writer = NULL;

	while (sagaz_scan_next(scan))
	{
		if (writer == NULL)
			writer = sagaz_writer_begin("outbox_retry");
		sagaz_writer_copy(writer, scan->slot);
		sagaz_retry_wait(writer, next_attempt);
		sagaz_writer_clear(writer, retry_batch_id);
		sagaz_writer_update(writer, scan->slot, snapshot);
	}
	sagaz_scan_end(scan);
	if (writer)
		sagaz_writer_end(writer);
}
