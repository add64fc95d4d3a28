/*
 * transfer_row.c
 *		The row of a transfer in sagaz.transfer, and its refused records.
 *
 * EXECUTE on the procedures is the permission: what is done here is done as
 * the extension's owner.
 */
#include "lib/sagaz.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "lib/owner.h"
#include "backends/record/record.h"
#include "transfer/transfer.h"

const char *const sagaz_phase_words[] = {
	[PHASE_PREPARE] = "prepare",
	[PHASE_COPY] = "copy",
	[PHASE_PASS] = "pass",
	[PHASE_VERIFY] = "verify",
	[PHASE_SWITCH] = "switch",
	[PHASE_DONE] = "done"
};

const char *const sagaz_type_words[] = {
	[SAGAZ_SAGA] = "saga",
	[SAGAZ_EVENT] = "outbox"
};

static const char *const on_error_words[] = {
	[ON_ERROR_FAIL] = "fail",
	[ON_ERROR_SKIP] = "skip",
	[ON_ERROR_RETRY] = "retry"
};

/*
 * Run a statement on our tables with the extension owner's rights, so all
 * names in it have their schema.  Its result is in SPI_tuptable until the
 * caller says SPI_finish().
 */
void
sagaz_transfer_as_owner(const char *sql, int nargs, Oid *types, Datum *values,
						const char *nulls, int expected)
{
	SagazUser	user;
	int			result;

	SPI_connect();
	sagaz_become_owner(&user);
	result = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);
	sagaz_owner_restore(&user);
	if (result != expected)
		elog(ERROR, "statement of a transfer failed: %s", SPI_result_code_string(result));
}

/* ---------------------------------------------------------------------- */
/* Parameters by name */

#define MAX_PARAMETERS 32

typedef struct Parameters
{
	int			count;
	Oid			types[MAX_PARAMETERS];
	Datum		values[MAX_PARAMETERS];
	char		nulls[MAX_PARAMETERS];
} Parameters;

static void
add_row_value(Parameters *parameters, Oid type, Datum value, bool isnull)
{
	Assert(parameters->count < MAX_PARAMETERS);
	parameters->types[parameters->count] = type;
	parameters->values[parameters->count] = value;
	parameters->nulls[parameters->count++] = isnull ? 'n' : ' ';
}

static void
add_row_text(Parameters *parameters, const char *text)
{
	add_row_value(parameters, TEXTOID, text ? CStringGetTextDatum(text) : (Datum) 0, text == NULL);
}

static void
add_row_int(Parameters *parameters, int64 value)
{
	add_row_value(parameters, INT8OID, Int64GetDatum(value), false);
}

static void
add_row_bool(Parameters *parameters, bool value)
{
	add_row_value(parameters, BOOLOID, BoolGetDatum(value), false);
}

static void
execute_on_row(const char *sql, Parameters *parameters, int expected)
{
	sagaz_transfer_as_owner(sql, parameters->count, parameters->types, parameters->values,
							parameters->nulls, expected);
}

/* ---------------------------------------------------------------------- */
/* The row */

static TimestampTz
transfer_backend_start(void)
{
	return MyBEEntry ? MyBEEntry->st_proc_start_timestamp : MyStartTimestamp;
}

static Datum
row_interval(int64 microseconds)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = microseconds;
	return IntervalPGetDatum(interval);
}

/* Write the row of a transfer that begins; it has its number from then on. */
void
sagaz_transfer_insert(SagazTransfer *transfer)
{
	Parameters	p = {0};
	bool		isnull;

	add_row_text(&p, transfer->is_migration ? "migrate" : "transfer");
	add_row_text(&p, transfer->source.shown);
	add_row_text(&p, transfer->target.shown);
	add_row_text(&p, transfer->type);
	add_row_int(&p, transfer->batch_size);
	add_row_text(&p, on_error_words[transfer->on_error]);
	add_row_bool(&p, transfer->validate);
	add_row_bool(&p, transfer->switches);
	add_row_text(&p, GetUserNameFromId(GetUserId(), false));
	add_row_int(&p, MyProcPid);
	add_row_value(&p, TIMESTAMPTZOID, TimestampTzGetDatum(transfer_backend_start()), false);
	add_row_text(&p, transfer->source.layout);
	add_row_text(&p, transfer->target.layout);
	add_row_text(&p, transfer->origin);
	add_row_int(&p, transfer->max_tries);
	add_row_value(&p, INTERVALOID, row_interval(transfer->first_delay), false);
	execute_on_row("INSERT INTO sagaz.transfer (operation, source, target, record_type,"
				   " batch_size, on_error, validate, switch, state, phase, started_by, pid,"
				   " backend_start, source_layout, target_layout, origin, max_tries, delay, started_at, updated_at)"
				   " VALUES ($1, $2, $3, $4, $5::pg_catalog.int4, $6, $7, $8, 'running', 'prepare',"
				   " $9, $10::pg_catalog.int4, $11, $12, $13, $14, $15::pg_catalog.int4, $16, pg_catalog.clock_timestamp(),"
				   " pg_catalog.clock_timestamp()) RETURNING transfer_id",
				   &p, SPI_OK_INSERT_RETURNING);
	transfer->id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
											   SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
}

/* What has been done, in text, for the row. */
static Datum
row_done_types(const SagazTransfer *transfer)
{
	const char *words[SAGAZ_EVENT + 1];
	int			count = 0;

	for (int kind = SAGAZ_SAGA; kind <= SAGAZ_EVENT; kind++)
		if (transfer->done[kind])
			words[count++] = sagaz_type_words[kind];
	return sagaz_text_array(words, count);
}

/*
 * Bring the row up to date, in the caller's transaction; notes whether
 * somebody wants the end of it.
 */
void
sagaz_transfer_save(SagazTransfer *transfer)
{
	const SagazCounts *counts = &transfer->counts;
	Parameters	p = {0};
	bool		isnull;

	add_row_int(&p, transfer->id);
	add_row_text(&p, sagaz_phase_words[transfer->phase]);
	add_row_text(&p, sagaz_type_words[transfer->kind]);
	add_row_int(&p, transfer->pass);
	add_row_int(&p, counts->total);
	add_row_int(&p, counts->processed);
	add_row_int(&p, counts->transferred);
	add_row_int(&p, counts->unchanged);
	add_row_int(&p, counts->kept);
	add_row_int(&p, counts->failed);
	add_row_int(&p, counts->skipped);
	add_row_int(&p, counts->removed);
	add_row_text(&p, transfer->last_key);
	add_row_text(&p, transfer->position);
	add_row_text(&p, transfer->verification);
	add_row_text(&p, transfer->complaint);
	add_row_value(&p, TEXTARRAYOID, row_done_types(transfer), false);
	add_row_value(&p, INTERVALOID, row_interval(transfer->elapsed_us + GetCurrentTimestamp() -
												 transfer->began_at), false);
	execute_on_row("UPDATE sagaz.transfer SET phase = $2, current_type = $3,"
				   " pass = $4::pg_catalog.int4, total = $5, processed = $6, transferred = $7,"
				   " unchanged = $8, kept = $9, failed = $10, skipped = $11,"
				   " removed = $12, last_key = $13, \"position\" = $14,"
				   " verification = $15::pg_catalog.jsonb, error = $16, done_types = $17,"
				   " elapsed = $18, updated_at = pg_catalog.clock_timestamp()"
				   " WHERE transfer_id OPERATOR(pg_catalog.=) $1"
				   " RETURNING cancel_requested",
				   &p, SPI_OK_UPDATE_RETURNING);
	transfer->cancelled = SPI_processed == 1 &&
		DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
								   &isnull));
	SPI_finish();
}

/* The transfer has ended, in that state. */
void
sagaz_transfer_close(SagazTransfer *transfer, const char *state,
					 const char *error)
{
	Parameters	p = {0};

	sagaz_transfer_save(transfer);
	add_row_int(&p, transfer->id);
	add_row_text(&p, state);
	add_row_text(&p, error);
	execute_on_row("UPDATE sagaz.transfer SET state = $2, error = $3,"
				   " cancel_requested = false,"
				   " finished_at = pg_catalog.clock_timestamp()"
				   " WHERE transfer_id OPERATOR(pg_catalog.=) $1",
				   &p, SPI_OK_UPDATE);
	SPI_finish();
	transfer->cancelled = false;
	if (strcmp(state, "completed") != 0)
		return;
	p.count = 1;
	execute_on_row("DELETE FROM sagaz.transfer_record"
				   " WHERE transfer_id OPERATOR(pg_catalog.=) $1", &p, SPI_OK_DELETE);
	SPI_finish();
}

/* ---------------------------------------------------------------------- */
/* Going on with one */

static char *
row_text(const char *name)
{
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
						SPI_fnumber(SPI_tuptable->tupdesc, name));
}

static int64
row_int(const char *name)
{
	char	   *text = row_text(name);

	return text ? strtoll(text, NULL, 10) : 0;
}

static bool
row_bool(const char *name)
{
	char	   *text = row_text(name);

	return text && text[0] == 't';
}

static int
row_word(const char *name, const char *const *words, int count)
{
	char	   *text = row_text(name);

	for (int i = 0; i < count; i++)
		if (strcmp(words[i], text) == 0)
			return i;
	elog(ERROR, "column %s of sagaz.transfer holds \"%s\"", name, text);
	return 0;
}

static void
read_row_counts(SagazCounts *counts)
{
	counts->total = row_int("total");
	counts->processed = row_int("processed");
	counts->transferred = row_int("transferred");
	counts->unchanged = row_int("unchanged");
	counts->kept = row_int("kept");
	counts->failed = row_int("failed");
	counts->skipped = row_int("skipped");
	counts->removed = row_int("removed");
}

static void
read_transfer_row(SagazTransfer *transfer)
{
	transfer->is_migration = strcmp(row_text("operation"), "migrate") == 0;
	transfer->source.shown = row_text("source");
	transfer->target.shown = row_text("target");
	transfer->type = row_text("record_type");
	transfer->batch_size = (int) row_int("batch_size");
	transfer->on_error = row_word("on_error", on_error_words, lengthof(on_error_words));
	transfer->max_tries = (int) row_int("max_tries");
	transfer->first_delay = row_int("delay_us");
	transfer->validate = row_bool("validate");
	transfer->switches = row_bool("switch");
	transfer->phase = row_word("phase", sagaz_phase_words, PHASE_DONE + 1);
	transfer->pass = (int) row_int("pass");
	transfer->done[SAGAZ_SAGA] = row_bool("saga_done");
	transfer->done[SAGAZ_EVENT] = row_bool("outbox_done");
	transfer->kind = row_bool("in_outbox") ? SAGAZ_EVENT : SAGAZ_SAGA;
	transfer->last_key = row_text("last_key");
	transfer->position = row_text("position");
	transfer->error = row_text("error");
	transfer->origin = row_text("origin");
	transfer->state = row_text("state");
	/* of a session that is gone */
	if (strcmp(transfer->state, "running") == 0)
		transfer->state = transfer->phase == PHASE_DONE ? "completed" : "failed";
	transfer->elapsed_us = row_int("elapsed_us");
	read_row_counts(&transfer->counts);
}

/* Only one session works at a transfer, and only at one that has not ended well. */
static void
check_row_resumable(int64 id)
{
	char	   *state;

	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_NOT_FOUND),
				 errmsg("transfer " INT64_FORMAT " does not exist", id),
				 errhint("See sagaz.transfers.")));
	state = row_text("state");
	if (strcmp(state, "running") == 0 && row_bool("alive") &&
		row_int("pid") != MyProcPid)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CONCURRENCY),
				 errmsg("transfer " INT64_FORMAT " is running", id),
				 errdetail("It runs in the session with process id " INT64_FORMAT ".",
						   row_int("pid")),
				 errhint("SELECT sagaz.cancel_transfer(" INT64_FORMAT ") ends it.", id)));
}

/* A transfer as its row has it, which is locked; an error if it is running. */
SagazTransfer *
sagaz_transfer_load(int64 id, MemoryContext context)
{
	SagazTransfer *transfer = MemoryContextAllocZero(context, sizeof(SagazTransfer));
	MemoryContext spi;
	Parameters	p = {0};

	transfer->id = id;
	transfer->context = context;
	add_row_int(&p, id);
	execute_on_row("SELECT t.*, 'saga' OPERATOR(pg_catalog.=) ANY (done_types) AS saga_done,"
				   " 'outbox' OPERATOR(pg_catalog.=) ANY (done_types) AS outbox_done,"
				   " current_type OPERATOR(pg_catalog.=) 'outbox' AS in_outbox,"
				   " (EXTRACT(epoch FROM elapsed) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8 AS elapsed_us,"
				   " (EXTRACT(epoch FROM delay) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8 AS delay_us,"
				   " sagaz_internal.transfer_is_alive(pid, backend_start) AS alive"
				   " FROM sagaz.transfer AS t"
				   " WHERE transfer_id OPERATOR(pg_catalog.=) $1 FOR UPDATE",
				   &p, SPI_OK_SELECT);
	check_row_resumable(id);
	spi = MemoryContextSwitchTo(context);
	read_transfer_row(transfer);
	MemoryContextSwitchTo(spi);
	SPI_finish();
	return transfer;
}

/* It is this session that works at it from now on. */
void
sagaz_transfer_take(SagazTransfer *transfer)
{
	Parameters	p = {0};

	add_row_int(&p, transfer->id);
	add_row_int(&p, MyProcPid);
	add_row_value(&p, TIMESTAMPTZOID, TimestampTzGetDatum(transfer_backend_start()), false);
	execute_on_row("UPDATE sagaz.transfer SET state = 'running', pid = $2::pg_catalog.int4,"
				   " backend_start = $3, cancel_requested = false, error = NULL,"
				   " finished_at = NULL, updated_at = pg_catalog.clock_timestamp()"
				   " WHERE transfer_id OPERATOR(pg_catalog.=) $1",
				   &p, SPI_OK_UPDATE);
	SPI_finish();
}

/* ---------------------------------------------------------------------- */
/* Refused records */

/* Keep a record that could not be moved, with the reason. */
void
sagaz_transfer_note_refused(SagazTransfer *transfer, const SagazRecord *record,
							const char *message, int sqlerrcode)
{
	const char *key = sagaz_record_key(record);
	Parameters	p = {0};

	add_row_int(&p, transfer->id);
	add_row_text(&p, sagaz_type_words[record->kind]);
	add_row_text(&p, key ? key : "");
	add_row_value(&p, JSONBOID,
				  record->problem ? (Datum) 0 : JsonbPGetDatum(sagaz_record_to_json(record)),
				  record->problem != NULL);
	add_row_text(&p, message);
	add_row_text(&p, unpack_sql_state(sqlerrcode));
	execute_on_row("INSERT INTO sagaz.transfer_error AS e (transfer_id, record_type,"
				   " record_key, record, message, sqlstate)"
				   " VALUES ($1, $2, $3, $4, $5, $6)"
				   " ON CONFLICT (transfer_id, record_type, record_key) DO UPDATE"
				   " SET record = excluded.record, message = excluded.message,"
				   " sqlstate = excluded.sqlstate, at = excluded.at",
				   &p, SPI_OK_INSERT);
	SPI_finish();
}

/*
 * These are dealt with anew: what was refused before is not known of them any
 * more.  Returns how many were refused.
 */
int64
sagaz_transfer_forget_refused(SagazTransfer *transfer, SagazKind kind,
							  const char *const *keys, int nkeys)
{
	Parameters	p = {0};
	int64		forgotten;

	add_row_int(&p, transfer->id);
	add_row_text(&p, sagaz_type_words[kind]);
	add_row_value(&p, TEXTARRAYOID, sagaz_text_array(keys, nkeys), false);
	execute_on_row("DELETE FROM sagaz.transfer_error"
				   " WHERE transfer_id OPERATOR(pg_catalog.=) $1"
				   " AND record_type OPERATOR(pg_catalog.=) $2"
				   " AND record_key OPERATOR(pg_catalog.=) ANY ($3)",
				   &p, SPI_OK_DELETE);
	forgotten = (int64) SPI_processed;
	SPI_finish();
	return forgotten;
}

/* The keys of the refused records of a kind, as char *. */
List *
sagaz_transfer_refused(SagazTransfer *transfer, SagazKind kind)
{
	MemoryContext caller = CurrentMemoryContext;
	Parameters	p = {0};
	List	   *keys = NIL;

	add_row_int(&p, transfer->id);
	add_row_text(&p, sagaz_type_words[kind]);
	execute_on_row("SELECT record_key FROM sagaz.transfer_error"
				   " WHERE transfer_id OPERATOR(pg_catalog.=) $1"
				   " AND record_type OPERATOR(pg_catalog.=) $2 ORDER BY record_key",
				   &p, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext spi = MemoryContextSwitchTo(caller);

		keys = lappend(keys, SPI_getvalue(SPI_tuptable->vals[i],
										  SPI_tuptable->tupdesc, 1));
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return keys;
}
