/*
 * window.h
 *		Which transactions' events lie between two moments.
 *
 * An end is a moment as a claim saw it.  A window is what is visible in its
 * later end and not in its earlier one.
 */
#ifndef SAGAZ_WINDOW_H
#define SAGAZ_WINDOW_H

#include "utils/snapshot.h"

#include "outbox/cluster.h"

/* Positions below this one are visible in every end. */
#define SAGAZ_FIRST_POS ((uint64) FirstNormalTransactionId)

typedef struct SagazEnd
{
	uint32		epoch;
	int64		last_seq;		/* S: the last place drawn */
	uint64		next_xid;		/* N: read after S */
	uint64		xmin;			/* below: ended */
	uint64		xmax;			/* from here on: running or to come */
	int			nrunning;
	uint64	   *running;		/* sorted; the claimer's own xid is among them */
} SagazEnd;

typedef struct SagazWindow
{
	SagazEnd	from;
	SagazEnd	to;
} SagazWindow;

extern void sagaz_window_end_zero(SagazEnd *end);
extern Snapshot sagaz_window_end_read(SagazEnd *end);
extern void sagaz_window_end_set_epoch(SagazEnd *end, const SagazCluster *cluster);
extern bool sagaz_window_end_saw_xid(const SagazEnd *end, uint64 xid);
extern bool sagaz_window_counts(const SagazWindow *window, int64 last_seq,
								const SagazCluster *cluster, uint64 pos,
								int64 seq);
extern bool sagaz_window_has(const SagazWindow *window,
							 const SagazCluster *cluster,
							 uint64 pos, int64 seq);
extern bytea *sagaz_window_encode(const SagazWindow *window);
extern void sagaz_window_decode(Datum ends, SagazWindow *window);

#endif							/* SAGAZ_WINDOW_H */
