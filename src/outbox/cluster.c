/*
 * cluster.c
 *		The cluster and database in which the log is written.
 *
 * Positions in the log are xids, which mean nothing in another cluster.
 * sagaz.cluster tells where each stretch of the log was written, so that a
 * copy of the data in another cluster delivers nothing until activate().
 */
#include "lib/sagaz.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

#include "outbox/cluster.h"
#include "lib/tuples.h"
#include "outbox/window.h"

/*
 * A row says which transaction wrote it.  One that was copied, into this very
 * database even, was written by another.
 */
static bool
cluster_row_is_original(TupleTableSlot *slot)
{
	bool		isnull;
	Datum		xmin = slot_getsysattr(slot, MinTransactionIdAttributeNumber,
									   &isnull);

	return DatumGetTransactionId(xmin) ==
		DatumGetTransactionId(sagaz_column(slot, cluster_written_by));
}

static bool
cluster_row_is_of_this_database(TupleTableSlot *slot)
{
	return cluster_row_is_original(slot) &&
		DatumGetInt64(sagaz_column(slot, cluster_system_identifier)) ==
		(int64) GetSystemIdentifier() &&
		DatumGetObjectId(sagaz_column(slot, cluster_database_oid)) == MyDatabaseId;
}

/* Take one row of sagaz.cluster into account; rows come in any order. */
static void
add_cluster_row(SagazCluster *cluster, TupleTableSlot *slot)
{
	int			epoch = DatumGetInt32(sagaz_column(slot, cluster_epoch));
	int64		boundary = DatumGetInt64(sagaz_column(slot, cluster_boundary_seq));

	if (epoch > cluster->nepochs)
	{
		cluster->boundary = cluster->boundary == NULL ?
			palloc(epoch * sizeof(int64)) :
			repalloc(cluster->boundary, epoch * sizeof(int64));
		for (int i = cluster->nepochs; i < epoch; i++)
			cluster->boundary[i] = PG_INT64_MAX;
		cluster->nepochs = epoch;
		cluster->epoch = epoch;
		cluster->same = cluster_row_is_of_this_database(slot);
		cluster->active = false;
	}
	cluster->boundary[epoch - 1] = Min(cluster->boundary[epoch - 1], boundary);
	if (epoch == (int) cluster->epoch && cluster->same &&
		!sagaz_column_is_null(slot, cluster_activated_at))
		cluster->active = true;
}

/* All epochs, as of the snapshot, in the present memory context. */
SagazCluster *
sagaz_cluster_read(Snapshot snapshot)
{
	SagazCluster *cluster = palloc0(sizeof(SagazCluster));
	Relation	rel = sagaz_relation_hold("cluster", AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		slot_getallattrs(slot);
		cluster->known = true;
		add_cluster_row(cluster, slot);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	sagaz_relation_let_go(rel, AccessShareLock);
	return cluster;
}

/* The epoch that a place in the log belongs to. */
uint32
sagaz_cluster_epoch(const SagazCluster *cluster, int64 seq)
{
	uint32		epoch = cluster->nepochs;

	while (epoch > 1 && seq <= cluster->boundary[epoch - 1])
		epoch--;
	return epoch;
}

/*
 * The cluster as of now, in the present memory context; true if a committed row
 * of this database, which can't go away, is in sight.
 */
bool
sagaz_cluster_is_committed(SagazCluster **cluster)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Relation	rel = sagaz_relation_open("cluster", AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	bool		found = false;

	*cluster = sagaz_cluster_read(snapshot);
	while (!found && (*cluster)->same &&
		   table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		TransactionId xmin =
			DatumGetTransactionId(slot_getsysattr(slot,
												  MinTransactionIdAttributeNumber,
												  &isnull));

		slot_getallattrs(slot);
		found = cluster_row_is_of_this_database(slot) &&
			DatumGetInt32(sagaz_column(slot, cluster_epoch)) == (int) (*cluster)->epoch &&
			!TransactionIdIsCurrentTransactionId(xmin);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	UnregisterSnapshot(snapshot);
	return found;
}

/*
 * The log and its cursors hold xids that this cluster has not reached: they
 * come from elsewhere, whatever the identity says.
 */
bool
sagaz_cluster_is_behind_log(Snapshot snapshot)
{
	SagazScan  *scan = sagaz_scan_begin("outbox", "outbox_pos_seq", snapshot,
										NULL, 0, BackwardScanDirection);
	bool		ahead = false;

	if (sagaz_scan_next(scan))
		ahead = DatumGetUInt64(sagaz_column(scan->slot, 1)) >=
			U64FromFullTransactionId(ReadNextFullTransactionId());
	sagaz_scan_end(scan);
	return ahead;
}

/* Why events may not be handed out here, or NULL; for whoever asks politely. */
static const char *
why_cluster_inert(const SagazCluster *cluster, Snapshot snapshot)
{
	if (cluster->known && !cluster->same)
		return "Its positions come from another cluster or database, or it was restored from a dump.";
	if (cluster->known && !cluster->active)
		return "It was written to, but not activated, since it came here.";
	if (cluster->nepochs <= 1 && sagaz_cluster_is_behind_log(snapshot))
		return "It holds positions that this cluster has not reached.";
	return NULL;
}

/*
 * May events be handed out in this database?  For whoever only looks: writes
 * nothing and raises nothing.
 */
bool
sagaz_cluster_is_active(Snapshot snapshot)
{
	return why_cluster_inert(sagaz_cluster_read(snapshot), snapshot) == NULL;
}

/*
 * The cluster as claims need it, in the present memory context; an error
 * where the outbox is inert.  Writes nothing.
 */
SagazCluster *
sagaz_cluster_active(Snapshot snapshot)
{
	static Oid	checked_in = InvalidOid;
	SagazCluster *cluster = sagaz_cluster_read(snapshot);
	Oid			relation_id = sagaz_relation_id("cluster");
	const char *why = NULL;

	/* the log, once looked at, does not get ahead of this cluster */
	if (checked_in != relation_id || !cluster->same || !cluster->active)
		why = why_cluster_inert(cluster, snapshot);
	if (why)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_STORAGE),
				 errmsg("the outbox is not active in this database"),
				 errdetail_internal("%s", why),
				 errhint("If this copy is to deliver events, run SELECT %s.activate().",
						 SAGAZ_SCHEMA)));
	checked_in = relation_id;
	return cluster;
}
