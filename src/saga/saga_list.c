/*
 * saga_list.c
 *		list_sagas() and stuck_sagas(): one row a saga.
 *
 * Indexes are named here and not left to the planner: each has the sagas of
 * one status, or of one name and status, in the order of their creation, so
 * that a page of the newest is read off the ends of a few such runs.  A name
 * is looked for among the distinct names, one index probe each.
 */
#include "lib/sagaz.h"

#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/formatting.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "lib/rows.h"
#include "saga/saga.h"
#include "lib/tuples.h"

PG_FUNCTION_INFO_V1(sagaz_list_sagas);
PG_FUNCTION_INFO_V1(sagaz_stuck_sagas);

typedef struct Summary
{
	text	   *saga_id;
	text	   *saga_name;
	Oid			status;
	TimestampTz created_at;
	TimestampTz updated_at;
} Summary;

/*
 * The rows found so far.  No more than twice the limit is kept: then they are
 * sorted and those past the limit dropped.
 */
typedef struct Selection
{
	Snapshot	snapshot;
	int			(*compare) (const void *a, const void *b);
	int64		limit;
	int64		count;
	int64		room;
	Summary    *rows;
	bool		full;			/* limit reached; then this is */
	TimestampTz oldest;			/* when the last of them was created */
} Selection;

/* columns of type sagaz.saga_summary */
enum summary_column
{
	summary_saga_id,
	summary_saga_name,
	summary_status,
	summary_created_at,
	summary_updated_at,
	summary_step_count,
	summary_completed_steps,
	summary_columns
};

static int
compare_listed_ids(const Summary *a, const Summary *b)
{
	Size		a_size = VARSIZE_ANY_EXHDR(a->saga_id);
	Size		b_size = VARSIZE_ANY_EXHDR(b->saga_id);
	int			order = memcmp(VARDATA_ANY(a->saga_id),
							   VARDATA_ANY(b->saga_id), Min(a_size, b_size));

	if (order != 0)
		return order;
	return a_size < b_size ? -1 : a_size > b_size;
}

static int
list_newest_created_first(const void *a, const void *b)
{
	const Summary *left = a;
	const Summary *right = b;

	if (left->created_at != right->created_at)
		return left->created_at > right->created_at ? -1 : 1;
	return compare_listed_ids(left, right);
}

static int
list_oldest_updated_first(const void *a, const void *b)
{
	const Summary *left = a;
	const Summary *right = b;

	if (left->updated_at != right->updated_at)
		return left->updated_at < right->updated_at ? -1 : 1;
	return compare_listed_ids(left, right);
}

/* Sort what was found and drop what is past the limit. */
static void
cut_list(Selection *selection)
{
	qsort(selection->rows, selection->count, sizeof(Summary),
		  selection->compare);
	while (selection->count > selection->limit)
	{
		Summary    *last = &selection->rows[--selection->count];

		pfree(last->saga_id);
		pfree(last->saga_name);
	}
	selection->full = selection->count == selection->limit;
	if (selection->full)
		selection->oldest = selection->rows[selection->count - 1].created_at;
}

static void
add_to_list(Selection *selection, TupleTableSlot *slot)
{
	Summary    *row;

	if (selection->count == selection->room)
	{
		selection->room = Max(64, selection->room * 2);
		selection->rows = selection->rows == NULL ?
			palloc(selection->room * sizeof(Summary)) :
			repalloc_huge(selection->rows, selection->room * sizeof(Summary));
	}
	row = &selection->rows[selection->count++];
	row->saga_id = DatumGetTextPCopy(sagaz_column(slot, saga_saga_id));
	row->saga_name = DatumGetTextPCopy(sagaz_column(slot, saga_saga_name));
	row->status = DatumGetObjectId(sagaz_column(slot, saga_status));
	row->created_at = DatumGetTimestampTz(sagaz_column(slot, saga_created_at));
	row->updated_at = DatumGetTimestampTz(sagaz_column(slot, saga_updated_at));

	if (selection->count == (selection->full ? 2 : 1) * selection->limit)
		cut_list(selection);
}

static void
saga_status_key(ScanKey key, int attnum, Oid status)
{
	ScanKeyInit(key, attnum, BTEqualStrategyNumber, F_ENUM_EQ,
				ObjectIdGetDatum(status));
}

/* Find the newest in a run of an index that ends with created_at. */
static void
list_newest(Selection *selection, const char *index, ScanKey keys, int nkeys)
{
	SagazScan  *scan = sagaz_scan_begin("sagas", index, selection->snapshot,
										keys, nkeys, BackwardScanDirection);

	while (sagaz_scan_next(scan))
	{
		CHECK_FOR_INTERRUPTS();
		if (selection->full &&
			DatumGetTimestampTz(sagaz_column(scan->slot, saga_created_at)) <
			selection->oldest)
			break;
		add_to_list(selection, scan->slot);
	}
	sagaz_scan_end(scan);
}

static void
list_by_status(Selection *selection, const Oid *statuses, int count)
{
	ScanKeyData key;

	for (int i = 0; i < count; i++)
	{
		saga_status_key(&key, 1, statuses[i]);
		list_newest(selection, "sagas_status", &key, 1);
	}
}

/* Whether the name has in it the pattern, which is in lower case. */
static bool
saga_name_matches(Datum name, const char *pattern)
{
	text	   *packed = DatumGetTextPP(name);
	char	   *lower = str_tolower(VARDATA_ANY(packed),
									VARSIZE_ANY_EXHDR(packed),
									DEFAULT_COLLATION_OID);
	bool		matches = strstr(lower, pattern) != NULL;

	pfree(lower);
	return matches;
}

static void
list_by_name(Selection *selection, const char *pattern, const Oid *statuses,
			 int count)
{
	Datum		name = PointerGetDatum(cstring_to_text(""));
	ScanKeyData after;
	ScanKeyData keys[2];
	SagazScan  *names;

	ScanKeyInit(&after, 1, BTGreaterStrategyNumber, F_TEXT_GT, name);
	after.sk_collation = DEFAULT_COLLATION_OID;
	names = sagaz_scan_begin("sagas", "sagas_name", selection->snapshot,
							 &after, 1, ForwardScanDirection);
	while (sagaz_scan_next(names))
	{
		CHECK_FOR_INTERRUPTS();
		pfree(DatumGetPointer(name));
		name = datumCopy(sagaz_column(names->slot, saga_saga_name), false, -1);
		if (saga_name_matches(name, pattern))
		{
			sagaz_key_text(&keys[0], 1, name);
			for (int i = 0; i < count; i++)
			{
				saga_status_key(&keys[1], 2, statuses[i]);
				list_newest(selection, "sagas_name", keys, 2);
			}
		}
		after.sk_argument = name;
		sagaz_scan_again(names, &after, 1);
	}
	sagaz_scan_end(names);
}

/* Count the steps of a saga, and those completed of them. */
static void
count_saga_steps(Snapshot snapshot, Datum saga_id, Oid completed, Datum *values)
{
	ScanKeyData key;
	SagazScan  *scan;
	int			all = 0;
	int			done = 0;

	sagaz_key_text(&key, 1, saga_id);
	scan = sagaz_scan_begin("saga_steps", "saga_steps_pkey", snapshot, &key, 1,
							ForwardScanDirection);
	while (sagaz_scan_next(scan))
	{
		all++;
		if (DatumGetObjectId(sagaz_column(scan->slot, step_status)) ==
			completed)
			done++;
	}
	sagaz_scan_end(scan);
	values[summary_step_count] = Int32GetDatum(all);
	values[summary_completed_steps] = Int32GetDatum(done);
}

/* Return what was found, in order, from row number skip on. */
static void
return_listed(FunctionCallInfo fcinfo, Selection *selection, int64 skip)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			completed = saga_status_word_oid(&step_statuses, "completed");
	Datum		values[summary_columns];
	bool		nulls[summary_columns] = {0};

	sagaz_rows_begin(fcinfo);
	if (selection->count > 0)
		cut_list(selection);
	for (int64 i = skip; i < selection->count; i++)
	{
		Summary    *row = &selection->rows[i];

		CHECK_FOR_INTERRUPTS();
		values[summary_saga_id] = PointerGetDatum(row->saga_id);
		values[summary_saga_name] = PointerGetDatum(row->saga_name);
		values[summary_status] = ObjectIdGetDatum(row->status);
		values[summary_created_at] = TimestampTzGetDatum(row->created_at);
		values[summary_updated_at] = TimestampTzGetDatum(row->updated_at);
		count_saga_steps(selection->snapshot, values[summary_saga_id], completed,
						 values);
		tuplestore_putvalues(result->setResult, result->setDesc, values,
							 nulls);
	}
}

/* The status to look for, or all of them; returns how many. */
static int
statuses_to_list(FunctionCallInfo fcinfo, int argno, Oid *statuses)
{
	char	   *word = sagaz_text_argument_or_null(fcinfo, argno);

	if (word != NULL)
	{
		statuses[0] = saga_status_of_word(&saga_statuses, word, "status");
		return 1;
	}
	for (int i = 0; i < saga_statuses.count; i++)
		statuses[i] = saga_status_word_oid(&saga_statuses, saga_statuses.words[i]);
	return saga_statuses.count;
}

/*
 * list_sagas(status, saga_name, max_rows, skip_rows, storage)
 */
Datum
sagaz_list_sagas(PG_FUNCTION_ARGS)
{
	Selection	selection = {0};
	Oid		   *statuses = palloc(saga_statuses.count * sizeof(Oid));
	int			count;
	int32		max_rows;
	int32		skip_rows;
	char	   *name;

	count = statuses_to_list(fcinfo, 0, statuses);
	name = sagaz_text_argument_or_null(fcinfo, 1);
	max_rows = sagaz_rows_argument(fcinfo, 2, "max_rows");
	skip_rows = sagaz_rows_argument(fcinfo, 3, "skip_rows");

	selection.snapshot = GetActiveSnapshot();
	selection.compare = list_newest_created_first;
	selection.limit = (int64) max_rows + skip_rows;
	if (max_rows > 0 && (name == NULL || name[0] == '\0'))
		list_by_status(&selection, statuses, count);
	else if (max_rows > 0)
		list_by_name(&selection,
					 str_tolower(name, strlen(name), DEFAULT_COLLATION_OID),
					 statuses, count);
	return_listed(fcinfo, &selection, skip_rows);
	return (Datum) 0;
}

/*
 * stuck_sagas(older_than, storage)
 */
Datum
sagaz_stuck_sagas(PG_FUNCTION_ARGS)
{
	Selection	selection = {0};
	TimestampTz cutoff;

	cutoff = GetCurrentTimestamp() - sagaz_interval_argument(fcinfo, 0, "older_than");

	selection.snapshot = GetActiveSnapshot();
	selection.compare = list_oldest_updated_first;
	selection.limit = PG_INT64_MAX;
	for (int i = 0; i < SAGAZ_UNFINISHED_WORDS; i++)
	{
		ScanKeyData key;
		SagazScan  *scan;

		saga_status_key(&key, 1, saga_status_word_oid(&saga_statuses, sagaz_unfinished_saga_words[i]));
		scan = sagaz_scan_begin("sagas", "sagas_status", selection.snapshot,
								&key, 1, ForwardScanDirection);
		while (sagaz_scan_next(scan))
		{
			CHECK_FOR_INTERRUPTS();
			if (DatumGetTimestampTz(sagaz_column(scan->slot,
												 saga_updated_at)) < cutoff)
				add_to_list(&selection, scan->slot);
		}
		sagaz_scan_end(scan);
	}
	return_listed(fcinfo, &selection, 0);
	return (Datum) 0;
}
