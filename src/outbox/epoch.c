/*
 * epoch.c
 *		Beginning an epoch of the log: at its first use in a database, and by
 *		activate().
 *
 * The first transaction that uses the outbox in a database writes a row;
 * several that are first at once all write one, so that none waits for the
 * other, and the lowest boundary counts.
 */
#include "lib/sagaz.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "lib/tuples.h"
#include "outbox/cluster.h"
#include "outbox/epoch.h"
#include "outbox/place_number.h"
#include "outbox/sequences.h"

/* Relation in which a committed row for this database has been seen. */
static Oid	seen_in = InvalidOid;

static void
write_epoch(uint32 epoch, int64 boundary, bool active)
{
	SagazWriter *writer = sagaz_writer_begin("cluster");

	sagaz_writer_row(writer);
	sagaz_writer_set(writer, cluster_epoch, Int32GetDatum(epoch));
	sagaz_writer_set(writer, cluster_boundary_seq, Int64GetDatum(boundary));
	sagaz_writer_set(writer, cluster_system_identifier,
					 Int64GetDatum((int64) GetSystemIdentifier()));
	sagaz_writer_set(writer, cluster_database_oid,
					 ObjectIdGetDatum(MyDatabaseId));
	sagaz_writer_set(writer, cluster_lanes, Int16GetDatum(SAGAZ_LANES));
	sagaz_writer_set(writer, cluster_written_by,
					 TransactionIdGetDatum(GetCurrentTransactionId()));
	if (active)
		sagaz_writer_set(writer, cluster_activated_at,
						 TimestampTzGetDatum(GetCurrentTimestamp()));
	sagaz_writer_insert(writer);
	sagaz_writer_end(writer);
	CommandCounterIncrement();
}

/*
 * The last place of a log that was written elsewhere, below which none is drawn
 * from now on; 0 if there is no such log.
 */
static int64
last_seq_of_copy(const SagazCluster *cluster)
{
	Snapshot	snapshot;

	if (!cluster->known)
		return 0;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	sagaz_sequences_catch_up(snapshot);
	UnregisterSnapshot(snapshot);
	return sagaz_last_seq();
}

/*
 * Before the first place in the log is drawn here, write down where "here"
 * is.  In a database with rows from elsewhere this begins an epoch that is
 * not active: the application may insert, nothing is handed out.  The
 * transaction has an xid.  Waits for nobody, so several may write a row.
 */
void
sagaz_epoch_note_first_use(void)
{
	Oid			relation_id = sagaz_relation_id("cluster");
	SagazCluster *cluster;

	if (seen_in == relation_id)
		return;
	if (sagaz_cluster_is_committed(&cluster))
		seen_in = relation_id;
	else if (!cluster->same)
		write_epoch(cluster->epoch + 1, last_seq_of_copy(cluster),
						  !cluster->known);
}

/*
 * Begin an epoch here, unless there is an active one: then false.  Takes a
 * lock that keeps inserts and claims out until the transaction ends.
 *
 * All inserting transactions have ended once the lock is ours, so the boundary
 * is the last place drawn; an epoch that inserts began in this database keeps
 * its own.  Sequences that are behind the tables are raised, and batches get
 * numbers that no other copy gave.
 */
bool
sagaz_epoch_activate(void)
{
	SagazCluster *cluster;
	Snapshot	snapshot;
	bool		anew = true;

	LockRelationOid(sagaz_relation_id("outbox"), ShareRowExclusiveLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	cluster = sagaz_cluster_read(snapshot);
	sagaz_sequences_catch_up(snapshot);
	if (cluster->known && cluster->same && !cluster->active)
		write_epoch(cluster->epoch, cluster->boundary[cluster->epoch - 1], true);
	else if (!cluster->same ||
			 (cluster->nepochs <= 1 && sagaz_cluster_is_behind_log(snapshot)))
		write_epoch(cluster->epoch + 1, cluster->known ? sagaz_last_seq() : 0, true);
	else
		anew = false;
	if (anew && cluster->known)
		sagaz_sequences_leave_copies();
	UnregisterSnapshot(snapshot);
	return anew;
}
