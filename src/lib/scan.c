/*
 * scan.c
 *		Reading rows of the extension's own tables by an index, without SPI.
 */
#include "lib/sagaz.h"

#include "access/table.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "lib/tuples.h"

#if PG_VERSION_NUM >= 180000
#define begin_index_scan(rel, index, snapshot, nkeys) \
	index_beginscan(rel, index, snapshot, NULL, nkeys, 0)
#else
#define begin_index_scan(rel, index, snapshot, nkeys) \
	index_beginscan(rel, index, snapshot, nkeys, 0)
#endif

/*
 * The keys' attnum counts the columns of the index.  The scan lies in the
 * present memory context; the snapshot must stay registered or active until
 * its end.  What an error leaves open goes with the transaction or
 * subtransaction.
 */
SagazScan *
sagaz_scan_begin(const char *table, const char *index, Snapshot snapshot,
				 ScanKey keys, int nkeys, ScanDirection direction)
{
	SagazScan  *scan = palloc0(sizeof(SagazScan));

	scan->rel = sagaz_relation_hold(table, AccessShareLock);
	scan->index = sagaz_relation_hold(index, AccessShareLock);
	scan->direction = direction;
	scan->slot = table_slot_create(scan->rel, NULL);
	scan->scan = begin_index_scan(scan->rel, scan->index, snapshot, nkeys);
	index_rescan(scan->scan, keys, nkeys, NULL, 0);
	return scan;
}

/* Start over with other values for the same number of keys. */
void
sagaz_scan_again(SagazScan *scan, ScanKey keys, int nkeys)
{
	MemoryContext outer = MemoryContextSwitchTo(GetMemoryChunkContext(scan));

	ExecClearTuple(scan->slot);
	index_rescan(scan->scan, keys, nkeys, NULL, 0);
	MemoryContextSwitchTo(outer);
}

/*
 * The row in the slot is valid until the next call.  The index may allocate
 * what lasts as long as the scan, so that the present memory context may be
 * a short one.
 */
bool
sagaz_scan_next(SagazScan *scan)
{
	MemoryContext outer = MemoryContextSwitchTo(GetMemoryChunkContext(scan));
	bool		found = index_getnext_slot(scan->scan, scan->direction,
										   scan->slot);

	MemoryContextSwitchTo(outer);
	if (found)
		slot_getallattrs(scan->slot);
	return found;
}

/* The locks go with it, unless sagaz_relations_keep_begin() keeps them. */
void
sagaz_scan_end(SagazScan *scan)
{
	ExecDropSingleTupleTableSlot(scan->slot);
	index_endscan(scan->scan);
	sagaz_relation_let_go(scan->index, AccessShareLock);
	sagaz_relation_let_go(scan->rel, AccessShareLock);
	pfree(scan);
}

/*
 * The first row with these keys, valid until the next call; NULL if there is
 * none.  *scan is begun at the first call, in the present memory context, and
 * serves all with as many keys.
 */
TupleTableSlot *
sagaz_scan_probe(SagazScan **scan, const char *table, const char *index,
				 Snapshot snapshot, ScanKey keys, int nkeys)
{
	if (*scan)
		sagaz_scan_again(*scan, keys, nkeys);
	else
		*scan = sagaz_scan_begin(table, index, snapshot, keys, nkeys,
								 ForwardScanDirection);
	return sagaz_scan_next(*scan) ? (*scan)->slot : NULL;
}
