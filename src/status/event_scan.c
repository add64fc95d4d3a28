/*
 * event_scan.c
 *		Events with their state in one consumer group.
 *
 * A scan by status goes through the places where events of that status can
 * be, each found by an index, and so takes as long as there are such events,
 * however long the log is.  A scan by id or by saga looks the events up and
 * tells the state of each.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "status/event_scan.h"
#include "status/event_walk.h"
#include "outbox/outbox.h"

typedef enum Phase
{
	PHASE_IDS,
	PHASE_SAGA,
	PHASE_SAGA_ARCHIVE,
	PHASE_RETRIES,
	PHASE_HANDED_OUT,
	PHASE_AHEAD,
	PHASE_ARCHIVE,
	PHASE_END
} Phase;

struct SagazEventScan
{
	SagazStates *states;
	int			statuses;
	Phase		phase;
	SagazFoundEvent found;

	Datum	   *event_ids;
	int			nevent_ids;
	int			next_event_id;
	Datum		saga_id;

	int			retry_index;	/* in retry_indexes */
	SagazScan  *rows;			/* of outbox_retry or outbox_archive */
	SagazScan  *archive;		/* probes by event_id */
	SagazSagaWalk *saga;
	SagazHandedOutWalk *handed_out;
	SagazUnreadWalk *ahead;

	MemoryContext context;
	MemoryContext row_context;	/* reset with each event */
};

/*
 * Which index of outbox_retry has the rows of some states.  Where sent ones
 * are wanted the whole table is read, by its key.
 */
static const struct
{
	const char *index;
	bool		by_group;		/* does the index begin with group_no? */
	int			statuses;
	int			retry_states;
}			retry_indexes[] = {
	{
		"outbox_retry_due", true,
			status_bit(EVENT_PENDING) | status_bit(EVENT_FAILED),
			1 << RETRY_WAITING | 1 << RETRY_SCHEDULED
	},
	{
		"outbox_retry_saga", true, status_bit(EVENT_PENDING),
			1 << RETRY_HELD
	},
	{
		"outbox_retry_batch", false, status_bit(EVENT_CLAIMED),
			1 << RETRY_OUT
	},
	{
		"outbox_retry_dead", true, status_bit(EVENT_DEAD_LETTER),
			1 << RETRY_DEAD
	},
	{
		"outbox_retry_pkey", true, status_bit(EVENT_SENT),
			~0
	},
};

#define WHOLE_TABLE ((int) lengthof(retry_indexes) - 1)

static SagazEventScan *
begin_event_scan(SagazStates *states, int statuses, Phase phase)
{
	SagazEventScan *scan = palloc0(sizeof(SagazEventScan));

	scan->states = states;
	scan->statuses = statuses;
	scan->phase = phase;
	scan->context = CurrentMemoryContext;
	scan->row_context = AllocSetContextCreate(CurrentMemoryContext,
											  "sagaz event",
											  ALLOCSET_SMALL_SIZES);
	return scan;
}

/* All events in these statuses, in no order. */
SagazEventScan *
sagaz_scan_by_status(SagazStates *states, int statuses)
{
	SagazEventScan *scan = begin_event_scan(states, statuses, PHASE_RETRIES);

	scan->retry_index = statuses & status_bit(EVENT_SENT) ? WHOLE_TABLE : 0;
	if (!states->has_group)
		scan->phase = PHASE_HANDED_OUT;
	return scan;
}

/*
 * The events of these ids that are in one of the statuses.  The ids must
 * outlive the scan.
 */
SagazEventScan *
sagaz_scan_by_ids(SagazStates *states, int statuses, Datum *event_ids,
				  int count)
{
	SagazEventScan *scan = begin_event_scan(states, statuses, PHASE_IDS);

	scan->event_ids = event_ids;
	scan->nevent_ids = count;
	return scan;
}

/* Archived events come first, by time, then the log's in its order. */
SagazEventScan *
sagaz_scan_by_saga(SagazStates *states, int statuses, Datum saga_id)
{
	SagazEventScan *scan = begin_event_scan(states, statuses, PHASE_SAGA_ARCHIVE);

	scan->saga_id = saga_id;
	return scan;
}

/* The archive keeps the final state in one group. */
static bool
scan_archive_tells(const SagazEventScan *scan)
{
	return scan->states->archive_tells;
}

static bool
scan_found_in_log(SagazEventScan *scan, TupleTableSlot *slot)
{
	scan->found.slot = slot;
	scan->found.archived = false;
	return (scan->statuses & status_bit(scan->found.state.status)) != 0 &&
		scan->found.state.status != EVENT_NONE;
}

static EventStatus
scan_archived_status(TupleTableSlot *slot)
{
	int			status = 0;

	while (status < EVENT_STATUSES &&
		   sagaz_event_status_value(status) != sagaz_column(slot, archive_column(event_status)))
		status++;
	return (EventStatus) status;
}

static bool
scan_found_in_archive(SagazEventScan *scan, TupleTableSlot *slot)
{
	scan->found.slot = slot;
	scan->found.archived = true;
	scan->found.state.status = scan_archived_status(slot);
	return (scan->statuses & status_bit(scan->found.state.status)) != 0;
}

/* Begin or repeat a probe with one key. */
static void
scan_probe(SagazEventScan *scan, SagazScan **rows, const char *table,
		   const char *index, ScanKey key)
{
	MemoryContext outer = MemoryContextSwitchTo(scan->context);

	if (*rows)
		sagaz_scan_again(*rows, key, 1);
	else
		*rows = sagaz_scan_begin(table, index, scan->states->snapshot, key, 1,
								 ForwardScanDirection);
	MemoryContextSwitchTo(outer);
}

/* Each of these looks at one row; false if it is not what is wanted. */

static bool
scan_next_id(SagazEventScan *scan)
{
	ScanKeyData key;
	TupleTableSlot *slot;
	Datum		event_id;

	if (scan->next_event_id >= scan->nevent_ids)
	{
		scan->phase = PHASE_END;
		return false;
	}
	event_id = scan->event_ids[scan->next_event_id++];
	slot = sagaz_states_event(scan->states, event_id);
	if (slot)
	{
		sagaz_state_of(scan->states, slot, &scan->found.state);
		return scan_found_in_log(scan, slot);
	}
	if (!scan_archive_tells(scan))
		return false;
	sagaz_key_uuid(&key, 1, event_id);
	scan_probe(scan, &scan->archive, "outbox_archive", "outbox_archive_pkey", &key);
	return sagaz_scan_next(scan->archive) &&
		scan_found_in_archive(scan, scan->archive->slot);
}

static bool
scan_next_archived_of_saga(SagazEventScan *scan)
{
	if (scan->rows == NULL)
	{
		ScanKeyData key;

		sagaz_key_text(&key, 1, scan->saga_id);
		scan_probe(scan, &scan->rows, "outbox_archive", "outbox_archive_saga", &key);
	}
	if (scan_archive_tells(scan) && sagaz_scan_next(scan->rows))
		return scan_found_in_archive(scan, scan->rows->slot);
	sagaz_scan_end(scan->rows);
	scan->rows = NULL;
	scan->phase = PHASE_SAGA;
	return false;
}

static bool
scan_next_of_saga(SagazEventScan *scan)
{
	TupleTableSlot *slot;

	if (scan->saga == NULL)
	{
		MemoryContext outer = MemoryContextSwitchTo(scan->context);

		scan->saga = sagaz_saga_events_begin(scan->saga_id,
											 scan->states->snapshot);
		MemoryContextSwitchTo(outer);
	}
	slot = sagaz_saga_events_next(scan->saga);
	if (slot == NULL)
	{
		scan->phase = PHASE_END;
		return false;
	}
	sagaz_state_of(scan->states, slot, &scan->found.state);
	return scan_found_in_log(scan, slot);
}

/* Open the next index of outbox_retry that has rows wanted. */
static void
open_retry_scan(SagazEventScan *scan)
{
	ScanKeyData key;
	MemoryContext outer;

	while (scan->retry_index < (int) lengthof(retry_indexes) &&
		   !(retry_indexes[scan->retry_index].statuses & scan->statuses))
		scan->retry_index++;
	if (scan->retry_index >= (int) lengthof(retry_indexes))
	{
		scan->phase = PHASE_HANDED_OUT;
		return;
	}
	sagaz_key_int2(&key, 1, BTEqualStrategyNumber, scan->states->group.no);
	outer = MemoryContextSwitchTo(scan->context);
	scan->rows = sagaz_scan_begin("outbox_retry",
								  retry_indexes[scan->retry_index].index,
								  scan->states->snapshot, &key,
								  retry_indexes[scan->retry_index].by_group ? 1 : 0,
								  ForwardScanDirection);
	MemoryContextSwitchTo(outer);
}

static bool
scan_next_retry(SagazEventScan *scan)
{
	TupleTableSlot *retry;
	TupleTableSlot *slot;

	if (scan->rows == NULL)
	{
		open_retry_scan(scan);
		return false;
	}
	if (!sagaz_scan_next(scan->rows))
	{
		sagaz_scan_end(scan->rows);
		scan->rows = NULL;
		scan->retry_index++;
		return false;
	}
	retry = scan->rows->slot;
	if (DatumGetInt16(sagaz_column(retry, retry_group_no)) != scan->states->group.no ||
		!(retry_indexes[scan->retry_index].retry_states &
		  1 << DatumGetInt16(sagaz_column(retry, retry_state))))
		return false;
	sagaz_state_of_retry(retry, &scan->found.state);
	if (!(scan->statuses & status_bit(scan->found.state.status)))
		return false;
	slot = sagaz_states_event(scan->states, sagaz_column(retry, retry_event_id));
	return slot != NULL && scan_found_in_log(scan, slot);
}

static bool
scan_next_handed_out(SagazEventScan *scan)
{
	static const int possible =
		status_bit(EVENT_PENDING) | status_bit(EVENT_CLAIMED) | status_bit(EVENT_SENT);
	TupleTableSlot *slot = NULL;

	if (scan->handed_out == NULL && (scan->statuses & possible))
	{
		MemoryContext outer = MemoryContextSwitchTo(scan->context);

		scan->handed_out = sagaz_handed_out_begin(scan->states, scan->statuses);
		MemoryContextSwitchTo(outer);
	}
	if (scan->handed_out)
		slot = sagaz_handed_out_next(scan->handed_out, &scan->found.state);
	if (slot)
		return scan_found_in_log(scan, slot);
	scan->phase = PHASE_AHEAD;
	return false;
}

static bool
scan_next_unread(SagazEventScan *scan)
{
	TupleTableSlot *slot = NULL;

	if (scan->ahead == NULL && (scan->statuses & status_bit(EVENT_PENDING)))
	{
		MemoryContext outer = MemoryContextSwitchTo(scan->context);

		scan->ahead = sagaz_unread_begin(scan->states, 0, SAGAZ_LANES - 1);
		MemoryContextSwitchTo(outer);
	}
	if (scan->ahead)
		slot = sagaz_unread_next(scan->ahead);
	if (slot)
	{
		sagaz_state_unread(slot, &scan->found.state);
		return scan_found_in_log(scan, slot);
	}
	scan->phase = PHASE_ARCHIVE;
	return false;
}

/* Archived events that are not sent are rare and have an index. */
static bool
scan_next_archived(SagazEventScan *scan)
{
	if (!scan_archive_tells(scan))
	{
		scan->phase = PHASE_END;
		return false;
	}
	if (scan->rows == NULL)
	{
		bool		sent = (scan->statuses & status_bit(EVENT_SENT)) != 0;
		MemoryContext outer = MemoryContextSwitchTo(scan->context);

		scan->rows = sagaz_scan_begin("outbox_archive",
									  sent ? "outbox_archive_pkey" : "outbox_archive_unsent",
									  scan->states->snapshot, NULL, 0,
									  ForwardScanDirection);
		MemoryContextSwitchTo(outer);
	}
	if (sagaz_scan_next(scan->rows))
		return scan_found_in_archive(scan, scan->rows->slot);
	scan->phase = PHASE_END;
	return false;
}

static bool
scan_step(SagazEventScan *scan)
{
	switch (scan->phase)
	{
		case PHASE_IDS:
			return scan_next_id(scan);
		case PHASE_SAGA_ARCHIVE:
			return scan_next_archived_of_saga(scan);
		case PHASE_SAGA:
			return scan_next_of_saga(scan);
		case PHASE_RETRIES:
			return scan_next_retry(scan);
		case PHASE_HANDED_OUT:
			return scan_next_handed_out(scan);
		case PHASE_AHEAD:
			return scan_next_unread(scan);
		case PHASE_ARCHIVE:
			return scan_next_archived(scan);
		case PHASE_END:
			break;
	}
	return false;
}

/*
 * The next event, or NULL; valid until the next call, whatever the present
 * memory context.
 */
const SagazFoundEvent *
sagaz_event_scan_next(SagazEventScan *scan)
{
	MemoryContext outer;
	bool		found = false;

	outer = MemoryContextSwitchTo(scan->row_context);
	while (!found && scan->phase != PHASE_END)
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(scan->row_context);
		found = scan_step(scan);
	}
	MemoryContextSwitchTo(outer);
	return found ? &scan->found : NULL;
}

/* Close what the scan has open; the states are the caller's to close. */
void
sagaz_event_scan_end(SagazEventScan *scan)
{
	SagazScan  *rows[] = {scan->rows, scan->archive};

	for (int i = 0; i < (int) lengthof(rows); i++)
		if (rows[i])
			sagaz_scan_end(rows[i]);
	if (scan->saga)
		sagaz_saga_events_end(scan->saga);
	if (scan->handed_out)
		sagaz_handed_out_end(scan->handed_out);
	if (scan->ahead)
		sagaz_unread_end(scan->ahead);
	MemoryContextDelete(scan->row_context);
	pfree(scan);
}
