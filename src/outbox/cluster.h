/*
 * cluster.h
 *		The cluster and database in which the log is written.
 */
#ifndef SAGAZ_CLUSTER_H
#define SAGAZ_CLUSTER_H

#include "utils/snapshot.h"

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

extern void sagaz_cluster_note_first_use(void);
extern SagazCluster *sagaz_cluster_read(Snapshot snapshot);
extern bool sagaz_cluster_is_active(Snapshot snapshot);
extern SagazCluster *sagaz_cluster_active(Snapshot snapshot);
extern bool sagaz_cluster_activate(void);
extern uint32 sagaz_cluster_epoch(const SagazCluster *cluster, int64 seq);

#endif							/* SAGAZ_CLUSTER_H */
