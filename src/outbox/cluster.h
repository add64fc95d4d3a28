/*
 * cluster.h
 *		The cluster and database in which the log is written.
 */
#ifndef SAGAZ_CLUSTER_H
#define SAGAZ_CLUSTER_H

#include "utils/snapshot.h"

enum cluster_column
{
	cluster_epoch = 1,
	cluster_boundary_seq,
	cluster_system_identifier,
	cluster_database_oid,
	cluster_lanes,
	cluster_activated_at,
	cluster_written_by
};

/*
 * Places above the boundary of an epoch belong to it, up to the boundary of
 * the next.  Epochs count from 1.
 */
typedef struct SagazCluster
{
	bool		known;			/* is there any row? */
	bool		same;			/* was the newest epoch begun in this database? */
	bool		active;			/* may claims hand out? */
	uint32		epoch;			/* the newest one */
	int			nepochs;
	int64	   *boundary;		/* of epoch 1, 2, …, nepochs */
} SagazCluster;

extern bool sagaz_cluster_is_committed(SagazCluster **cluster);
extern bool sagaz_cluster_is_behind_log(Snapshot snapshot);
extern SagazCluster *sagaz_cluster_read(Snapshot snapshot);
extern bool sagaz_cluster_is_active(Snapshot snapshot);
extern SagazCluster *sagaz_cluster_active(Snapshot snapshot);
extern uint32 sagaz_cluster_epoch(const SagazCluster *cluster, int64 seq);

#endif							/* SAGAZ_CLUSTER_H */
