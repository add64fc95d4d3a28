/*
 * transfer_step.c
 *		The steps of a transfer: commits, errors and waiting.
 *
 * A step runs in a subtransaction, so that its error can be written down and
 * committed before it is passed on.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "lib/times.h"
#include "transfer/transfer.h"

/* The waits for a peer that is unwell double up to this, in ms. */
#define LAST_DELAY 30000
#define LONGEST_NAP 1000
/* The log hears of a transfer so often, in ms. */
#define REPORT_INTERVAL 10000

/*
 * Run a step in a subtransaction; if it fails, what it did is undone, and
 * the error returned, in the transfer's context.  What it did in another
 * storage is not undone.
 */
ErrorData *
sagaz_transfer_attempt(SagazTransfer *transfer, SagazStep step)
{
	MemoryContext outer = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	SagazCounts before = transfer->counts;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(outer);
	PG_TRY();
	{
		step(transfer);
		MemoryContextSwitchTo(outer);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(transfer->context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		transfer->counts = before;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(outer);
	CurrentResourceOwner = owner;
	return error;
}

/*
 * Commit what was done, unless all of it is to be one transaction.  That the
 * last batches are forgotten in a crash does no harm, as then the row is too:
 * they are moved again.
 */
void
sagaz_transfer_commit(SagazTransfer *transfer)
{
	if (transfer->atomic || transfer->holds_commit)
	{
		CommandCounterIncrement();
		return;
	}
	if (transfer->phase != PHASE_DONE && transfer->phase != PHASE_SWITCH)
		(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	SPI_commit();
	SPI_start_transaction();
}

/* ---------------------------------------------------------------------- */
/* Errors */

static bool
is_cancel(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_QUERY_CANCELED;
}

/* Is the error about a record, so that others may do better? */
bool
sagaz_transfer_is_about_record(const ErrorData *error)
{
	int			class = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	return class == ERRCODE_DATA_EXCEPTION ||
		class == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION ||
		class == ERRCODE_PROGRAM_LIMIT_EXCEEDED ||
		error->sqlerrcode == ERRCODE_SAGAZ_SERIALIZATION ||
		error->sqlerrcode == ERRCODE_SAGAZ_TRANSITION ||
		error->sqlerrcode == ERRCODE_SAGAZ_INPUT;
}

/*
 * Might it work if the peer is asked again?  SZ000 is what it answered: that it
 * is loading, read only, or that a right is missing.  A PostgreSQL says it with
 * its own codes: recovery, too few resources, somebody's intervention, a system
 * error.
 */
static bool
is_unwell(const ErrorData *error)
{
	int			class = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	return class == ERRCODE_INSUFFICIENT_RESOURCES ||
		(class == ERRCODE_OPERATOR_INTERVENTION && !is_cancel(error)) ||
		class == ERRCODE_SYSTEM_ERROR || class == ERRCODE_TRANSACTION_ROLLBACK ||
		error->sqlerrcode == ERRCODE_READ_ONLY_SQL_TRANSACTION ||
		error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE ||
		error->sqlerrcode == ERRCODE_SAGAZ_CONNECTION ||
		error->sqlerrcode == ERRCODE_SAGAZ_CONCURRENCY ||
		error->sqlerrcode == ERRCODE_SAGAZ_CAPACITY ||
		error->sqlerrcode == ERRCODE_SAGAZ_STORAGE ||
		error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
}

static void
rethrow_from_step(SagazTransfer *transfer, ErrorData *error)
{
	int			code = is_cancel(error) ? error->sqlerrcode : ERRCODE_SAGAZ_TRANSFER;

	if (transfer->atomic)
		ReThrowError(error);
	ereport(ERROR,
			(errcode(code),
			 errmsg("transfer " INT64_FORMAT " %s: %s", transfer->id,
					is_cancel(error) ? "was cancelled" : "failed", error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 errhint("%s%sCALL sagaz.%s(" INT64_FORMAT ") goes on with it.",
					 error->hint ? error->hint : "", error->hint ? "  " : "",
					 transfer->retries ? "retry_transfer_errors" : "resume_transfer",
					 transfer->id)));
}

/* Write down that the transfer ends with this error, and raise it. */
void
sagaz_transfer_give_up(SagazTransfer *transfer, ErrorData *error)
{
	if (!transfer->atomic)
	{
		transfer->complaint = NULL;
		HOLD_INTERRUPTS();
		if (transfer->holds_commit)
		{
			SPI_rollback();
			SPI_start_transaction();
			transfer->holds_commit = false;
			transfer->phase = PHASE_PASS;
		}
		transfer->runs = false;
		if (transfer->retries)
			sagaz_transfer_close(transfer, transfer->state, transfer->error);
		else
			sagaz_transfer_close(transfer, is_cancel(error) ? "cancelled" : "failed",
								 sagaz_error_text(error));
		SPI_commit();
		SPI_start_transaction();
		RESUME_INTERRUPTS();
	}
	rethrow_from_step(transfer, error);
}

/*
 * An error has come between two steps, so that the transaction is of no use
 * any more, nor are connections to SPI.
 */
static void
break_off_step(SagazTransfer *transfer)
{
	ErrorData  *error;

	MemoryContextSwitchTo(transfer->context);
	error = CopyErrorData();
	FlushErrorState();
	while (GetCurrentTransactionNestLevel() > 1)
		RollbackAndReleaseCurrentSubTransaction();
	/* it goes with the transaction */
	ActivePortal->portalSnapshot = NULL;
	AbortCurrentTransaction();
	StartTransactionCommand();
	MemoryContextSwitchTo(transfer->context);
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	transfer->holds_commit = false;
	sagaz_transfer_give_up(transfer, error);
}

/*
 * Run the transfer, whose row says so already; whatever ends it, the row says
 * that, too.
 */
void
sagaz_transfer_run(SagazTransfer *transfer, SagazStep run)
{
	sagaz_transfer_commit(transfer);
	transfer->runs = !transfer->atomic;
	PG_TRY();
	{
		run(transfer);
	}
	PG_CATCH();
	{
		if (!transfer->runs)
			PG_RE_THROW();
		break_off_step(transfer);
	}
	PG_END_TRY();
	transfer->runs = false;
}

/* ---------------------------------------------------------------------- */
/* Waiting */

static void
save_step(SagazTransfer *transfer)
{
	sagaz_transfer_save(transfer);
}

/* Somebody has called cancel_transfer(). */
static void
check_step_cancelled(SagazTransfer *transfer)
{
	ErrorData  *error;

	if (!transfer->cancelled)
		return;
	error = MemoryContextAllocZero(transfer->context, sizeof(ErrorData));
	error->elevel = ERROR;
	error->sqlerrcode = ERRCODE_QUERY_CANCELED;
	error->message = "cancel_transfer() was called";
	error->assoc_context = transfer->context;
	sagaz_transfer_give_up(transfer, error);
}

/* How long to wait after so many failures, give or take a quarter. */
static int
delay_after(const SagazTransfer *transfer)
{
	int			first = (int) (transfer->first_delay / 1000);
	int			delay = (int) (sagaz_backoff(first, Max(first, LAST_DELAY),
											 transfer->attempts - 1) / 1000);

	return delay - delay / 4 + (int) (random() % (delay / 2 + 1));
}

static void
sleep_for(int ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
	long		left;

	while ((left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until)) > 0)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Wait a part of that time, so that it is soon seen who cancels. */
static void
sleep_before_step(SagazTransfer *transfer)
{
	sleep_for(Min(transfer->delay, LONGEST_NAP));
	transfer->delay -= LONGEST_NAP;
}

/*
 * After an error: wait for a peer that is unwell, if that is the policy and
 * there is still hope; else the transfer ends.
 */
void
sagaz_transfer_wait(SagazTransfer *transfer, ErrorData *error)
{
	ErrorData  *end;

	if (transfer->on_error != ON_ERROR_RETRY || !is_unwell(error) ||
		transfer->attempts >= transfer->max_tries)
		sagaz_transfer_give_up(transfer, error);
	transfer->attempts++;
	transfer->complaint = psprintf("attempt %d of %d: %s", transfer->attempts,
								   transfer->max_tries, sagaz_error_text(error));
	transfer->delay = delay_after(transfer);
	while (transfer->delay > 0)
	{
		end = sagaz_transfer_attempt(transfer, save_step);
		if (end == NULL)
		{
			sagaz_transfer_commit(transfer);
			check_step_cancelled(transfer);
			end = sagaz_transfer_attempt(transfer, sleep_before_step);
		}
		if (end)
			sagaz_transfer_give_up(transfer, end);
	}
	transfer->complaint = NULL;
}

/* ---------------------------------------------------------------------- */
/* Steps that must succeed */

static void
report_step(SagazTransfer *transfer)
{
	TimestampTz now = GetCurrentTimestamp();
	const SagazCounts *counts = &transfer->counts;

	if (!TimestampDifferenceExceeds(transfer->reported_at, now, REPORT_INTERVAL))
		return;
	transfer->reported_at = now;
	ereport(LOG,
			(errmsg("transfer " INT64_FORMAT " from \"%s\" to \"%s\": %s of %s, "
					INT64_FORMAT " of " INT64_FORMAT " records, "
					INT64_FORMAT " written, " INT64_FORMAT " skipped",
					transfer->id, transfer->source.shown, transfer->target.shown,
					sagaz_phase_words[transfer->phase],
					sagaz_type_words[transfer->kind], counts->processed,
					counts->total, counts->transferred, counts->skipped),
			 errhidestmt(true)));
}

/*
 * Run a step and commit, again and again where the policy is to wait for a
 * peer; an error that remains ends the transfer.
 */
void
sagaz_transfer_insist(SagazTransfer *transfer, SagazStep step)
{
	ErrorData  *error;

	while ((error = sagaz_transfer_attempt(transfer, step)) != NULL)
		sagaz_transfer_wait(transfer, error);
	transfer->attempts = 0;
	sagaz_transfer_commit(transfer);
	report_step(transfer);
	check_step_cancelled(transfer);
}
