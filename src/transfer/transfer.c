/*
 * transfer.c
 *		The procedures transfer(), migrate(), resume_transfer() and
 *		retry_transfer_errors().
 */
#include "lib/sagaz.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "backends/record/record.h"
#include "storage/secrets.h"
#include "transfer/transfer.h"

PG_FUNCTION_INFO_V1(sagaz_transfer);
PG_FUNCTION_INFO_V1(sagaz_migrate);
PG_FUNCTION_INFO_V1(sagaz_resume_transfer);
PG_FUNCTION_INFO_V1(sagaz_retry_transfer_errors);

#define MAX_BATCH_SIZE 100000

/* ---------------------------------------------------------------------- */
/* Arguments */

static SagazOnError
transfer_policy_argument(FunctionCallInfo fcinfo, int argno)
{
	const char *word = sagaz_text_argument(fcinfo, argno, "on_error");

	if (strcmp(word, "fail") == 0)
		return ON_ERROR_FAIL;
	if (strcmp(word, "skip") == 0)
		return ON_ERROR_SKIP;
	if (strcmp(word, "retry") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("on_error \"%s\" is unknown", word),
				 errhint("Say 'fail', 'skip' or 'retry'.")));
	return ON_ERROR_RETRY;
}

static int
transfer_batch_size_argument(FunctionCallInfo fcinfo, int argno)
{
	int			size = PG_ARGISNULL(argno) ? 0 : PG_GETARG_INT32(argno);

	if (size < 1 || size > MAX_BATCH_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("batch_size must be between 1 and %d", MAX_BATCH_SIZE)));
	return size;
}

static bool
transfer_bool_argument(FunctionCallInfo fcinfo, int argno, const char *field)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("%s must not be null", field)));
	return PG_GETARG_BOOL(argno);
}

static int64
transfer_id_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("transfer_id must not be null")));
	return PG_GETARG_INT64(0);
}

static char *
transfer_type_argument(FunctionCallInfo fcinfo, int argno)
{
	char	   *type = sagaz_text_argument(fcinfo, argno, "type");

	if (strcmp(type, "both") != 0)
		(void) sagaz_record_kind(type);
	return type;
}

/* A context that outlives the transactions of the call. */
static MemoryContext
transfer_context(void)
{
	return AllocSetContextCreate(PortalContext, "sagaz transfer",
								 ALLOCSET_DEFAULT_SIZES);
}

/* May we commit?  In a transaction block all is one transaction, and we say so. */
static bool
transfer_is_atomic(FunctionCallInfo fcinfo)
{
	CallContext *context = (CallContext *) fcinfo->context;
	bool		atomic = context == NULL || !IsA(context, CallContext) ||
		context->atomic || IsSubTransaction();

	PreventCommandDuringRecovery("a transfer");
	if (atomic)
		ereport(NOTICE,
				(errmsg("in a transaction block, all of the transfer is one transaction"),
				 errdetail("Its progress cannot be seen by others, and what it wrote to other servers stays there if the transaction fails.")));
	return atomic;
}

/* ---------------------------------------------------------------------- */
/* Running */

/* A transfer that has nothing but its two ends. */
static SagazTransfer *
new_transfer(FunctionCallInfo fcinfo)
{
	MemoryContext context = transfer_context();
	MemoryContext outer = MemoryContextSwitchTo(context);
	SagazTransfer *transfer = palloc0(sizeof(SagazTransfer));

	transfer->context = context;
	transfer->atomic = transfer_is_atomic(fcinfo);
	sagaz_end_find(&transfer->source, "source",
				   sagaz_text_argument(fcinfo, 0, "source"));
	sagaz_end_find(&transfer->target, "target",
				   sagaz_text_argument(fcinfo, 1, "target"));
	MemoryContextSwitchTo(outer);
	return transfer;
}

/* See that both ends are there, and that they are two. */
static void
look_at_transfer_sides(SagazTransfer *transfer)
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

/* How many there are to be moved. */
static void
count_transfer_source(SagazTransfer *transfer)
{
	SagazFilter filter = {0};

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
static void
run_transfer_to_end(SagazTransfer *transfer)
{
	sagaz_transfer_insist(transfer, count_transfer_source);
	if (transfer->is_migration)
		sagaz_migrate_run(transfer);
	else
		run_transfer(transfer);
	transfer->phase = PHASE_DONE;
	sagaz_transfer_insist(transfer, close_completed_transfer);
}

static Datum
make_transfer_result(FunctionCallInfo fcinfo, int64 id)
{
	TupleDesc	row_type;
	Datum		values[] = {Int64GetDatum(id)};
	bool		nulls[] = {false};

	if (get_call_result_type(fcinfo, NULL, &row_type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "procedure must return a row");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(row_type), values, nulls));
}

/* Write down the new transfer and run it. */
static Datum
start_transfer(FunctionCallInfo fcinfo, SagazTransfer *transfer)
{
	MemoryContext caller = CurrentMemoryContext;
	int64		id;

	SPI_connect_ext(transfer->atomic ? 0 : SPI_OPT_NONATOMIC);
	look_at_transfer_sides(transfer);
	sagaz_transfer_insert(transfer);
	sagaz_transfer_run(transfer, run_transfer_to_end);
	id = transfer->id;
	SPI_finish();
	MemoryContextDelete(transfer->context);
	MemoryContextSwitchTo(caller);
	return make_transfer_result(fcinfo, id);
}

/* transfer(source, target, type, batch_size, on_error, validate, INOUT transfer_id) */
static Datum
transfer_records(FunctionCallInfo fcinfo)
{
	SagazTransfer *transfer = new_transfer(fcinfo);
	MemoryContext outer = MemoryContextSwitchTo(transfer->context);

	transfer->type = transfer_type_argument(fcinfo, 2);
	transfer->batch_size = transfer_batch_size_argument(fcinfo, 3);
	transfer->on_error = transfer_policy_argument(fcinfo, 4);
	transfer->validate = transfer_bool_argument(fcinfo, 5, "validate");
	MemoryContextSwitchTo(outer);
	return start_transfer(fcinfo, transfer);
}

Datum
sagaz_transfer(PG_FUNCTION_ARGS)
{
	return sagaz_secrets_hide_statement(fcinfo, transfer_records);
}

/* Before the first record is moved: can the switch be made in the end? */
static void
check_transfer_switch(const SagazTransfer *transfer)
{
	if (!transfer->switches)
		return;
	if (strstr(transfer->source.name, "://") || strstr(transfer->target.name, "://"))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("switch needs storages that have names"),
				 errhint("Give them names with sagaz.create_storage().")));
	if (sagaz_switch_problem(transfer))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg_internal("%s", sagaz_switch_problem(transfer)),
				 errdetail("switch makes the target the default of the database."),
				 errhint("It needs the database, both servers, and SET on %s and %s; or migrate without switch.",
						 SAGAZ_SAGA_STORAGE, SAGAZ_OUTBOX_STORAGE)));
}

/* migrate(source, target, switch, batch_size, on_error, INOUT transfer_id) */
static Datum
transfer_and_migrate(FunctionCallInfo fcinfo)
{
	SagazTransfer *transfer = new_transfer(fcinfo);

	transfer->is_migration = true;
	transfer->type = "both";
	transfer->switches = transfer_bool_argument(fcinfo, 2, "switch");
	transfer->batch_size = transfer_batch_size_argument(fcinfo, 3);
	transfer->on_error = transfer_policy_argument(fcinfo, 4);
	transfer->validate = true;
	check_transfer_switch(transfer);
	return start_transfer(fcinfo, transfer);
}

Datum
sagaz_migrate(PG_FUNCTION_ARGS)
{
	return sagaz_secrets_hide_statement(fcinfo, transfer_and_migrate);
}

/* ---------------------------------------------------------------------- */
/* Going on */

/* What the row has of an end, unless it is given again. */
static void
find_transfer_side_again(FunctionCallInfo fcinfo, int argno, SagazSide *end, const char *role)
{
	char	   *given = sagaz_text_argument_or_null(fcinfo, argno);
	char	   *shown = end->shown;

	if (given == NULL && strstr(shown, "://***@"))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("%s must be given again", role),
				 errdetail("Its URL held a secret, which was not kept.")));
	sagaz_end_find(end, role, given ? given : shown);
	if (strcmp(end->shown, shown) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("%s is another one than that of the transfer", role),
				 errdetail("The transfer has \"%s\".", shown)));
}

static SagazTransfer *
load_transfer(FunctionCallInfo fcinfo)
{
	MemoryContext context = transfer_context();
	bool		atomic = transfer_is_atomic(fcinfo);
	SagazTransfer *transfer;
	MemoryContext outer;

	SPI_connect_ext(atomic ? 0 : SPI_OPT_NONATOMIC);
	transfer = sagaz_transfer_load(transfer_id_argument(fcinfo), context);
	outer = MemoryContextSwitchTo(context);
	transfer->atomic = atomic;
	find_transfer_side_again(fcinfo, 1, &transfer->source, "source");
	find_transfer_side_again(fcinfo, 2, &transfer->target, "target");
	MemoryContextSwitchTo(outer);
	return transfer;
}

static void
end_transfer_call(SagazTransfer *transfer, MemoryContext caller)
{
	SPI_finish();
	MemoryContextDelete(transfer->context);
	MemoryContextSwitchTo(caller);
}

/* resume_transfer(transfer_id, source, target) */
static Datum
resume_transfer(FunctionCallInfo fcinfo)
{
	MemoryContext caller = CurrentMemoryContext;
	SagazTransfer *transfer = load_transfer(fcinfo);

	if (transfer->phase == PHASE_DONE)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("transfer " INT64_FORMAT " is completed", transfer->id),
				 errhint("Begin another with CALL %s.transfer(source, target).", SAGAZ_SCHEMA)));
	check_transfer_switch(transfer);
	look_at_transfer_sides(transfer);
	sagaz_transfer_take(transfer);
	sagaz_transfer_run(transfer, run_transfer_to_end);
	end_transfer_call(transfer, caller);
	return (Datum) 0;
}

Datum
sagaz_resume_transfer(PG_FUNCTION_ARGS)
{
	return sagaz_secrets_hide_statement(fcinfo, resume_transfer);
}

/* ---------------------------------------------------------------------- */
/* Refused records */

/* Read the refused record of that key again; none if it has gone. */
static void
read_refused_by_transfer(SagazTransfer *transfer, char *key)
{
	SagazStore *store = sagaz_end_open(&transfer->source, transfer->kind);
	MemoryContext outer = MemoryContextSwitchTo(transfer->batch);
	SagazFilter filter = {.key = key};
	SagazReader *reader;

	transfer->records = palloc(sizeof(SagazRecord));
	if (transfer->source.is_native)
		PushActiveSnapshot(GetTransactionSnapshot());
	reader = sagaz_store_read_begin(store, transfer->kind, &filter);
	transfer->nrecords = sagaz_store_read_next(reader, transfer->records);
	sagaz_store_read_end(reader);
	if (transfer->source.is_native)
		PopActiveSnapshot();
	MemoryContextSwitchTo(outer);
}

/* Have it as a batch of one; that it was refused is known until it is written. */
static void
retry_transfer_record(SagazTransfer *transfer)
{
	const char *const *key = (const char *const *) &transfer->last_key;

	MemoryContextReset(transfer->batch);
	read_refused_by_transfer(transfer, transfer->last_key);
	transfer->nread = 0;
	transfer->next_position = NULL;
	if (transfer->is_migration)
		sagaz_copied_forget(transfer, transfer->kind, key, 1);
	if (transfer->nrecords > 0)
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
static void
retry_refused_by_transfer(SagazTransfer *transfer)
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

static void
refuse_refused_transfer(SagazTransfer *transfer, int64 left)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_TRANSFER),
			 errmsg(INT64_FORMAT " records of transfer " INT64_FORMAT " are still refused",
					left, transfer->id),
			 errhint("See sagaz.transfer_error.")));
}

/* retry_transfer_errors(transfer_id, source, target) */
static Datum
retry_transfer_errors(FunctionCallInfo fcinfo)
{
	MemoryContext caller = CurrentMemoryContext;
	SagazTransfer *transfer = load_transfer(fcinfo);
	int64		left;

	look_at_transfer_sides(transfer);
	transfer->retries = true;
	sagaz_transfer_take(transfer);
	sagaz_transfer_run(transfer, retry_refused_by_transfer);
	left = transfer->counts.skipped + transfer->counts.failed;
	if (left > 0)
		refuse_refused_transfer(transfer, left);
	end_transfer_call(transfer, caller);
	return (Datum) 0;
}

Datum
sagaz_retry_transfer_errors(PG_FUNCTION_ARGS)
{
	return sagaz_secrets_hide_statement(fcinfo, retry_transfer_errors);
}
