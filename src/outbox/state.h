/*
 * state.h
 *		Where events stand for one consumer group, as of one snapshot.
 *
 * There is no second answer: views and statistics ask here with the query's
 * snapshot, and who says what became of an event asks here under the locks
 * that keep it where it is.  Nothing here takes a lock or writes.
 *
 * A root handed an event out first, a chain is the root and all who handed
 * the same out again, a holder is one of them.
 */
#ifndef SAGAZ_STATE_H
#define SAGAZ_STATE_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#include "lib/tuples.h"
#include "lib/words.h"
#include "outbox/cursor.h"
#include "outbox/group.h"
#include "outbox/place_number.h"
#include "outbox/receipt.h"

/* A set of statuses. */
#define status_bit(status)	(1 << (status))
#define ALL_STATUSES		(status_bit(EVENT_STATUSES) - 1)

/* Which rows tell where the event stands. */
typedef enum SagazWhere
{
	WHERE_NOT_ITS,				/* the group never gets it */
	WHERE_UNREAD,				/* the group has not come to it */
	WHERE_OUT,					/* in an open batch */
	WHERE_RETURNED,				/* in a batch that ended without it */
	WHERE_DONE,					/* sent off the log */
	WHERE_RETRY					/* outbox_retry, see retry_state */
} SagazWhere;

typedef struct SagazEventState
{
	EventStatus status;
	SagazWhere	where;
	int			retry_state;	/* of WHERE_RETRY */
	int			closed_by;		/* of WHERE_RETURNED: the receipt's kind */
	int			lost;			/* batches with it whose workers were lost, as far as
								 * it stayed on the straight path */
	int			batch_limit;	/* of WHERE_RETRY: its next batch has no more, or 0 */
	int			retry_count;
	int64		batch_id;		/* this and what follows: 0 or NULL for none */
	TimestampTz claimed_at;		/* this, sent_at and failed_at as records have
								 * times: see sagaz_real_time() */
	TimestampTz lease_end;		/* of WHERE_OUT */
	TimestampTz sent_at;
	TimestampTz failed_at;
	TimestampTz next_attempt_at;
	const char *worker_id;
	const char *last_error;
} SagazEventState;

/* One handing-out of the events of a root batch in one lane. */
typedef struct SagazChainLink
{
	int64		batch_id;
	TimestampTz claimed_at;
	const char *worker_id;
	List	   *entries;		/* of SagazOwed: the ranges it handed out */
	SagazReceipts receipts;
} SagazChainLink;

/*
 * All the handings-out of what a batch handed out first in one lane, oldest
 * first.  All but the last of those that cover an event ended without it.
 */
typedef struct SagazChain
{
	int64		root;
	int16		lane;
	List	   *holders;		/* of SagazChainLink */
	List	   *windows;		/* of BatchWindow, as far as they were needed */
} SagazChain;

/*
 * What it takes to tell states.  Everything is read with the one snapshot,
 * so that no event is shown in two states or in none.
 */
typedef struct SagazStates
{
	bool		has_group;		/* false: there is none, and nothing is read */
	SagazGroup	group;			/* then all zero but for the name */
	Snapshot	snapshot;		/* registered or active, the caller's */
	SagazCluster *cluster;
	bool		archive_tells;	/* the archive has the group's final states */
	bool		cursor_read[SAGAZ_LANES];
	SagazCursor cursor[SAGAZ_LANES];
	SagazChain *chain;			/* the one used last */
	SagazScan  *log;			/* probes, opened when needed */
	SagazScan  *retry;
	SagazScan  *batches;
	MemoryContext context;
	MemoryContext chain_context;
	MemoryContext work_context;
} SagazStates;

/* states.c */
extern SagazStates *sagaz_states_open(const char *group, Snapshot snapshot);
extern SagazStates *sagaz_states_open_shown(const char *group, Snapshot snapshot);
extern SagazStates *sagaz_states_of_group(const SagazGroup *group,
										  Snapshot snapshot);
extern void sagaz_states_close(SagazStates *states);
extern const SagazCursor *sagaz_states_cursor(SagazStates *states, int16 lane);
extern TupleTableSlot *sagaz_states_event(SagazStates *states, Datum event_id);
extern TupleTableSlot *sagaz_states_retry_row(SagazStates *states, int64 seq);
extern bool sagaz_states_unread(SagazStates *states, int16 lane, uint64 pos,
								int64 seq);
extern TupleTableSlot *sagaz_states_batch_from(SagazStates *states, int16 lane,
											   int64 batch_id);

/* state.c */
extern void sagaz_state_of(SagazStates *states, TupleTableSlot *event,
						   SagazEventState *state);
extern void sagaz_state_of_retry(TupleTableSlot *retry,
								 SagazEventState *state);
extern TimestampTz sagaz_state_lease_end(const SagazStates *states,
										 const SagazEventState *state);
extern void sagaz_state_unread(TupleTableSlot *event, SagazEventState *state);
extern void sagaz_state_by_chain(SagazStates *states, SagazChain *chain,
								 uint64 pos, int64 seq,
								 SagazEventState *state);

/* chain.c */
extern SagazChain *sagaz_states_chain(SagazStates *states, int16 lane,
									  int64 root);
extern bool sagaz_chain_covers(SagazStates *states, SagazChain *chain,
							   const SagazChainLink *holder, uint64 pos,
							   int64 seq, bool first);

#endif							/* SAGAZ_STATE_H */
