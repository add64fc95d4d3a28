/*
 * lane_holder.h
 *		Open transactions that keep claims out of a lane.
 */
#ifndef SAGAZ_LANE_HOLDER_H
#define SAGAZ_LANE_HOLDER_H

#include "nodes/pg_list.h"

typedef struct SagazLaneHolder
{
	int16		group_no;
	int16		lane;
	bool		is_client;		/* not a process of the server's own */
	bool		is_idle;		/* its client has sent nothing meanwhile */
	double		seconds;		/* the transaction is open, or nothing was sent */
	char	   *text;			/* who it is, and since when */
} SagazLaneHolder;

extern List *sagaz_lane_holders(void);

#endif							/* SAGAZ_LANE_HOLDER_H */
