/*
 * transfer_copy.c
 *		Batches of records from the source of a transfer to its target.
 *
 * A batch is read, then written, each in steps of their own, so that it can
 * be written again, or in parts, when that fails.  While the target's server
 * works on one, the next is read.  A batch ends early where its records are
 * large, so that memory stays bounded.
 */
#include "lib/sagaz.h"

#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "backends/record/record.h"
#include "transfer/transfer.h"

#define BATCH_BYTES (16 * 1024 * 1024)

/* ---------------------------------------------------------------------- */
/* Reading */

/* Read the kind from its beginning, or from the position that is noted. */
static void
restart_copy(SagazTransfer *transfer)
{
	if (transfer->reader)
		MemoryContextDelete(transfer->reader->context);
	transfer->reader = NULL;
	transfer->ahead.is_read = transfer->ahead.failed = false;
	transfer->ahead.position = transfer->position;
	if (transfer->position)
		return;
	transfer->seen = 0;
	transfer->seen_keys = 0;
	transfer->counts.processed =
		transfer->kind == SAGAZ_EVENT && sagaz_transfer_has(transfer, SAGAZ_SAGA) ?
		transfer->totals[SAGAZ_SAGA] : 0;
}

static void
begin_copy_reader(SagazTransfer *transfer, SagazStore *store)
{
	SagazFilter filter = {.order = SAGAZ_FOR_COPY};

	sagaz_end_check_origin(transfer);
	filter.chunk = transfer->batch_size;
	filter.position = transfer->ahead.position;
	transfer->read_store = store;
	MemoryContextSwitchTo(transfer->context);
	transfer->reader = sagaz_store_read_begin(store, transfer->kind, &filter);
	MemoryContextSwitchTo(transfer->ahead.context);
}

static void
read_records_to_copy(SagazTransfer *transfer)
{
	SagazReadAhead *ahead = &transfer->ahead;
	Size		before;

	ahead->records = palloc(transfer->batch_size * sizeof(SagazRecord));
	before = MemoryContextMemAllocated(ahead->context, false);
	do
	{
		if (!sagaz_store_read_next(transfer->reader, &ahead->records[ahead->nread]))
		{
			ahead->at_end = true;
			break;
		}
		ahead->nread++;
	} while (ahead->nread < transfer->batch_size &&
			 MemoryContextMemAllocated(ahead->context, false) - before < BATCH_BYTES);
}

static char *
copy_to(MemoryContext context, const char *text)
{
	return text ? MemoryContextStrdup(context, text) : NULL;
}

/* Note where the batch ends; a reader of the native tables, its transaction. */
static void
note_end_of_copy(SagazTransfer *transfer)
{
	SagazReadAhead *ahead = &transfer->ahead;
	char	   *position = ahead->nread == 0 ? NULL :
		transfer->reader->store->backend->read_position(transfer->reader);

	if (ahead->nread > 0)
		ahead->last_key =
			copy_to(transfer->context,
					sagaz_record_key(&ahead->records[ahead->nread - 1]));
	ahead->position = copy_to(transfer->context, position);
	if (transfer->source.is_native || ahead->at_end)
	{
		sagaz_store_read_end(transfer->reader);
		transfer->reader = NULL;
	}
}

/* Read the next records. */
static void
read_ahead_of_copy(SagazTransfer *transfer)
{
	SagazReadAhead *ahead = &transfer->ahead;
	MemoryContext outer = MemoryContextSwitchTo(ahead->context);
	SagazStore *store;

	MemoryContextReset(ahead->context);
	ahead->nread = 0;
	ahead->at_end = false;
	store = sagaz_end_open(&transfer->source, transfer->kind);
	if (transfer->source.is_native)
		PushActiveSnapshot(GetTransactionSnapshot());
	else if (transfer->reader && transfer->read_store != store)
		restart_copy(transfer);
	if (transfer->reader == NULL)
		begin_copy_reader(transfer, store);
	read_records_to_copy(transfer);
	note_end_of_copy(transfer);
	if (transfer->source.is_native)
		PopActiveSnapshot();
	ahead->is_read = true;
	MemoryContextSwitchTo(outer);
}

/*
 * Read them while the target's server works.  If that fails, it is tried
 * again in its turn, when the present batch has been dealt with.
 */
static void
read_while_copying(void *arg)
{
	SagazTransfer *transfer = arg;

	if (transfer->ahead.is_read || transfer->ahead.failed)
		return;
	transfer->ahead.failed = true;
	if (transfer->reader &&
		transfer->read_store != sagaz_end_open(&transfer->source, transfer->kind))
		return;
	read_ahead_of_copy(transfer);
	transfer->ahead.failed = false;
}

/* What was read is what is to be written now. */
static void
take_batch_to_copy(SagazTransfer *transfer)
{
	SagazReadAhead *ahead = &transfer->ahead;
	MemoryContext free = transfer->batch;

	transfer->batch = ahead->context;
	transfer->records = ahead->records;
	transfer->nrecords = transfer->nread = ahead->nread;
	transfer->at_end = ahead->at_end;
	transfer->next_position = ahead->position;
	if (ahead->nread > 0)
		transfer->last_key = ahead->last_key;
	transfer->refusals = NIL;
	MemoryContextReset(free);
	ahead->context = free;
	ahead->is_read = false;
}

/*
 * Have the next batch; where reading fails it begins anew from where we are
 * sure of, whatever has gone wrong.
 */
static void
next_batch_to_copy(SagazTransfer *transfer)
{
	ErrorData  *error;

	if (transfer->ahead.failed)
		restart_copy(transfer);
	while (!transfer->ahead.is_read &&
		   (error = sagaz_transfer_attempt(transfer, read_ahead_of_copy)) != NULL)
	{
		restart_copy(transfer);
		sagaz_transfer_wait(transfer, error);
	}
	transfer->attempts = 0;
	take_batch_to_copy(transfer);
}

/* ---------------------------------------------------------------------- */
/* Writing */

/* The record stays where it is; what is done about it is the policy's. */
static void
refuse_copied_record(SagazTransfer *transfer, const SagazRecord *record, char *message,
				  int sqlerrcode)
{
	MemoryContext outer = MemoryContextSwitchTo(transfer->batch);
	SagazRefusal *refusal = palloc(sizeof(SagazRefusal));

	refusal->record = memcpy(palloc(sizeof(SagazRecord)), record, sizeof(SagazRecord));
	refusal->message = pstrdup(message);
	refusal->sqlerrcode = sqlerrcode;
	transfer->refusals = lappend(transfer->refusals, refusal);
	MemoryContextSwitchTo(outer);
}

/* Sort out what cannot be read or written, before anything is. */
static void
sort_out_before_copy(SagazTransfer *transfer)
{
	SagazStore *store = sagaz_end_open(&transfer->target, transfer->kind);
	MemoryContext outer = MemoryContextSwitchTo(transfer->batch);
	int			kept = 0;

	transfer->refusals = NIL;
	for (int i = 0; i < transfer->nrecords; i++)
	{
		SagazRecord *record = &transfer->records[i];
		char	   *why = record->problem ? record->problem :
			store->backend->unfit(store, record);

		if (why)
		{
			refuse_copied_record(transfer, record, why, ERRCODE_SAGAZ_SERIALIZATION);
			continue;
		}
		/* the batch and lease were the source's */
		if (record->kind == SAGAZ_EVENT)
			record->event.batch_id = 0;
		transfer->records[kept++] = *record;
	}
	transfer->nrecords = kept;
	MemoryContextSwitchTo(outer);
}

static void
merge_copied_range(SagazTransfer *transfer)
{
	SagazStore *store = sagaz_end_open(&transfer->target, transfer->kind);
	MemoryContext outer = MemoryContextSwitchTo(transfer->part);
	SagazMerged merged = {0};

	/* an error may have left something */
	MemoryContextReset(transfer->part);
	store->backend->merge(store, transfer->records + transfer->from,
						  transfer->to - transfer->from, transfer->is_migration,
						  &merged);
	transfer->counts.transferred += merged.added + merged.changed;
	transfer->counts.unchanged += merged.unchanged;
	transfer->counts.kept += merged.kept;
	MemoryContextSwitchTo(outer);
	MemoryContextReset(transfer->part);
}

static bool
copy_must_stop(const SagazTransfer *transfer)
{
	return transfer->refusals != NIL && transfer->on_error != ON_ERROR_SKIP;
}

/*
 * Write a range of the batch; halve it where one of them is refused.  One that
 * somebody else has put meanwhile is there when it is tried again.
 */
static void
copy_range(SagazTransfer *transfer, int from, int to)
{
	ErrorData  *error = NULL;
	int			middle = from + (to - from) / 2;

	while (from < to && !copy_must_stop(transfer))
	{
		transfer->from = from;
		transfer->to = to;
		if (to - from == transfer->nrecords && transfer->ahead.is_wanted)
			sagaz_do_while_waiting(read_while_copying, transfer);
		error = sagaz_transfer_attempt(transfer, merge_copied_range);
		sagaz_do_while_waiting(NULL, NULL);
		if (error && error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION && to - from == 1)
			error = sagaz_transfer_attempt(transfer, merge_copied_range);
		if (error == NULL || sagaz_transfer_is_about_record(error))
			break;
		sagaz_transfer_wait(transfer, error);
	}
	transfer->attempts = 0;
	if (error == NULL || from == to || copy_must_stop(transfer))
		return;
	if (to - from == 1)
		refuse_copied_record(transfer, &transfer->records[from], sagaz_error_text(error),
						  error->sqlerrcode);
	else
	{
		copy_range(transfer, from, middle);
		copy_range(transfer, middle, to);
	}
}

/*
 * Records that were refused earlier, in another pass or before a resume, have
 * been tried again.
 */
static void
forget_copied_earlier(SagazTransfer *transfer)
{
	SagazCounts *counts = &transfer->counts;
	const char **keys = palloc((transfer->nrecords + list_length(transfer->refusals) + 1) *
							   sizeof(char *));
	ListCell   *cell;
	int			nkeys = 0;
	int64		forgotten;

	if (counts->failed + counts->skipped == 0)
		return;
	if (!copy_must_stop(transfer))
		for (int i = 0; i < transfer->nrecords; i++)
			keys[nkeys++] = sagaz_record_key(&transfer->records[i]);
	foreach(cell, transfer->refusals)
	{
		const char *key = sagaz_record_key(((SagazRefusal *) lfirst(cell))->record);

		keys[nkeys++] = key ? key : "";
	}
	forgotten = sagaz_transfer_forget_refused(transfer, transfer->kind, keys, nkeys);
	if (transfer->on_error == ON_ERROR_SKIP)
		counts->skipped -= Min(forgotten, counts->skipped);
	else
		counts->failed -= Min(forgotten, counts->failed);
}

/* Write down what became of the batch. */
static void
note_copied_batch(SagazTransfer *transfer)
{
	MemoryContext outer = MemoryContextSwitchTo(transfer->batch);
	ListCell   *cell;

	forget_copied_earlier(transfer);
	foreach(cell, transfer->refusals)
	{
		SagazRefusal *refusal = lfirst(cell);

		if (transfer->on_error == ON_ERROR_SKIP)
			transfer->counts.skipped++;
		else
			transfer->counts.failed++;
		sagaz_transfer_note_refused(transfer, refusal->record, refusal->message,
									refusal->sqlerrcode);
	}
	if (transfer->is_migration && !copy_must_stop(transfer))
		sagaz_copied_note(transfer);
	transfer->counts.processed += transfer->nread;
	if (transfer->next_position && !copy_must_stop(transfer))
		transfer->position = transfer->next_position;
	sagaz_transfer_save(transfer);
	MemoryContextSwitchTo(outer);
}

static void
stop_copy_at(SagazTransfer *transfer, const SagazRefusal *refusal)
{
	const char *key = sagaz_record_key(refusal->record);
	ErrorData  *error = MemoryContextAllocZero(transfer->context, sizeof(ErrorData));
	MemoryContext outer = MemoryContextSwitchTo(transfer->context);

	error->elevel = ERROR;
	error->sqlerrcode = ERRCODE_SAGAZ_TRANSFER;
	error->message = psprintf("record \"%s\" is refused", key ? key : "");
	error->detail = psprintf("%s.", refusal->message);
	error->hint = "It is kept in sagaz.transfer_error; with on_error 'skip' the others are moved.";
	error->assoc_context = transfer->context;
	MemoryContextSwitchTo(outer);
	sagaz_transfer_give_up(transfer, error);
}

/*
 * Write the batch that was read, and commit.  Ends the transfer where the
 * policy is to stop at a refused record.
 */
void
sagaz_copy_batch(SagazTransfer *transfer)
{
	ErrorData  *error;

	while ((error = sagaz_transfer_attempt(transfer, sort_out_before_copy)) != NULL)
		sagaz_transfer_wait(transfer, error);
	if (!copy_must_stop(transfer))
	{
		if (transfer->is_migration &&
			(error = sagaz_transfer_attempt(transfer, sagaz_copied_choose)) != NULL)
			sagaz_transfer_give_up(transfer, error);
		copy_range(transfer, 0, transfer->nrecords);
	}
	sagaz_transfer_insist(transfer, note_copied_batch);
	if (copy_must_stop(transfer))
		stop_copy_at(transfer, linitial(transfer->refusals));
}

/* Move all records of a kind. */
void
sagaz_copy_kind(SagazTransfer *transfer, SagazKind kind)
{
	if (transfer->kind != kind)
		transfer->position = NULL;
	transfer->kind = kind;
	restart_copy(transfer);
	do
	{
		next_batch_to_copy(transfer);
		transfer->ahead.is_wanted = !transfer->at_end;
		sagaz_copy_batch(transfer);
	} while (!transfer->at_end);
	transfer->position = NULL;
	transfer->done[kind] = true;
}
