/*
 * transfer_check.c
 *		validate_transfer(): what would be in the way of a transfer.
 */
#include "lib/sagaz.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "backends/record/record.h"
#include "storage/secrets.h"
#include "transfer/transfer.h"

#define SAMPLES 5
/* Records of a round trip, as with the usual batch. */
#define CHECK_CHUNK 500

typedef struct Findings
{
	JsonbParseState *issues;
	bool		compatible;
	List	   *faults;			/* texts of those that were said */
	int64		read;			/* records of the source */
	int64		waiting;		/* events among them that are to be delivered */
} Findings;

/* Records of a kind that have one thing in common. */
typedef struct Problem
{
	int64		count;
	char	   *first;			/* why the first of them is refused */
	List	   *samples;
} Problem;

static void
begin_check_issue(Findings *findings, const char *severity, const char *code,
				  const char *message)
{
	if (strcmp(severity, "error") == 0)
		findings->compatible = false;
	pushJsonbValue(&findings->issues, WJB_BEGIN_OBJECT, NULL);
	sagaz_json_push_string(&findings->issues, "severity", severity);
	sagaz_json_push_string(&findings->issues, "code", code);
	sagaz_json_push_string(&findings->issues, "message", message);
}

static void
add_check_issue(Findings *findings, const char *severity, const char *code,
				const char *message)
{
	begin_check_issue(findings, severity, code, message);
	pushJsonbValue(&findings->issues, WJB_END_OBJECT, NULL);
}

static void
add_check_problem(Findings *findings, SagazKind kind, const char *code,
				  const Problem *problem)
{
	ListCell   *cell;

	if (problem->count == 0)
		return;
	begin_check_issue(findings, "error", code, problem->first);
	sagaz_json_push_string(&findings->issues, "record_type", sagaz_type_words[kind]);
	sagaz_json_push_int(&findings->issues, "count", problem->count);
	sagaz_json_push_key(&findings->issues, "samples");
	pushJsonbValue(&findings->issues, WJB_BEGIN_ARRAY, NULL);
	foreach(cell, problem->samples)
	{
		JsonbValue	value;

		value.type = jbvString;
		value.val.string.val = lfirst(cell);
		value.val.string.len = strlen(lfirst(cell));
		pushJsonbValue(&findings->issues, WJB_ELEM, &value);
	}
	pushJsonbValue(&findings->issues, WJB_END_ARRAY, NULL);
	pushJsonbValue(&findings->issues, WJB_END_OBJECT, NULL);
}

/* The problem lasts as long as "kept". */
static void
count_check_problem(Problem *problem, const SagazRecord *record, const char *why,
					MemoryContext kept)
{
	MemoryContext outer = MemoryContextSwitchTo(kept);
	const char *key = sagaz_record_key(record);

	if (problem->count++ == 0)
		problem->first = pstrdup(why);
	if (list_length(problem->samples) < SAMPLES)
		problem->samples = lappend(problem->samples, pstrdup(key ? key : ""));
	MemoryContextSwitchTo(outer);
}

static void
count_checked_record(Findings *findings, const SagazRecord *record)
{
	findings->read++;
	if (record->kind == SAGAZ_EVENT && record->problem == NULL &&
		strcmp(record->event.status, "sent") != 0 &&
		strcmp(record->event.status, "dead_letter") != 0)
		findings->waiting++;
}

/* Is there a record that the target could not take, or the source not give? */
static void
step_of_reading(SagazTransfer *transfer)
{
	SagazKind	kind = transfer->kind;
	SagazStore *source = sagaz_end_open(&transfer->source, kind);
	SagazStore *target = sagaz_end_open(&transfer->target, kind);
	SagazFilter filter = {.order = SAGAZ_FOR_COPY,.chunk = CHECK_CHUNK};
	MemoryContext kept = CurrentMemoryContext;
	MemoryContext part = AllocSetContextCreate(kept, "sagaz validation",
											   ALLOCSET_DEFAULT_SIZES);
	Problem		unreadable = {0};
	Problem		unfit = {0};
	SagazReader *reader;
	SagazRecord record;

	if (transfer->source.is_native)
		PushActiveSnapshot(GetTransactionSnapshot());
	reader = sagaz_store_read_begin(source, kind, &filter);
	MemoryContextSwitchTo(part);
	while (sagaz_store_read_next(reader, &record))
	{
		char	   *why;

		CHECK_FOR_INTERRUPTS();
		count_checked_record(transfer->findings, &record);
		if (record.problem)
			count_check_problem(&unreadable, &record, record.problem, kept);
		else if ((why = target->backend->unfit(target, &record)) != NULL)
			count_check_problem(&unfit, &record, why, kept);
		MemoryContextReset(part);
	}
	MemoryContextSwitchTo(kept);
	sagaz_store_read_end(reader);
	MemoryContextDelete(part);
	if (transfer->source.is_native)
		PopActiveSnapshot();
	add_check_problem(transfer->findings, kind, "unreadable", &unreadable);
	add_check_problem(transfer->findings, kind, "unfit", &unfit);
}

/* Undo everything, also the tables that were made for the first record. */
static SagazVerdict
go_no_further(SagazRecord *record, bool exists, void *arg)
{
	((SagazTransfer *) arg)->at_end = true;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_TRANSFER),
			 errmsg("the target can be written to")));
}

/*
 * Get as far as one can get with writing without writing anything, nor making
 * files or tables that stay.  Who may write to tables of sagaz, it decides
 * itself.
 */
static void
try_to_write(SagazTransfer *transfer, SagazKind kind)
{
	SagazStore *store = sagaz_end_open(&transfer->target, kind);
	SagazFilter filter = {.key = "00000000-0000-0000-0000-000000000000"};

	if (sagaz_store_can(store, SAGAZ_TAKES_EDITS) &&
		strcmp(transfer->target.layout, "empty") != 0)
		(void) sagaz_edit(store, kind, &filter, true, go_no_further, transfer);
}

static void
look_at_target(SagazTransfer *transfer)
{
	SagazStore *store = sagaz_end_open(&transfer->target, transfer->kind);

	store->only_looks = true;
	PG_TRY();
	{
		sagaz_end_look(&transfer->target, transfer->kind);
		try_to_write(transfer, transfer->kind);
	}
	PG_FINALLY();
	{
		store->only_looks = false;
	}
	PG_END_TRY();
}

static void
step_of_finding(SagazTransfer *transfer)
{
	MemoryContext outer = MemoryContextSwitchTo(transfer->context);

	sagaz_end_find(transfer->checked, transfer->checked->role, transfer->checked->name);
	MemoryContextSwitchTo(outer);
}

static void
step_of_looking(SagazTransfer *transfer)
{
	if (transfer->checked == &transfer->target)
		look_at_target(transfer);
	else
		sagaz_end_look(transfer->checked, transfer->kind);
}

static bool
was_fault_said(Findings *findings, char *text)
{
	ListCell   *cell;

	foreach(cell, findings->faults)
		if (strcmp(lfirst(cell), text) == 0)
			return true;
	findings->faults = lappend(findings->faults, text);
	return false;
}

/*
 * What hinders a target is an error, what may hinder later a warning; nobody
 * writes to the source.
 */
static void
step_of_examining(SagazTransfer *transfer)
{
	SagazStore *store = sagaz_end_open(transfer->checked, transfer->kind);
	bool		is_target = transfer->checked == &transfer->target;
	ListCell   *cell;

	foreach(cell, store->backend->examine(store, transfer->kind))
	{
		const SagazFault *fault = lfirst(cell);
		char	   *text = psprintf("%s: %s", transfer->checked->role, fault->text);

		if ((is_target || !fault->stops_writes) && !was_fault_said(transfer->findings, text))
			add_check_issue(transfer->findings,
							fault->stops_writes ? "error" : "warning", "storage", text);
	}
}

/* Has the target room for what waits in the source?  Some may be there already. */
static void
step_of_measuring(SagazTransfer *transfer)
{
	SagazStore *store = sagaz_end_open(&transfer->target, SAGAZ_EVENT);
	int64		source = transfer->findings->waiting;
	int64		there;
	int64		most = store->backend->room ? store->backend->room(store, &there) : 0;

	if (most > 0 && source + there > most)
		add_check_issue(transfer->findings, source > most ? "error" : "warning", "room",
						psprintf("target: it takes " INT64_FORMAT " events that wait, has " INT64_FORMAT ", and the source has " INT64_FORMAT,
								 most, there, source));
}

/* What was said of an end is a finding, but for words that name nothing. */
static bool
check_is_well(SagazTransfer *transfer, SagazSide *end, SagazStep step)
{
	ErrorData  *error;

	transfer->checked = end;
	transfer->at_end = false;
	error = sagaz_transfer_attempt(transfer, step);
	if (error == NULL || transfer->at_end)
		return true;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
		error->sqlerrcode == ERRCODE_SAGAZ_NOT_FOUND ||
		error->sqlerrcode == ERRCODE_SAGAZ_INPUT)
		ReThrowError(error);
	add_check_issue(transfer->findings, "error",
					error->sqlerrcode == ERRCODE_SAGAZ_CONNECTION ? "unreachable" :
					error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE ? "privilege" : "storage",
					psprintf("%s: %s", end->role, sagaz_error_text(error)));
	return false;
}

static bool
check_sides(SagazTransfer *transfer)
{
	bool		source = check_is_well(transfer, &transfer->source, step_of_finding);
	bool		target = check_is_well(transfer, &transfer->target, step_of_finding);

	return source && target;
}

static void
check_kind_of_records(SagazTransfer *transfer, SagazKind kind)
{
	bool		source;
	bool		target;

	transfer->kind = kind;
	source = check_is_well(transfer, &transfer->source, step_of_looking);
	target = check_is_well(transfer, &transfer->target, step_of_looking);
	if (!source || !target)
		return;
	(void) check_is_well(transfer, &transfer->source, step_of_examining);
	(void) check_is_well(transfer, &transfer->target, step_of_examining);
	if (check_is_well(transfer, &transfer->source, step_of_reading) && kind == SAGAZ_EVENT)
		(void) check_is_well(transfer, &transfer->target, step_of_measuring);
}

/* What nobody may have meant. */
static void
check_what_source_is(const SagazTransfer *transfer, Findings *findings)
{
	if (findings->read == 0)
		add_check_issue(findings, "warning", "empty", "source: it holds nothing");
	else if (!transfer->source.is_native &&
			 (transfer->source.storage.backend->capabilities & SAGAZ_RECORDS_EXPIRE))
		add_check_issue(findings, "warning", "time_to_live",
						"source: times to live are not copied; saga_ttl and event_ttl of the target count");
}

/* Only migrate(switch => true) would meet it; ends with URLs it cannot be meant for. */
static void
check_switch(const SagazTransfer *transfer, Findings *findings)
{
	char	   *problem;

	if (strcmp(transfer->type, "both") != 0 ||
		strstr(transfer->source.name, "://") || strstr(transfer->target.name, "://"))
		return;
	problem = sagaz_switch_problem(transfer);
	if (problem)
		add_check_issue(findings, "warning", "switch",
						psprintf("migrate() could not switch: %s", problem));
}

static void
check_transfer(SagazTransfer *transfer, Findings *findings)
{
	if (!check_sides(transfer))
		return;
	for (SagazKind kind = SAGAZ_SAGA; kind <= SAGAZ_EVENT; kind++)
		if (sagaz_transfer_has(transfer, kind))
			check_kind_of_records(transfer, kind);
	if (!findings->compatible)
		return;
	if (sagaz_ends_are_same(transfer))
		add_check_issue(findings, "error", "same_storage",
						"source and target are the same storage");
	if (!transfer->target.is_native &&
		(transfer->target.storage.backend->capabilities & SAGAZ_OUTLIVES_SESSION) == 0)
		add_check_issue(findings, "warning", "not_durable",
						"what the target holds goes with this session");
	check_what_source_is(transfer, findings);
	check_switch(transfer, findings);
}

/* validate_transfer(source, target, type) */
static Datum
validate_transfer(FunctionCallInfo fcinfo)
{
	SagazTransfer transfer = {.context = CurrentMemoryContext,.atomic = true};
	Findings	findings = {.compatible = true};
	TupleDesc	row_type;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (get_call_result_type(fcinfo, NULL, &row_type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	transfer.type = sagaz_text_argument(fcinfo, 2, "type");
	if (strcmp(transfer.type, "both") != 0)
		(void) sagaz_record_kind(transfer.type);
	transfer.source.role = "source";
	transfer.source.name = sagaz_text_argument(fcinfo, 0, "source");
	transfer.target.role = "target";
	transfer.target.name = sagaz_text_argument(fcinfo, 1, "target");
	transfer.findings = &findings;
	pushJsonbValue(&findings.issues, WJB_BEGIN_ARRAY, NULL);
	check_transfer(&transfer, &findings);
	values[0] = BoolGetDatum(findings.compatible);
	values[1] = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&findings.issues,
																WJB_END_ARRAY, NULL)));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(row_type),
													  values, nulls)));
}

SAGAZ_SQL_FUNCTION(sagaz_validate_transfer, sagaz_secrets_hide_statement,
				   validate_transfer);
