/*
 * procedures.c
 *		The procedures transfer(), migrate(), resume_transfer() and
 *		retry_transfer_errors(): their arguments, and what a call sets up and
 *		takes down around a transfer.
 *
 * What outlives the commits of a call lies in a context below the portal's,
 * which goes with the call, also after an error.
 */
#include "lib/sagaz.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/memutils.h"
#include "utils/portal.h"

#include "backends/record/record.h"
#include "storage/secrets.h"
#include "transfer/transfer.h"

#define MAX_BATCH_SIZE 100000
#define LONGEST_DELAY USECS_PER_HOUR

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

static int
transfer_tries_argument(FunctionCallInfo fcinfo, int argno)
{
	int			tries = PG_ARGISNULL(argno) ? 0 : PG_GETARG_INT32(argno);

	if (tries < 1)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("max_tries must be at least 1")));
	return tries;
}

static int64
transfer_delay_argument(FunctionCallInfo fcinfo, int argno)
{
	int64		delay = sagaz_interval_argument(fcinfo, argno, "delay");

	if (delay > LONGEST_DELAY)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("delay must not be longer than an hour")));
	return delay;
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
/* Beginning */

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
	sagaz_transfer_look(transfer);
	transfer->origin = MemoryContextStrdup(transfer->context, sagaz_end_origin(transfer));
	sagaz_transfer_insert(transfer);
	sagaz_transfer_run(transfer, sagaz_transfer_to_end);
	id = transfer->id;
	SPI_finish();
	MemoryContextDelete(transfer->context);
	MemoryContextSwitchTo(caller);
	return make_transfer_result(fcinfo, id);
}

/*
 * transfer(source, target, type, batch_size, on_error, validate, max_tries, delay,
 * INOUT transfer_id)
 */
static Datum
transfer_records(FunctionCallInfo fcinfo)
{
	SagazTransfer *transfer = new_transfer(fcinfo);
	MemoryContext outer = MemoryContextSwitchTo(transfer->context);

	transfer->type = transfer_type_argument(fcinfo, 2);
	transfer->batch_size = transfer_batch_size_argument(fcinfo, 3);
	transfer->on_error = transfer_policy_argument(fcinfo, 4);
	transfer->validate = DatumGetBool(sagaz_argument(fcinfo, 5, "validate"));
	transfer->max_tries = transfer_tries_argument(fcinfo, 6);
	transfer->first_delay = transfer_delay_argument(fcinfo, 7);
	MemoryContextSwitchTo(outer);
	return start_transfer(fcinfo, transfer);
}

SAGAZ_SQL_FUNCTION(sagaz_transfer, sagaz_secrets_hide_statement,
				   transfer_records);

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

/*
 * migrate(source, target, switch, batch_size, on_error, accept_removals, max_tries,
 * delay, INOUT transfer_id)
 */
static Datum
transfer_and_migrate(FunctionCallInfo fcinfo)
{
	SagazTransfer *transfer = new_transfer(fcinfo);

	transfer->is_migration = true;
	transfer->type = "both";
	transfer->switches = DatumGetBool(sagaz_argument(fcinfo, 2, "switch"));
	transfer->batch_size = transfer_batch_size_argument(fcinfo, 3);
	transfer->on_error = transfer_policy_argument(fcinfo, 4);
	transfer->accepts_removals = DatumGetBool(sagaz_argument(fcinfo, 5, "accept_removals"));
	transfer->max_tries = transfer_tries_argument(fcinfo, 6);
	transfer->first_delay = transfer_delay_argument(fcinfo, 7);
	transfer->validate = true;
	check_transfer_switch(transfer);
	return start_transfer(fcinfo, transfer);
}

SAGAZ_SQL_FUNCTION(sagaz_migrate, sagaz_secrets_hide_statement,
				   transfer_and_migrate);

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
	transfer = sagaz_transfer_load(DatumGetInt64(sagaz_argument(fcinfo, 0, "transfer_id")), context);
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

/* resume_transfer(transfer_id, source, target, accept_removals) */
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
	transfer->accepts_removals = DatumGetBool(sagaz_argument(fcinfo, 3, "accept_removals"));
	check_transfer_switch(transfer);
	sagaz_transfer_look(transfer);
	sagaz_end_check_origin(transfer);
	sagaz_transfer_take(transfer);
	sagaz_transfer_run(transfer, sagaz_transfer_to_end);
	end_transfer_call(transfer, caller);
	return (Datum) 0;
}

SAGAZ_SQL_FUNCTION(sagaz_resume_transfer, sagaz_secrets_hide_statement,
				   resume_transfer);

/* ---------------------------------------------------------------------- */
/* Refused records */

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

	sagaz_transfer_look(transfer);
	sagaz_end_check_origin(transfer);
	transfer->retries = true;
	sagaz_transfer_take(transfer);
	sagaz_transfer_run(transfer, sagaz_transfer_retry);
	left = transfer->counts.skipped + transfer->counts.failed;
	if (left > 0)
		refuse_refused_transfer(transfer, left);
	end_transfer_call(transfer, caller);
	return (Datum) 0;
}

SAGAZ_SQL_FUNCTION(sagaz_retry_transfer_errors, sagaz_secrets_hide_statement,
				   retry_transfer_errors);
