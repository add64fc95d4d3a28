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
#include "utils/array.h"
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
 * Run a statement on our tables; its result is in SPI_tuptable until the
 * caller says SPI_finish().
 */
void
sagaz_as_owner(const char *sql, int nargs, Oid *types, Datum *values,
			   const char *nulls, int expected)
{
	SagazUser	user;
	int			result;

	SPI_connect();
	sagaz_become_owner(&user);
	result = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);
	sagaz_become(&user);
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
add(Parameters *parameters, Oid type, Datum value, bool isnull)
{
	Assert(parameters->count < MAX_PARAMETERS);
	parameters->types[parameters->count] = type;
	parameters->values[parameters->count] = value;
	parameters->nulls[parameters->count++] = isnull ? 'n' : ' ';
}

static void
add_text(Parameters *parameters, const char *text)
{
	add(parameters, TEXTOID, text ? CStringGetTextDatum(text) : (Datum) 0, text == NULL);
}

static void
add_int(Parameters *parameters, int64 value)
{
	add(parameters, INT8OID, Int64GetDatum(value), false);
}

static void
add_bool(Parameters *parameters, bool value)
{
	add(parameters, BOOLOID, BoolGetDatum(value), false);
}

static void
execute(const char *sql, Parameters *parameters, int expected)
{
	sagaz_as_owner(sql, parameters->count, parameters->types, parameters->values,
				   parameters->nulls, expected);
}

/* ---------------------------------------------------------------------- */
/* The row */

static TimestampTz
backend_start(void)
{
	return MyBEEntry ? MyBEEntry->st_proc_start_timestamp : MyStartTimestamp;
}

/* Write the row of a transfer that begins; it has its number from then on. */
void
sagaz_transfer_insert(SagazTransfer *transfer)
{
	Parameters	p = {0};
	bool		isnull;

	add_text(&p, transfer->is_migration ? "migrate" : "transfer");
	add_text(&p, transfer->source.shown);
	add_text(&p, transfer->target.shown);
	add_text(&p, transfer->type);
	add_int(&p, transfer->batch_size);
	add_text(&p, on_error_words[transfer->on_error]);
	add_bool(&p, transfer->validate);
	add_bool(&p, transfer->switches);
	add_text(&p, GetUserNameFromId(GetUserId(), false));
	add_int(&p, MyProcPid);
	add(&p, TIMESTAMPTZOID, TimestampTzGetDatum(backend_start()), false);
	add_text(&p, transfer->source.layout);
	add_text(&p, transfer->target.layout);
	execute("INSERT INTO sagaz.transfer (operation, source, target, record_type,"
			" batch_size, on_error, validate, switch, state, phase, started_by, pid,"
			" backend_start, source_layout, target_layout, started_at, updated_at)"
			" VALUES ($1, $2, $3, $4, $5::pg_catalog.int4, $6, $7, $8, 'running', 'prepare',"
			" $9, $10::pg_catalog.int4, $11, $12, $13, pg_catalog.clock_timestamp(),"
			" pg_catalog.clock_timestamp()) RETURNING transfer_id",
			&p, SPI_OK_INSERT_RETURNING);
	transfer->id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
											   SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
}

/* What has been done, in text, for the row. */
static Datum
done_types(const SagazTransfer *transfer)
{
	Datum		words[SAGAZ_EVENT + 1];
	int			count = 0;

	for (int kind = SAGAZ_SAGA; kind <= SAGAZ_EVENT; kind++)
		if (transfer->done[kind])
			words[count++] = CStringGetTextDatum(sagaz_type_words[kind]);
	return PointerGetDatum(construct_array(words, count, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

static Datum
elapsed(const SagazTransfer *transfer)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = transfer->elapsed_us + GetCurrentTimestamp() - transfer->began_at;
	return IntervalPGetDatum(interval);
}

/* Bring the row up to date; notes whether somebody wants the end of it. */
void
sagaz_transfer_save(SagazTransfer *transfer)
{
	const SagazCounts *counts = &transfer->counts;
	Parameters	p = {0};
	bool		isnull;

	add_int(&p, transfer->id);
	add_text(&p, sagaz_phase_words[transfer->phase]);
	add_text(&p, sagaz_type_words[transfer->kind]);
	add_int(&p, transfer->pass);
	add_int(&p, counts->total);
	add_int(&p, counts->processed);
	add_int(&p, counts->transferred);
	add_int(&p, counts->unchanged);
	add_int(&p, counts->kept);
	add_int(&p, counts->failed);
	add_int(&p, counts->skipped);
	add_int(&p, counts->removed);
	add_text(&p, transfer->last_key);
	add_text(&p, transfer->position);
	add_text(&p, transfer->verification);
	add_text(&p, transfer->complaint);
	add(&p, TEXTARRAYOID, done_types(transfer), false);
	add(&p, INTERVALOID, elapsed(transfer), false);
	execute("UPDATE sagaz.transfer SET phase = $2, current_type = $3,"
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
	add_int(&p, transfer->id);
	add_text(&p, state);
	add_text(&p, error);
	execute("UPDATE sagaz.transfer SET state = $2, error = $3,"
			" cancel_requested = false,"
			" finished_at = pg_catalog.clock_timestamp()"
			" WHERE transfer_id OPERATOR(pg_catalog.=) $1",
			&p, SPI_OK_UPDATE);
	SPI_finish();
	transfer->cancelled = false;
	if (strcmp(state, "completed") != 0)
		return;
	p.count = 1;
	execute("DELETE FROM sagaz.transfer_record"
			" WHERE transfer_id OPERATOR(pg_catalog.=) $1", &p, SPI_OK_DELETE);
	SPI_finish();
}

/* ---------------------------------------------------------------------- */
/* Going on with one */

static char *
text_column(const char *name)
{
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
						SPI_fnumber(SPI_tuptable->tupdesc, name));
}

static int64
int_column(const char *name)
{
	char	   *text = text_column(name);

	return text ? strtoll(text, NULL, 10) : 0;
}

static bool
bool_column(const char *name)
{
	char	   *text = text_column(name);

	return text && text[0] == 't';
}

static int
word_column(const char *name, const char *const *words, int count)
{
	char	   *text = text_column(name);

	for (int i = 0; i < count; i++)
		if (strcmp(words[i], text) == 0)
			return i;
	elog(ERROR, "column %s of sagaz.transfer holds \"%s\"", name, text);
	return 0;
}

static void
read_counts(SagazCounts *counts)
{
	counts->total = int_column("total");
	counts->processed = int_column("processed");
	counts->transferred = int_column("transferred");
	counts->unchanged = int_column("unchanged");
	counts->kept = int_column("kept");
	counts->failed = int_column("failed");
	counts->skipped = int_column("skipped");
	counts->removed = int_column("removed");
}

static void
read_row(SagazTransfer *transfer)
{
	transfer->is_migration = strcmp(text_column("operation"), "migrate") == 0;
	transfer->source.shown = text_column("source");
	transfer->target.shown = text_column("target");
	transfer->type = text_column("record_type");
	transfer->batch_size = (int) int_column("batch_size");
	transfer->on_error = word_column("on_error", on_error_words, lengthof(on_error_words));
	transfer->validate = bool_column("validate");
	transfer->switches = bool_column("switch");
	transfer->phase = word_column("phase", sagaz_phase_words, PHASE_DONE + 1);
	transfer->pass = (int) int_column("pass");
	transfer->done[SAGAZ_SAGA] = bool_column("saga_done");
	transfer->done[SAGAZ_EVENT] = bool_column("outbox_done");
	transfer->kind = bool_column("in_outbox") ? SAGAZ_EVENT : SAGAZ_SAGA;
	transfer->last_key = text_column("last_key");
	transfer->position = text_column("position");
	transfer->error = text_column("error");
	transfer->state = text_column("state");
	/* of a session that is gone */
	if (strcmp(transfer->state, "running") == 0)
		transfer->state = transfer->phase == PHASE_DONE ? "completed" : "failed";
	transfer->elapsed_us = int_column("elapsed_us");
	read_counts(&transfer->counts);
}

/* Only one session works at a transfer, and only at one that has not ended well. */
static void
check_resumable(int64 id)
{
	char	   *state;

	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_NOT_FOUND),
				 errmsg("transfer " INT64_FORMAT " does not exist", id),
				 errhint("See sagaz.transfers.")));
	state = text_column("state");
	if (strcmp(state, "running") == 0 && bool_column("alive") &&
		int_column("pid") != MyProcPid)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CONCURRENCY),
				 errmsg("transfer " INT64_FORMAT " is running", id),
				 errdetail("It runs in the session with process id " INT64_FORMAT ".",
						   int_column("pid")),
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
	add_int(&p, id);
	execute("SELECT t.*, 'saga' OPERATOR(pg_catalog.=) ANY (done_types) AS saga_done,"
			" 'outbox' OPERATOR(pg_catalog.=) ANY (done_types) AS outbox_done,"
			" current_type OPERATOR(pg_catalog.=) 'outbox' AS in_outbox,"
			" (EXTRACT(epoch FROM elapsed) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8 AS elapsed_us,"
			" sagaz_internal.transfer_is_alive(pid, backend_start) AS alive"
			" FROM sagaz.transfer AS t"
			" WHERE transfer_id OPERATOR(pg_catalog.=) $1 FOR UPDATE",
			&p, SPI_OK_SELECT);
	check_resumable(id);
	spi = MemoryContextSwitchTo(context);
	read_row(transfer);
	MemoryContextSwitchTo(spi);
	SPI_finish();
	return transfer;
}

/* It is this session that works at it from now on. */
void
sagaz_transfer_take(SagazTransfer *transfer)
{
	Parameters	p = {0};

	add_int(&p, transfer->id);
	add_int(&p, MyProcPid);
	add(&p, TIMESTAMPTZOID, TimestampTzGetDatum(backend_start()), false);
	execute("UPDATE sagaz.transfer SET state = 'running', pid = $2::pg_catalog.int4,"
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

	add_int(&p, transfer->id);
	add_text(&p, sagaz_type_words[record->kind]);
	add_text(&p, key ? key : "");
	add(&p, JSONBOID,
		record->problem ? (Datum) 0 : JsonbPGetDatum(sagaz_record_to_json(record)),
		record->problem != NULL);
	add_text(&p, message);
	add_text(&p, unpack_sql_state(sqlerrcode));
	execute("INSERT INTO sagaz.transfer_error AS e (transfer_id, record_type,"
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
	Datum	   *values = palloc((nkeys + 1) * sizeof(Datum));
	Parameters	p = {0};
	int64		forgotten;

	for (int i = 0; i < nkeys; i++)
		values[i] = CStringGetTextDatum(keys[i]);
	add_int(&p, transfer->id);
	add_text(&p, sagaz_type_words[kind]);
	add(&p, TEXTARRAYOID,
		PointerGetDatum(construct_array(values, nkeys, TEXTOID, -1, false, TYPALIGN_INT)),
		false);
	execute("DELETE FROM sagaz.transfer_error"
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

	add_int(&p, transfer->id);
	add_text(&p, sagaz_type_words[kind]);
	execute("SELECT record_key FROM sagaz.transfer_error"
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
