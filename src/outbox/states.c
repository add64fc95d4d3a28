/*
 * states.c
 *		What it takes to tell where events stand: the group, its cursors and
 *		the batches and retries behind them, all as of one snapshot.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "outbox/event.h"
#include "outbox/outbox.h"
#include "outbox/retry.h"
#include "outbox/state.h"

/*
 * States of a group that the caller has looked up, under a lock if it is to
 * be the one that the snapshot has.  The snapshot must outlive the states,
 * and so must the group's name and the present memory context.
 */
SagazStates *
sagaz_states_of_group(const SagazGroup *group, Snapshot snapshot)
{
	SagazStates *states = palloc0(sizeof(SagazStates));

	states->snapshot = snapshot;
	states->context = CurrentMemoryContext;
	states->has_group = true;
	states->group = *group;
	states->archive_tells = strcmp(group->name, SAGAZ_DEFAULT_GROUP) == 0;
	states->cluster = sagaz_cluster_read(snapshot);
	states->chain_context = AllocSetContextCreate(CurrentMemoryContext,
												  "sagaz chain",
												  ALLOCSET_SMALL_SIZES);
	states->work_context = AllocSetContextCreate(CurrentMemoryContext,
												 "sagaz batch probe",
												 ALLOCSET_SMALL_SIZES);
	return states;
}

/*
 * States of the group that has the name in the snapshot; an error without
 * one.  The default group need not exist: then it has read nothing.
 */
SagazStates *
sagaz_states_open(const char *name, Snapshot snapshot)
{
	SagazGroup	group = {0};
	bool		found = sagaz_group_find_in(name, snapshot, &group);
	SagazStates *states;

	if (!found && strcmp(name, SAGAZ_DEFAULT_GROUP) != 0)
		sagaz_no_such_group(name);
	if (!found)
		group.name = pstrdup(name);
	states = sagaz_states_of_group(&group, snapshot);
	states->has_group = found;
	return states;
}

/*
 * The same for those who look.  A group that nobody made is not shown: in place
 * of the default one it is then the first that there is, whose states the
 * archive keeps, too.
 */
SagazStates *
sagaz_states_open_shown(const char *name, Snapshot snapshot)
{
	SagazStates *states = sagaz_states_open(name, snapshot);
	List	   *names = states->has_group ? NIL : sagaz_group_names(snapshot);

	if (names == NIL)
		return states;
	sagaz_states_close(states);
	states = sagaz_states_open(linitial(names), snapshot);
	states->archive_tells = true;
	return states;
}

/* Close what the states have open.  What they gave out goes with them. */
void
sagaz_states_close(SagazStates *states)
{
	SagazScan  *scans[] = {states->log, states->retry, states->batches};

	for (int i = 0; i < (int) lengthof(scans); i++)
		if (scans[i])
			sagaz_scan_end(scans[i]);
	MemoryContextDelete(states->chain_context);
	MemoryContextDelete(states->work_context);
	pfree(states);
}

/* The lane's cursor, read once; it lasts as long as the states. */
const SagazCursor *
sagaz_states_cursor(SagazStates *states, int16 lane)
{
	if (!states->cursor_read[lane])
	{
		MemoryContext outer = MemoryContextSwitchTo(states->context);

		if (states->has_group)
			sagaz_cursor_read(states->group.no, lane, states->snapshot,
							  &states->cursor[lane]);
		else
		{
			sagaz_window_end_zero(&states->cursor[lane].window.from);
			sagaz_window_end_zero(&states->cursor[lane].window.to);
		}
		states->cursor_read[lane] = true;
		MemoryContextSwitchTo(outer);
	}
	return &states->cursor[lane];
}

static TupleTableSlot *
probe_states(SagazStates *states, SagazScan **scan, const char *table,
			 const char *index, ScanKey keys, int nkeys)
{
	MemoryContext outer = MemoryContextSwitchTo(states->context);
	TupleTableSlot *found = sagaz_scan_probe(scan, table, index,
											 states->snapshot, keys, nkeys);

	MemoryContextSwitchTo(outer);
	return found;
}

/* The log's event of that id, or NULL; valid until the next call. */
TupleTableSlot *
sagaz_states_event(SagazStates *states, Datum event_id)
{
	MemoryContext outer = MemoryContextSwitchTo(states->context);
	TupleTableSlot *event = sagaz_event_fetch(&states->log, event_id,
											  states->snapshot);

	MemoryContextSwitchTo(outer);
	return event;
}

/* The group's retry row of a place, or NULL; valid until the next call. */
TupleTableSlot *
sagaz_states_retry_row(SagazStates *states, int64 seq)
{
	ScanKeyData keys[2];

	if (!states->has_group)
		return NULL;
	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, states->group.no);
	sagaz_key_int8(&keys[1], 2, BTEqualStrategyNumber, seq);
	return probe_states(states, &states->retry, "outbox_retry",
						"outbox_retry_pkey", keys, 2);
}

/* Has the group still to come to the place? */
bool
sagaz_states_unread(SagazStates *states, int16 lane, uint64 pos, int64 seq)
{
	const SagazCursor *cursor = sagaz_states_cursor(states, lane);

	return !sagaz_window_counts(&cursor->window, cursor->last_seq,
								states->cluster, pos, seq);
}

/*
 * The lane's oldest batch with an id from batch_id on; NULL if none.  Valid
 * until the next call.
 */
TupleTableSlot *
sagaz_states_batch_from(SagazStates *states, int16 lane, int64 batch_id)
{
	ScanKeyData keys[3];

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, states->group.no);
	sagaz_key_int2(&keys[1], 2, BTEqualStrategyNumber, lane);
	sagaz_key_int8(&keys[2], 3, BTGreaterEqualStrategyNumber, batch_id);
	return probe_states(states, &states->batches, "outbox_batch",
						"outbox_batch_key", keys, 3);
}
