/*
 * transfer_verify.c
 *		Comparing both sides of a transfer, in normal form.
 *
 * Each side is read once.  Its records' keys and digests go through a sort
 * that spills to disk, so that memory stays bounded; then the two are merged.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/tuplesort.h"
#include "utils/typcache.h"

#include "backends/record/record.h"
#include "transfer/transfer.h"

#define SHOWN_KEYS 20
/* More differing keys than this are only counted. */
#define KNOWN_KEYS 100000

/* How far an event is, as far as it matters who is ahead. */
enum
{
	AT_REST,
	IS_CLAIMED,
	IS_SENT
};

/* columns of the sort */
enum
{
	side_key = 1,
	side_digest,
	side_progress
};

typedef struct Side
{
	int64		count;
	SagazDigest sum;
	Tuplesortstate *sort;
	TupleTableSlot *slot;
	bool		at_end;
} Side;

typedef struct Comparison
{
	int64		missing;
	int64		different;
	int64		ahead;
	int64		only_in_target;
	int64		refused;		/* of the missing and different ones */
	List	   *keys;			/* of those */
} Comparison;

static TupleDesc
verify_columns(void)
{
	TupleDesc	columns = CreateTemplateTupleDesc(side_progress);

	TupleDescInitEntry(columns, side_key, "key", TEXTOID, -1, 0);
	TupleDescInitEntry(columns, side_digest, "digest", BYTEAOID, -1, 0);
	TupleDescInitEntry(columns, side_progress, "progress", INT4OID, -1, 0);
	return columns;
}

static void
begin_verify_side(Side *side)
{
	TupleDesc	columns = verify_columns();
	AttrNumber	sort_column = side_key;
	Oid			less = lookup_type_cache(TEXTOID, TYPECACHE_LT_OPR)->lt_opr;
	Oid			collation = C_COLLATION_OID;
	bool		nulls_first = false;

	memset(side, 0, sizeof(Side));
	side->sort = tuplesort_begin_heap(columns, 1, &sort_column, &less, &collation,
									  &nulls_first, work_mem, NULL, 0);
	side->slot = MakeSingleTupleTableSlot(columns, &TTSOpsMinimalTuple);
}

static int
verify_progress_of(const SagazRecord *record)
{
	if (record->kind == SAGAZ_SAGA)
		return AT_REST;
	return strcmp(record->event.status, "sent") == 0 ? IS_SENT :
		strcmp(record->event.status, "claimed") == 0 ? IS_CLAIMED : AT_REST;
}

static void
add_record_to_verify(Side *side, TupleTableSlot *slot, const SagazRecord *record)
{
	SagazDigest digest;
	bytea	   *bytes = palloc(VARHDRSZ + SAGAZ_DIGEST_SIZE);

	sagaz_digest(record, &digest);
	sagaz_digest_add(&side->sum, &digest);
	SET_VARSIZE(bytes, VARHDRSZ + SAGAZ_DIGEST_SIZE);
	memcpy(VARDATA(bytes), digest.bytes, SAGAZ_DIGEST_SIZE);
	ExecClearTuple(slot);
	memset(slot->tts_isnull, 0, side_progress * sizeof(bool));
	slot->tts_values[side_key - 1] = CStringGetTextDatum(sagaz_record_key(record));
	slot->tts_values[side_digest - 1] = PointerGetDatum(bytes);
	slot->tts_values[side_progress - 1] = Int32GetDatum(verify_progress_of(record));
	ExecStoreVirtualTuple(slot);
	tuplesort_puttupleslot(side->sort, slot);
}

/* Read a side; what cannot be read is counted and no more. */
static void
read_verify_side(SagazSide *end, SagazKind kind, Side *side)
{
	SagazStore *store = sagaz_end_open(end, kind);
	SagazFilter filter = {0};
	MemoryContext part = AllocSetContextCreate(CurrentMemoryContext,
											   "sagaz side", ALLOCSET_DEFAULT_SIZES);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(verify_columns(), &TTSOpsVirtual);
	SagazReader *reader;
	MemoryContext outer;
	SagazRecord record;

	if (end->is_native)
		PushActiveSnapshot(GetTransactionSnapshot());
	reader = sagaz_store_read_begin(store, kind, &filter);
	outer = MemoryContextSwitchTo(part);
	while (sagaz_store_read_next(reader, &record))
	{
		CHECK_FOR_INTERRUPTS();
		side->count++;
		if (record.problem == NULL)
			add_record_to_verify(side, slot, &record);
		MemoryContextReset(part);
	}
	MemoryContextSwitchTo(outer);
	sagaz_store_read_end(reader);
	if (end->is_native)
		PopActiveSnapshot();
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(part);
	tuplesort_performsort(side->sort);
}

static void
advance_verify(Side *side)
{
	side->at_end = !tuplesort_gettupleslot(side->sort, true, false, side->slot, NULL);
	if (!side->at_end)
		slot_getallattrs(side->slot);
}

static char *
verify_key_of(const Side *side)
{
	return TextDatumGetCString(side->slot->tts_values[side_key - 1]);
}

static int
verify_progress_at(const Side *side)
{
	return DatumGetInt32(side->slot->tts_values[side_progress - 1]);
}

static bool
verify_same_digest(const Side *a, const Side *b)
{
	return memcmp(VARDATA_ANY(DatumGetPointer(a->slot->tts_values[side_digest - 1])),
				  VARDATA_ANY(DatumGetPointer(b->slot->tts_values[side_digest - 1])),
				  SAGAZ_DIGEST_SIZE) == 0;
}

/* Is the key among the refused ones, which are sorted? */
static bool
verify_is_refused(char *const *refused, int count, const char *key)
{
	int			low = 0;
	int			high = count;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;
		int			order = strcmp(refused[middle], key);

		if (order == 0)
			return true;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

static int
compare_verify_keys(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

static void
verify_note_differing(Comparison *result, char *key, char *const *refused, int nrefused)
{
	if (verify_is_refused(refused, nrefused, key))
		result->refused++;
	else if (list_length(result->keys) < KNOWN_KEYS)
		result->keys = lappend(result->keys, key);
}

/* Go through both sides by key. */
static void
verify_sides(Side *source, Side *target, List *refused_keys, Comparison *result)
{
	int			nrefused = list_length(refused_keys);
	char	  **refused = palloc((nrefused + 1) * sizeof(char *));

	list_sort(refused_keys, compare_verify_keys);
	for (int i = 0; i < nrefused; i++)
		refused[i] = list_nth(refused_keys, i);
	advance_verify(source);
	advance_verify(target);
	while (!source->at_end || !target->at_end)
	{
		int			order = source->at_end ? 1 : target->at_end ? -1 :
			strcmp(verify_key_of(source), verify_key_of(target));

		CHECK_FOR_INTERRUPTS();
		if (order > 0)
			result->only_in_target++;
		else if (order < 0)
		{
			result->missing++;
			verify_note_differing(result, verify_key_of(source), refused, nrefused);
		}
		else if (!verify_same_digest(source, target))
		{
			if (verify_progress_at(target) == IS_SENT ||
				(verify_progress_at(target) == IS_CLAIMED && verify_progress_at(source) != IS_SENT))
				result->ahead++;
			else
			{
				result->different++;
				verify_note_differing(result, verify_key_of(source), refused, nrefused);
			}
		}
		if (order <= 0)
			advance_verify(source);
		if (order >= 0)
			advance_verify(target);
	}
}

static void
push_verify_result(JsonbParseState **state, SagazKind kind, const Side *source,
				   const Side *target, const Comparison *result)
{
	sagaz_json_push_key(state, sagaz_type_words[kind]);
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	sagaz_json_push_int(state, "source_count", source->count);
	sagaz_json_push_int(state, "target_count", target->count);
	sagaz_json_push_string(state, "source_checksum", sagaz_digest_text(&source->sum));
	sagaz_json_push_string(state, "target_checksum", sagaz_digest_text(&target->sum));
	sagaz_json_push_int(state, "missing", result->missing);
	sagaz_json_push_int(state, "different", result->different);
	sagaz_json_push_int(state, "ahead", result->ahead);
	sagaz_json_push_int(state, "refused", result->refused);
	sagaz_json_push_int(state, "only_in_target", result->only_in_target);
	sagaz_json_push_key(state, "keys");
	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < Min(list_length(result->keys), SHOWN_KEYS); i++)
	{
		char	   *key = list_nth(result->keys, i);
		JsonbValue	value;

		value.type = jbvString;
		value.val.string.val = key;
		value.val.string.len = strlen(key);
		pushJsonbValue(state, WJB_ELEM, &value);
	}
	pushJsonbValue(state, WJB_END_ARRAY, NULL);
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static void
verify_kind(SagazTransfer *transfer, SagazKind kind, JsonbParseState **state)
{
	Side		source;
	Side		target;
	Comparison	result = {0};
	ListCell   *cell;
	MemoryContext outer;

	begin_verify_side(&source);
	begin_verify_side(&target);
	sagaz_end_check_origin(transfer);
	read_verify_side(&transfer->source, kind, &source);
	sagaz_end_check_held(transfer, transfer->totals[kind], source.count);
	read_verify_side(&transfer->target, kind, &target);
	if (source.count != target.count ||
		memcmp(&source.sum, &target.sum, sizeof(SagazDigest)) != 0)
		verify_sides(&source, &target, sagaz_transfer_refused(transfer, kind), &result);
	push_verify_result(state, kind, &source, &target, &result);
	outer = MemoryContextSwitchTo(transfer->context);
	foreach(cell, result.keys)
		transfer->differing[kind] = lappend(transfer->differing[kind], pstrdup(lfirst(cell)));
	MemoryContextSwitchTo(outer);
	ExecDropSingleTupleTableSlot(source.slot);
	ExecDropSingleTupleTableSlot(target.slot);
	tuplesort_end(source.sort);
	tuplesort_end(target.sort);
}

static void
verify_by_comparing(SagazTransfer *transfer)
{
	MemoryContext part = AllocSetContextCreate(transfer->context, "sagaz verify",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(part);
	JsonbParseState *state = NULL;
	Jsonb	   *json;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (SagazKind kind = SAGAZ_SAGA; kind <= SAGAZ_EVENT; kind++)
	{
		list_free_deep(transfer->differing[kind]);
		transfer->differing[kind] = NIL;
		if (sagaz_transfer_has(transfer, kind))
			verify_kind(transfer, kind, &state);
	}
	json = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	MemoryContextSwitchTo(transfer->context);
	transfer->verification = JsonbToCString(NULL, &json->root, VARSIZE(json));
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(part);
	sagaz_transfer_save(transfer);
}

/*
 * Compare both sides, and write down what was found.  True if every record of
 * the source that was not refused is in the target, as it is or further on.
 */
bool
sagaz_transfer_verify(SagazTransfer *transfer)
{
	transfer->phase = PHASE_VERIFY;
	sagaz_transfer_insist(transfer, verify_by_comparing);
	return transfer->differing[SAGAZ_SAGA] == NIL &&
		transfer->differing[SAGAZ_EVENT] == NIL;
}
