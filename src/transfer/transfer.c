/*
 * transfer.c
 *		What a transfer does from the look at its two sides to the end, and the
 *		new attempt at records that were refused.
 */
#include "lib/sagaz.h"

#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "backends/record/record.h"
#include "transfer/transfer.h"

/* See that both ends are there, and that they are two. */
void
sagaz_transfer_look(SagazTransfer *transfer)
{
	MemoryContext outer = MemoryContextSwitchTo(transfer->context);

	transfer->batch = AllocSetContextCreate(transfer->context, "sagaz batch",
											SAGAZ_BATCH_SIZES);
	transfer->ahead.context = AllocSetContextCreate(transfer->context, "sagaz read",
													SAGAZ_BATCH_SIZES);
	transfer->part = AllocSetContextCreate(transfer->context, "sagaz merge",
										   SAGAZ_BATCH_SIZES);
	transfer->began_at = transfer->reported_at = GetCurrentTimestamp();
	if (sagaz_ends_are_same(transfer))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("source and target are the same storage"),
				 errhint("Name two storages.")));
	for (SagazKind kind = SAGAZ_SAGA; kind <= SAGAZ_EVENT; kind++)
	{
		if (!sagaz_transfer_has(transfer, kind))
			continue;
		sagaz_end_look(&transfer->source, kind);
		sagaz_end_look(&transfer->target, kind);
	}
	MemoryContextSwitchTo(outer);
}

/* How many there are to be moved; not many fewer than before. */
static void
count_transfer_source(SagazTransfer *transfer)
{
	SagazFilter filter = {0};
	int64		before = transfer->counts.total;

	sagaz_end_check_origin(transfer);
	transfer->counts.total = 0;
	if (transfer->source.is_native)
		PushActiveSnapshot(GetTransactionSnapshot());
	for (SagazKind kind = SAGAZ_SAGA; kind <= SAGAZ_EVENT; kind++)
	{
		if (!sagaz_transfer_has(transfer, kind))
			continue;
		transfer->totals[kind] =
			sagaz_count(sagaz_end_open(&transfer->source, kind), kind, &filter);
		transfer->counts.total += transfer->totals[kind];
	}
	if (transfer->source.is_native)
		PopActiveSnapshot();
	sagaz_end_check_held(transfer, before, transfer->counts.total);
	sagaz_transfer_save(transfer);
}

static void
close_completed_transfer(SagazTransfer *transfer)
{
	sagaz_transfer_close(transfer, "completed", NULL);
}

static void
refuse_transfer_difference(SagazTransfer *transfer)
{
	ErrorData  *error = MemoryContextAllocZero(transfer->context, sizeof(ErrorData));
	SagazKind	kind = transfer->differing[SAGAZ_SAGA] ? SAGAZ_SAGA : SAGAZ_EVENT;

	error->elevel = ERROR;
	error->sqlerrcode = ERRCODE_SAGAZ_TRANSFER;
	error->message = "source and target differ afterwards";
	error->detail = MemoryContextStrdup(transfer->context,
										psprintf("Among them is %s \"%s\"; see verification in sagaz.transfers.",
												 sagaz_type_words[kind],
												 (char *) linitial(transfer->differing[kind])));
	error->hint = "If somebody writes to the source meanwhile, use migrate().";
	error->assoc_context = transfer->context;
	/* who resumes it wants the difference to go */
	transfer->done[SAGAZ_SAGA] = transfer->done[SAGAZ_EVENT] = false;
	sagaz_transfer_give_up(transfer, error);
}

static void
run_transfer(SagazTransfer *transfer)
{
	transfer->phase = PHASE_COPY;
	for (SagazKind kind = SAGAZ_SAGA; kind <= SAGAZ_EVENT; kind++)
		if (sagaz_transfer_has(transfer, kind) && !transfer->done[kind])
			sagaz_copy_kind(transfer, kind);
	if (transfer->validate && !sagaz_transfer_verify(transfer))
		refuse_transfer_difference(transfer);
}

/* From counting to the end. */
void
sagaz_transfer_to_end(SagazTransfer *transfer)
{
	sagaz_transfer_insist(transfer, count_transfer_source);
	if (transfer->is_migration)
		sagaz_migrate_run(transfer);
	else
		run_transfer(transfer);
	transfer->phase = PHASE_DONE;
	sagaz_transfer_insist(transfer, close_completed_transfer);
}

/* ---------------------------------------------------------------------- */
/* Refused records */

/* Read the refused record of that key again, at one of the ends; none if it has gone. */
static void
read_refused_by_transfer(SagazTransfer *transfer, SagazSide *end, char *key)
{
	SagazStore *store = sagaz_end_open(end, transfer->kind);
	MemoryContext outer = MemoryContextSwitchTo(transfer->batch);
	SagazFilter filter = {.key = key};
	SagazReader *reader;

	transfer->records = palloc(sizeof(SagazRecord));
	if (end->is_native)
		PushActiveSnapshot(GetTransactionSnapshot());
	reader = sagaz_store_read_begin(store, transfer->kind, &filter);
	transfer->nrecords = sagaz_store_read_next(reader, transfer->records);
	sagaz_store_read_end(reader);
	if (end->is_native)
		PopActiveSnapshot();
	MemoryContextSwitchTo(outer);
}

/*
 * Have it as a batch of one; that it was refused is known until it is in the
 * target, as it may be the only copy.
 */
static void
retry_transfer_record(SagazTransfer *transfer)
{
	const char *const *key = (const char *const *) &transfer->last_key;
	bool		is_there;

	MemoryContextReset(transfer->batch);
	sagaz_end_check_origin(transfer);
	read_refused_by_transfer(transfer, &transfer->source, transfer->last_key);
	transfer->nread = 0;
	transfer->next_position = NULL;
	if (transfer->is_migration)
		sagaz_copied_forget(transfer, transfer->kind, key, 1);
	if (transfer->nrecords > 0)
		return;
	read_refused_by_transfer(transfer, &transfer->target, transfer->last_key);
	is_there = transfer->nrecords > 0;
	transfer->nrecords = 0;
	if (!is_there)
		return;
	(void) sagaz_transfer_forget_refused(transfer, transfer->kind, key, 1);
	if (transfer->on_error == ON_ERROR_SKIP)
		transfer->counts.skipped--;
	else
		transfer->counts.failed--;
}

/* Try all refused records of a kind; those refused again stay so. */
static void
retry_transfer_kind(SagazTransfer *transfer, SagazKind kind)
{
	MemoryContext outer = MemoryContextSwitchTo(transfer->context);
	List	   *keys = sagaz_transfer_refused(transfer, kind);
	ListCell   *cell;

	MemoryContextSwitchTo(outer);
	transfer->kind = kind;
	foreach(cell, keys)
	{
		transfer->last_key = lfirst(cell);
		sagaz_transfer_insist(transfer, retry_transfer_record);
		sagaz_copy_batch(transfer);
	}
}

static void
close_transfer_again(SagazTransfer *transfer)
{
	sagaz_transfer_close(transfer, transfer->state, transfer->error);
}

/* All that are refused; then the row says again what it said before. */
void
sagaz_transfer_retry(SagazTransfer *transfer)
{
	SagazKind	kind_before = transfer->kind;
	char	   *last_key = transfer->last_key;

	for (SagazKind kind = SAGAZ_SAGA; kind <= SAGAZ_EVENT; kind++)
		if (sagaz_transfer_has(transfer, kind))
			retry_transfer_kind(transfer, kind);
	transfer->kind = kind_before;
	transfer->last_key = last_key;
	sagaz_transfer_insist(transfer, close_transfer_again);
}
