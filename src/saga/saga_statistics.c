/*
 * saga_statistics.c
 *		get_saga_statistics(): how many sagas there are of each name and status.
 *
 * A table that is too large to be counted in passing is estimated: groups of
 * a few sagas, as those that failed should be, are counted off the index, and
 * the large ones are known from a sample of the pages.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "lib/owner.h"
#include "lib/rows.h"
#include "saga/saga.h"
#include "lib/tuples.h"

/* A table of more blocks is estimated: 8 MB, some milliseconds. */
#define COUNTED_BLOCKS 1024
/* … from so many of its blocks, more or less */
#define SAMPLED_BLOCKS 400
/* … and smaller groups are counted. */
#define COUNTED_ROWS 200
/* With more groups than that, all is counted. */
#define MAX_GROUPS 200

PG_FUNCTION_INFO_V1(sagaz_get_saga_statistics);

typedef struct SagaGroup
{
	Datum		name;
	Oid			status;
	int64		count;
	bool		estimated;
} SagaGroup;

typedef struct TableSize
{
	BlockNumber blocks;
	double		rows;			/* as the last VACUUM or ANALYZE makes expect, or -1 */
} TableSize;

static TableSize
look_at_saga_size(void)
{
	Relation	rel = sagaz_relation_open("sagas", AccessShareLock);
	TableSize	size = {RelationGetNumberOfBlocks(rel), -1};
	BlockNumber pages;
	double		visible;

	if (rel->rd_rel->reltuples >= 0)
		table_relation_estimate_size(rel, NULL, &pages, &size.rows, &visible);
	table_close(rel, AccessShareLock);
	return size;
}

/* ---------------------------------------------------------------------- */
/* Exactly */

static void
return_saga_counts(ReturnSetInfo *result)
{
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute("SELECT saga_name, status, pg_catalog.count(*), false"
					" FROM sagaz.sagas GROUP BY 1, 2 ORDER BY 1, 2",
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not count sagas");
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	SPI_finish();
}

/* ---------------------------------------------------------------------- */
/* Estimated */

static bool
same_saga_name(Datum a, Datum b)
{
	text	   *x = DatumGetTextPP(a);
	text	   *y = DatumGetTextPP(b);

	return VARSIZE_ANY_EXHDR(x) == VARSIZE_ANY_EXHDR(y) &&
		memcmp(VARDATA_ANY(x), VARDATA_ANY(y), VARSIZE_ANY_EXHDR(x)) == 0;
}

/* The sagas of a name with a later status, and those of later names. */
typedef struct GroupScans
{
	ScanKeyData of_name[2];
	ScanKeyData beyond;
	SagazScan  *statuses;
	SagazScan  *names;
} GroupScans;

static void
begin_saga_group_scans(GroupScans *scans)
{
	Datum		none = PointerGetDatum(cstring_to_text(""));

	sagaz_key_text(&scans->of_name[0], 1, none);
	ScanKeyInit(&scans->of_name[1], 2, BTGreaterStrategyNumber, F_ENUM_GT,
				ObjectIdGetDatum(InvalidOid));
	ScanKeyInit(&scans->beyond, 1, BTGreaterStrategyNumber, F_TEXT_GT, none);
	scans->beyond.sk_collation = DEFAULT_COLLATION_OID;
	scans->statuses = sagaz_scan_begin("sagas", "sagas_name", GetActiveSnapshot(),
									   scans->of_name, 2, ForwardScanDirection);
	scans->names = sagaz_scan_begin("sagas", "sagas_name", GetActiveSnapshot(),
									&scans->beyond, 1, ForwardScanDirection);
}

/* A scan at the first saga of the group after one, or NULL. */
static SagazScan *
next_saga_group(GroupScans *scans, const SagaGroup *last)
{
	scans->of_name[0].sk_argument = last->name;
	scans->of_name[1].sk_argument = ObjectIdGetDatum(last->status);
	sagaz_scan_again(scans->statuses, scans->of_name, 2);
	if (sagaz_scan_next(scans->statuses))
		return scans->statuses;
	scans->beyond.sk_argument = last->name;
	sagaz_scan_again(scans->names, &scans->beyond, 1);
	return sagaz_scan_next(scans->names) ? scans->names : NULL;
}

/* Count the sagas of the group at whose first one the scan is. */
static void
count_few_sagas(SagazScan *scan, SagaGroup *group)
{
	group->name = datumCopy(sagaz_column(scan->slot, saga_saga_name), false, -1);
	group->status = DatumGetObjectId(sagaz_column(scan->slot, saga_status));
	group->count = 0;
	do
		group->count++;
	while (group->count <= COUNTED_ROWS && sagaz_scan_next(scan) &&
		   DatumGetObjectId(sagaz_column(scan->slot, saga_status)) == group->status &&
		   same_saga_name(sagaz_column(scan->slot, saga_saga_name), group->name));
	group->estimated = group->count > COUNTED_ROWS;
}

/* All groups; more than MAX_GROUPS are not looked for. */
static int
find_saga_groups(SagaGroup *groups)
{
	GroupScans	scans;
	SagazScan  *scan;
	int			count = 0;

	begin_saga_group_scans(&scans);
	scan = sagaz_scan_next(scans.names) ? scans.names : NULL;
	while (scan && count <= MAX_GROUPS)
	{
		CHECK_FOR_INTERRUPTS();
		count_few_sagas(scan, &groups[count]);
		scan = next_saga_group(&scans, &groups[count++]);
	}
	sagaz_scan_end(scans.statuses);
	sagaz_scan_end(scans.names);
	return count;
}

/* Give a large group its share of all sagas. */
static void
take_saga_estimate(SagaGroup *groups, int ngroups, Datum name, Oid status, double count)
{
	for (int i = 0; i < ngroups; i++)
		if (groups[i].estimated && groups[i].status == status &&
			same_saga_name(name, groups[i].name))
			groups[i].count = Max(groups[i].count, (int64) count);
}

/* What a saga of the sample stands for. */
static double
weight_of_saga(SPITupleTable *sample, const TableSize *size)
{
	double		sampled = 0;
	bool		isnull;

	for (uint64 i = 0; i < sample->numvals; i++)
		sampled += DatumGetInt64(SPI_getbinval(sample->vals[i], sample->tupdesc, 3, &isnull));
	return size->rows >= sampled && sampled > 0 ? size->rows / sampled :
		(double) size->blocks / SAMPLED_BLOCKS;
}

static void
estimate_saga_groups(SagaGroup *groups, int ngroups, const TableSize *size)
{
	Oid			types[] = {FLOAT4OID};
	Datum		percent[] = {Float4GetDatum((float4) (100.0 * SAMPLED_BLOCKS / size->blocks))};
	double		each;

	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute_with_args("SELECT saga_name, status, pg_catalog.count(*)"
							  " FROM sagaz.sagas TABLESAMPLE pg_catalog.system ($1) REPEATABLE (0)"
							  " GROUP BY 1, 2",
							  1, types, percent, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not sample sagas");
	each = weight_of_saga(SPI_tuptable, size);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Datum		values[3];
		bool		nulls[3];

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values, nulls);
		take_saga_estimate(groups, ngroups, values[0], DatumGetObjectId(values[1]),
						   each * DatumGetInt64(values[2]));
	}
	SPI_finish();
}

/* False if there are too many groups for that. */
static bool
return_saga_estimates(ReturnSetInfo *result, const TableSize *size)
{
	SagaGroup  *groups = palloc((MAX_GROUPS + 1) * sizeof(SagaGroup));
	int			ngroups = find_saga_groups(groups);
	bool		nulls[4] = {false};

	if (ngroups > MAX_GROUPS)
		return false;
	estimate_saga_groups(groups, ngroups, size);
	for (int i = 0; i < ngroups; i++)
	{
		Datum		values[] = {
			groups[i].name,
			ObjectIdGetDatum(groups[i].status),
			Int64GetDatum(groups[i].count),
			BoolGetDatum(groups[i].estimated)
		};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return true;
}

/*
 * get_saga_statistics(storage)
 */
Datum
sagaz_get_saga_statistics(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	SagazUser	user;
	TableSize	size;

	sagaz_rows_begin(fcinfo);
	sagaz_become_owner(&user);
	size = look_at_saga_size();
	if (size.blocks <= COUNTED_BLOCKS || !return_saga_estimates(result, &size))
		return_saga_counts(result);
	sagaz_owner_restore(&user);
	return (Datum) 0;
}
