/*
 * migrate.c
 *		Following a source that changes while it is copied, and switching to
 *		the target.
 *
 * sagaz.transfer_record has the digest of each record that was copied.  A
 * pass reads the source again and moves what has another digest by now; what
 * has a row and is not in the source any more has gone away, and goes from
 * the target, too.  What the target has besides is never touched.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "backends/record/record.h"
#include "outbox/group.h"
#include "transfer/transfer.h"

#define MAX_PASSES 100
#define ENOUGH_PASSES 5

/* What comparing has found to differ is to be copied again. */
static void
forget_differing(SagazTransfer *transfer)
{
	for (SagazKind kind = SAGAZ_SAGA; kind <= SAGAZ_EVENT; kind++)
	{
		int			count = list_length(transfer->differing[kind]);
		const char **keys = palloc((count + 1) * sizeof(char *));

		for (int i = 0; i < count; i++)
			keys[i] = list_nth(transfer->differing[kind], i);
		if (count > 0)
			sagaz_copied_forget(transfer, kind, keys, count);
	}
}

/* ---------------------------------------------------------------------- */
/* What has gone away */

/*
 * Is what has been copied of the kind, and is not known to be gone, just what
 * the pass has seen?  Their number does not tell: a reader may see one twice.
 */
static bool
all_are_there(SagazTransfer *transfer)
{
	Oid			types[] = {INT8OID, TEXTOID, INT8OID, INT8OID};
	Datum		values[] = {
		Int64GetDatum(transfer->id),
		CStringGetTextDatum(sagaz_type_words[transfer->kind]),
		Int64GetDatum(transfer->seen),
		Int64GetDatum((int64) transfer->seen_keys)
	};
	bool		same;
	bool		isnull;

	sagaz_transfer_as_owner("SELECT pg_catalog.count(*) OPERATOR(pg_catalog.=) $3 AND"
							" coalesce(pg_catalog.bit_xor(pg_catalog.hashtextextended(record_key, 0)), 0)"
							" OPERATOR(pg_catalog.=) $4 FROM sagaz.transfer_record"
							" WHERE transfer_id OPERATOR(pg_catalog.=) $1"
							" AND record_type OPERATOR(pg_catalog.=) $2",
							lengthof(types), types, values, NULL, SPI_OK_SELECT);
	same = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return same;
}

/* The next copied keys behind the last one. */
static char **
migrate_next_keys(SagazTransfer *transfer, int *count)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID, INT4OID};
	Datum		values[] = {
		Int64GetDatum(transfer->id),
		CStringGetTextDatum(sagaz_type_words[transfer->kind]),
		CStringGetTextDatum(transfer->last_key ? transfer->last_key : ""),
		Int32GetDatum(transfer->batch_size)
	};
	char	  **keys;

	sagaz_transfer_as_owner("SELECT record_key FROM sagaz.transfer_record"
							" WHERE transfer_id OPERATOR(pg_catalog.=) $1"
							" AND record_type OPERATOR(pg_catalog.=) $2"
							" AND record_key OPERATOR(pg_catalog.>) $3"
							" ORDER BY record_key LIMIT $4",
							lengthof(types), types, values, NULL, SPI_OK_SELECT);
	*count = (int) SPI_processed;
	keys = MemoryContextAlloc(caller, (*count + 1) * sizeof(char *));
	for (int i = 0; i < *count; i++)
		keys[i] = MemoryContextStrdup(caller,
									  SPI_getvalue(SPI_tuptable->vals[i],
												   SPI_tuptable->tupdesc, 1));
	SPI_finish();
	return keys;
}

static int
compare_migrated_keys(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* Strike from the keys, which are sorted, those that the source has. */
static int
leave_gone(SagazTransfer *transfer, char **keys, int nkeys)
{
	SagazStore *store = sagaz_end_open(&transfer->source, transfer->kind);
	SagazFilter filter = {.keys = (const char *const *) keys,.nkeys = nkeys};
	bool	   *is_there = palloc0(nkeys * sizeof(bool));
	SagazReader *reader;
	SagazRecord record;
	int			left = 0;

	if (transfer->source.is_native)
		PushActiveSnapshot(GetTransactionSnapshot());
	reader = sagaz_store_read_begin(store, transfer->kind, &filter);
	while (sagaz_store_read_next(reader, &record))
	{
		const char *key = sagaz_record_key(&record);
		char	  **found = bsearch(&key, keys, nkeys, sizeof(char *), compare_migrated_keys);

		if (found)
			is_there[found - keys] = true;
	}
	sagaz_store_read_end(reader);
	if (transfer->source.is_native)
		PopActiveSnapshot();
	for (int i = 0; i < nkeys; i++)
		if (!is_there[i])
			keys[left++] = keys[i];
	return left;
}

/* Is what has gone from the source perhaps only finished, and expired? */
static bool
may_have_expired(const SagazRecord *copy)
{
	return copy->kind == SAGAZ_EVENT || copy->problem ||
		strcmp(copy->saga.status, "completed") == 0 ||
		strcmp(copy->saga.status, "rolled_back") == 0;
}

static void
forget_expired(SagazTransfer *transfer, char **keys, const bool *is_expired, int nkeys)
{
	const char **expired = palloc(nkeys * sizeof(char *));
	int			count = 0;

	for (int i = 0; i < nkeys; i++)
		if (is_expired[i])
			expired[count++] = keys[i];
	if (count > 0)
		sagaz_copied_forget(transfer, transfer->kind, expired, count);
}

/*
 * Strike from the keys, which are sorted, those whose records may have expired
 * in the source: they stay in the target, and are not followed any more.
 */
static int
leave_expired(SagazTransfer *transfer, char **keys, int nkeys)
{
	SagazFilter filter = {.keys = (const char *const *) keys,.nkeys = nkeys};
	bool	   *is_expired = palloc0(nkeys * sizeof(bool));
	SagazReader *reader;
	SagazRecord record;
	int			left = 0;

	if (transfer->source.is_native ||
		(transfer->source.storage.backend->capabilities & SAGAZ_RECORDS_EXPIRE) == 0)
		return nkeys;
	if (transfer->target.is_native)
		PushActiveSnapshot(GetTransactionSnapshot());
	reader = sagaz_store_read_begin(sagaz_end_open(&transfer->target, transfer->kind),
									transfer->kind, &filter);
	while (sagaz_store_read_next(reader, &record))
	{
		const char *key = sagaz_record_key(&record);
		char	  **found = bsearch(&key, keys, nkeys, sizeof(char *), compare_migrated_keys);

		if (found)
			is_expired[found - keys] = may_have_expired(&record);
	}
	sagaz_store_read_end(reader);
	if (transfer->target.is_native)
		PopActiveSnapshot();
	forget_expired(transfer, keys, is_expired, nkeys);
	for (int i = 0; i < nkeys; i++)
		if (!is_expired[i])
			keys[left++] = keys[i];
	return left;
}

/* Of the next keys those that have gone from the same source as ever. */
static char **
next_gone(SagazTransfer *transfer, int *count, char **last)
{
	char	  **keys = migrate_next_keys(transfer, count);

	*last = NULL;
	transfer->at_end = *count < transfer->batch_size;
	transfer->known += *count;
	if (*count == 0)
		return keys;
	*last = MemoryContextStrdup(transfer->context, keys[*count - 1]);
	*count = leave_gone(transfer, keys, *count);
	sagaz_end_check_origin(transfer);
	if (*count > 0)
		*count = leave_expired(transfer, keys, *count);
	return keys;
}

static void
count_gone(SagazTransfer *transfer)
{
	MemoryContext outer = MemoryContextSwitchTo(transfer->batch);
	int			count;

	MemoryContextReset(transfer->batch);
	(void) next_gone(transfer, &count, &transfer->last_key);
	transfer->gone += count;
	if (transfer->at_end)
		sagaz_end_check_held(transfer, transfer->known, transfer->known - transfer->gone);
	MemoryContextSwitchTo(outer);
}

/* Remove from the target what has gone from the source, among the next keys. */
static void
remove_gone(SagazTransfer *transfer)
{
	MemoryContext outer = MemoryContextSwitchTo(transfer->batch);
	int			count;
	char	  **keys;
	char	   *last = NULL;

	MemoryContextReset(transfer->batch);
	keys = next_gone(transfer, &count, &last);
	if (count > 0)
	{
		SagazStore *store = sagaz_end_open(&transfer->target, transfer->kind);

		transfer->counts.removed +=
			store->backend->remove(store, transfer->kind, (const char *const *) keys, count);
		sagaz_copied_forget(transfer, transfer->kind, (const char *const *) keys, count);
	}
	transfer->last_key = last;
	sagaz_transfer_save(transfer);
	MemoryContextSwitchTo(outer);
}

/* Follow what has gone away, if anything has. */
static void
follow_gone(SagazTransfer *transfer)
{
	int64		removed = transfer->counts.removed;

	if (all_are_there(transfer))
		return;
	transfer->last_key = NULL;
	transfer->known = transfer->gone = 0;
	do
		sagaz_transfer_insist(transfer, count_gone);
	while (!transfer->at_end);
	if (transfer->gone == 0)
		return;
	transfer->last_key = NULL;
	do
		sagaz_transfer_insist(transfer, remove_gone);
	while (!transfer->at_end);
	transfer->changes += transfer->counts.removed - removed;
}

/* ---------------------------------------------------------------------- */
/* Passes */

static void
run_pass(SagazTransfer *transfer)
{
	transfer->pass++;
	if (transfer->phase != PHASE_SWITCH)
		transfer->phase = transfer->pass == 1 ? PHASE_COPY : PHASE_PASS;
	transfer->changes = 0;
	for (SagazKind kind = SAGAZ_SAGA; kind <= SAGAZ_EVENT; kind++)
	{
		transfer->position = NULL;
		sagaz_copy_kind(transfer, kind);
		follow_gone(transfer);
	}
}

static void
give_up_following(SagazTransfer *transfer)
{
	ErrorData  *error = MemoryContextAllocZero(transfer->context, sizeof(ErrorData));

	error->elevel = ERROR;
	error->sqlerrcode = ERRCODE_SAGAZ_TRANSFER;
	error->message = "the source changes faster than it can be followed";
	error->hint = "Let its writers pause for a moment.";
	error->assoc_context = transfer->context;
	sagaz_transfer_give_up(transfer, error);
}

/* Pass after pass, until one has found nothing. */
static void
follow(SagazTransfer *transfer)
{
	int			last = transfer->pass + MAX_PASSES;

	do
	{
		if (transfer->pass >= last)
			give_up_following(transfer);
		run_pass(transfer);
	} while (transfer->changes > 0);
}

/* Follow until both sides are the same. */
static void
follow_and_verify(SagazTransfer *transfer)
{
	int			last = transfer->pass + MAX_PASSES;

	for (;;)
	{
		follow(transfer);
		if (sagaz_transfer_verify(transfer))
			return;
		if (transfer->pass >= last)
			give_up_following(transfer);
		sagaz_transfer_insist(transfer, forget_differing);
	}
}

/*
 * Before a switch: follow and compare, too, but not for ever where somebody is
 * always at work.  What is left then is little.  False if both sides were never
 * found the same.
 */
static bool
catch_up(SagazTransfer *transfer)
{
	int			last = transfer->pass + ENOUGH_PASSES;

	while (transfer->pass < last)
	{
		run_pass(transfer);
		if (transfer->changes > 0)
			continue;
		if (sagaz_transfer_verify(transfer))
			return true;
		sagaz_transfer_insist(transfer, forget_differing);
	}
	return false;
}

/* ---------------------------------------------------------------------- */
/* The switch */

static void
run_sql(const char *sql)
{
	SPI_connect();
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not switch storages");
	SPI_finish();
}

/* With the rights of the caller, who must own the server. */
static void
migrate_set_closed(const SagazSide *end, bool closed)
{
	ListCell   *cell;
	bool		is_set = false;

	foreach(cell, end->storage.options)
		if (strcmp(((DefElem *) lfirst(cell))->defname, "closed") == 0)
			is_set = true;
	if (closed || is_set)
		run_sql(psprintf("ALTER SERVER %s OPTIONS (%s)", quote_identifier(end->name),
						 !closed ? "DROP closed" : is_set ? "SET closed 'true'" :
						 "ADD closed 'true'"));
}

/* Wait until nobody is at work on our own tables, and let nobody begin. */
static void
migrate_lock_native(SagazTransfer *transfer)
{
	sagaz_transfer_as_owner("LOCK TABLE sagaz.sagas, sagaz.saga_steps, sagaz.outbox,"
							" sagaz.outbox_batch, sagaz.outbox_receipt, sagaz.outbox_retry"
							" IN SHARE ROW EXCLUSIVE MODE", 0, NULL, NULL, NULL, SPI_OK_UTILITY);
	SPI_finish();
}

/*
 * Nobody claims from the source any more.  Where it is ours, nobody writes
 * there either until the switch is over, so that the last pass sees all.
 */
static void
migrate_close_source(SagazTransfer *transfer)
{
	if (!transfer->source.is_native)
	{
		migrate_set_closed(&transfer->source, true);
		return;
	}
	migrate_lock_native(transfer);
	/* also the one that arises with its first use, which would then be open */
	sagaz_transfer_as_owner("SELECT sagaz.pause_consumer_group(consumer_group)"
							" FROM (SELECT consumer_group FROM sagaz.consumer_group"
							" UNION SELECT '" SAGAZ_DEFAULT_GROUP "') AS g", 0, NULL, NULL, NULL, SPI_OK_SELECT);
	SPI_finish();
}

static void
make_default(const char *setting, const char *storage)
{
	run_sql(psprintf("ALTER DATABASE %s SET %s TO %s",
					 quote_identifier(get_database_name(MyDatabaseId)), setting,
					 quote_literal_cstr(storage)));
}

static void
change_default(SagazTransfer *transfer)
{
	if (!transfer->target.is_native)
		migrate_set_closed(&transfer->target, false);
	make_default(SAGAZ_SAGA_STORAGE, transfer->target.name);
	make_default(SAGAZ_OUTBOX_STORAGE, transfer->target.name);
	transfer->phase = PHASE_SWITCH;
	sagaz_transfer_save(transfer);
}

static void
use_in_session(const char *setting, const char *storage)
{
	(void) set_config_option(setting, storage,
							 superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SET, true, 0, false);
}

/*
 * What is left when the source is closed.  Our own tables stand still by then,
 * and can be compared for certain.
 */
static void
follow_closed(SagazTransfer *transfer, bool is_compared)
{
	if (transfer->source.is_native && is_compared)
		follow(transfer);
	else if (transfer->source.is_native)
		follow_and_verify(transfer);
	else
	{
		run_pass(transfer);
		if (is_compared || sagaz_transfer_verify(transfer))
			return;
		sagaz_transfer_insist(transfer, forget_differing);
		run_pass(transfer);
	}
}

/*
 * Close the source and make the target the default, in one transaction.  Only
 * our own tables are quiet before that has ended.
 */
static void
migrate_switch_storages(SagazTransfer *transfer, bool is_compared)
{
	transfer->phase = PHASE_SWITCH;
	transfer->holds_commit = true;
	sagaz_transfer_insist(transfer, migrate_close_source);
	follow_closed(transfer, is_compared);
	sagaz_transfer_insist(transfer, change_default);
	transfer->holds_commit = false;
	sagaz_transfer_commit(transfer);
	use_in_session(SAGAZ_SAGA_STORAGE, transfer->target.name);
	use_in_session(SAGAZ_OUTBOX_STORAGE, transfer->target.name);
}

/*
 * Everything that migrate() does.  Once the target is the default people work
 * there, and a difference says nothing any more: then only what still changes
 * in the source is followed, also by who resumes it.  Who waited for our locks
 * did not see that it is closed: what they do in their transaction is followed, too.
 */
void
sagaz_migrate_run(SagazTransfer *transfer)
{
	if (!transfer->switches)
	{
		follow_and_verify(transfer);
		return;
	}
	if (transfer->phase != PHASE_SWITCH)
		migrate_switch_storages(transfer, catch_up(transfer));
	if (transfer->source.is_native)
		sagaz_transfer_insist(transfer, migrate_lock_native);
	follow(transfer);
}
