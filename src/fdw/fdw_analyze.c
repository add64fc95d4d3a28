/*
 * fdw_analyze.c
 *		ANALYZE of foreign tables over storages: all is read, a sample kept.
 */
#include "lib/sagaz.h"

#include <math.h>

#include "access/heapam.h"
#include "commands/vacuum.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/sampling.h"

#include "fdw/fdw.h"

#if PG_VERSION_NUM >= 180000
#define vacuum_delay() vacuum_delay_point(true)
#else
#define vacuum_delay() vacuum_delay_point()
#endif

/* The place where the next row goes, or -1 if it is not in the sample. */
static int
place_in_sample(ReservoirStateData *reservoir, double seen, int kept, int target,
				double *to_skip)
{
	int			place = -1;

	if (kept < target)
		return kept;
	if (*to_skip < 0)
		*to_skip = reservoir_get_next_S(reservoir, seen, target);
	if (*to_skip <= 0)
		place = (int) (target * sampler_random_fract(&reservoir->randstate));
	*to_skip -= 1;
	return place;
}

/*
 * ANALYZE restricts what the table owner's functions may do.  Here none runs,
 * so a superuser may do without a password what he may in a SELECT.
 */
static SagazStore *
open_store_to_analyze(const SagazTable *table, Relation rel)
{
	SagazStore *store;
	Oid			user;
	int			context;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(user, context & ~SECURITY_RESTRICTED_OPERATION);
	store = sagaz_table_store(table, rel->rd_rel->relowner);
	SetUserIdAndSecContext(user, context);
	return store;
}

static int
acquire_sample_rows(Relation rel, int level, HeapTuple *rows, int target,
					double *live, double *dead)
{
	SagazTable *table = sagaz_table_open(rel);
	SagazStore *store = open_store_to_analyze(table, rel);
	SagazFilter filter = {0};
	SagazReader *reader = sagaz_store_read_begin(store, table->kind, &filter);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	MemoryContext kept_rows = CurrentMemoryContext;
	MemoryContext part = AllocSetContextCreate(kept_rows, "sagaz sample",
											   ALLOCSET_DEFAULT_SIZES);
	ReservoirStateData reservoir;
	double		to_skip = -1;
	int			kept = 0;
	SagazRecord record;

	reservoir_init_selection_state(&reservoir, target);
	*live = *dead = 0;
	MemoryContextSwitchTo(part);
	while (sagaz_store_read_next(reader, &record))
	{
		int			place = record.problem ? -1 :
			place_in_sample(&reservoir, *live, kept, target, &to_skip);

		vacuum_delay();
		*live += record.problem == NULL;
		if (place >= 0)
		{
			sagaz_table_row(table, &record, slot);
			MemoryContextSwitchTo(kept_rows);
			if (place < kept)
				heap_freetuple(rows[place]);
			rows[place] = ExecCopySlotHeapTuple(slot);
			kept = Max(kept, place + 1);
			MemoryContextSwitchTo(part);
		}
		MemoryContextReset(part);
	}
	MemoryContextSwitchTo(kept_rows);
	ExecDropSingleTupleTableSlot(slot);
	sagaz_store_read_end(reader);
	MemoryContextDelete(part);
	ereport(level,
			(errmsg("\"%s\": %.0f records, %d rows in sample",
					RelationGetRelationName(rel), *live, kept)));
	return kept;
}

/* There are no pages; so many are said that sampling makes sense. */
static bool
analyze_foreign_table(Relation rel, AcquireSampleRowsFunc *function,
					  BlockNumber *pages)
{
	*function = acquire_sample_rows;
	*pages = 1;
	return true;
}

void
sagaz_fdw_analyze(FdwRoutine *routine)
{
	routine->AnalyzeForeignTable = analyze_foreign_table;
}
