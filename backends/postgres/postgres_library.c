/*
 * postgres_library.c
 *		The Python library's tables in another PostgreSQL database: putting
 *		records, and the table of operations.
 */
#include "backends/postgres/postgres_library.h"

static int
compare_library_places(const void *a, const void *b)
{
	const SagazRecord *x = *(SagazRecord *const *) a;
	const SagazRecord *y = *(SagazRecord *const *) b;
	int			by_key = strcmp(sagaz_record_key(x), sagaz_record_key(y));

	return by_key != 0 ? by_key : (x > y) - (x < y);
}

/*
 * The records by key, which is the order in which everybody locks them, each
 * key once: of several the last one if that is what remains, or the first.
 */
static SagazRecord **
sort_library_records(SagazRecord *records, int *count, bool last)
{
	SagazRecord **sorted = palloc(*count * sizeof(SagazRecord *));
	int			nsorted = 0;

	for (int i = 0; i < *count; i++)
		sorted[i] = &records[i];
	qsort(sorted, *count, sizeof(SagazRecord *), compare_library_places);
	for (int i = 0; i < *count; i++)
	{
		bool		again = nsorted > 0 &&
			strcmp(sagaz_record_key(sorted[nsorted - 1]), sagaz_record_key(sorted[i])) == 0;

		if (!again)
			sorted[nsorted++] = sorted[i];
		else if (last)
			sorted[nsorted - 1] = sorted[i];
	}
	*count = nsorted;
	return sorted;
}

static void
refuse_library_duplicate(PostgresStore *store, const char *key)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("record \"%s\" exists already in storage \"%s\"",
					key, store->base.name)));
}

/* Drop those of the sorted records that are there; returns how many are left. */
static int
drop_known_to_library(SagazRecord **records, int count, const PostgresResult *there)
{
	char	  **keys = palloc((there->nrows + 1) * sizeof(char *));
	int			left = 0;
	int			next = 0;

	for (int row = 0; row < there->nrows; row++)
		keys[row] = postgres_text(there, row, 0);
	qsort(keys, there->nrows, sizeof(char *), pg_qsort_strcmp);
	for (int i = 0; i < count; i++)
	{
		if (next < there->nrows && strcmp(sagaz_record_key(records[i]), keys[next]) == 0)
			next++;
		else
			records[left++] = records[i];
	}
	return left;
}

/*
 * Insert what is not there; returns how many that were.  Where somebody else
 * is faster, what he has put is found to be there next time; an error again
 * is another one.
 */
static int
put_missing_in_library(PostgresStore *store, SagazRecord **records, int count,
					   SagazPutMode mode)
{
	bool		lost_race = false;

	while (count > 0)
	{
		PostgresResult **results;
		int			nresults;

		library_queue_fresh(store, records, count);
		results = lost_race ? postgres_exchange(store, &nresults) :
			postgres_exchange_unless(store, ERRCODE_UNIQUE_VIOLATION, &nresults);
		lost_race = results == NULL;
		if (lost_race)
			continue;
		if (results[LIBRARY_THERE]->nrows == 0)
			return count;
		if (mode == SAGAZ_PUT_NEW)
			refuse_library_duplicate(store, postgres_text(results[LIBRARY_THERE], 0, 0));
		count = drop_known_to_library(records, count, results[LIBRARY_THERE]);
	}
	return 0;
}

static int64
put_all_in_library(PostgresStore *store, SagazRecord *records, int count, SagazPutMode mode)
{
	int			nsorted = count;
	SagazRecord **sorted = sort_library_records(records, &nsorted, mode == SAGAZ_PUT_ALWAYS);
	int			nresults;

	if (mode == SAGAZ_PUT_NEW && nsorted < count)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("two new records for storage \"%s\" have one key",
						store->base.name)));
	if (mode != SAGAZ_PUT_ALWAYS)
		return put_missing_in_library(store, sorted, nsorted, mode);
	library_queue_main(store, sorted, nsorted, true);
	library_queue_rest(store, sorted, nsorted);
	(void) postgres_exchange(store, &nresults);
	return count;
}

static int64
library_put(PostgresStore *store, SagazRecord *records, int count,
			SagazPutMode mode)
{
	volatile int64 written = 0;

	for (int i = 0; i < count; i++)
		library_check_record(store, &records[i]);
	library_make_tables(store);
	PG_TRY();
	{
		written = put_all_in_library(store, records, count, mode);
	}
	PG_CATCH();
	{
		postgres_roll_back(store);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return written;
}

const PostgresOperations postgres_library_operations = {
	.put = library_put,
	.edit = library_edit,
	.fetch = library_fetch,
	.count = library_count,
	.merge = postgres_merge_by_edit,
	.remove = postgres_remove_by_edit,
	.unfit = library_unfit
};
