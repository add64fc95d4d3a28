/*
 * native_read.c
 *		Reading the native tables.
 *
 * Everything is read along an index: sagas by key, beside them their steps,
 * whose index is in the same order; events by lane and place in the log, then
 * those of the archive by id.  An index scan can begin behind any of its
 * entries, so a reader goes on at a position for next to nothing.  An event
 * that retention moves to the archive between two readers is read again, but
 * none is left out.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "catalog/pg_collation.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"

#include "backends/native/native_store.h"
#include "outbox/outbox.h"
#include "backends/record/record.h"
#include "lib/words.h"

#define LOG_POSITION		"log "
#define ARCHIVE_POSITION	"archive "

/* ---------------------------------------------------------------------- */
/* Sagas */

static SagazScan *
scan_native_behind(NativeReader *reader, const char *table, const char *index)
{
	const char *position = reader->base.filter.position;
	ScanKeyData key;

	if (position == NULL)
		return sagaz_scan_begin(table, index, reader->snapshot, NULL, 0,
								ForwardScanDirection);
	ScanKeyEntryInitialize(&key, 0, 1, BTGreaterStrategyNumber, InvalidOid,
						   DEFAULT_COLLATION_OID, F_TEXT_GT,
						   CStringGetTextDatum(position));
	return sagaz_scan_begin(table, index, reader->snapshot, &key, 1,
							ForwardScanDirection);
}

static int
compare_native_keys(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* All keys by their bytes, which need not be the order of the index. */
static void
sort_native_keys(NativeReader *reader)
{
	SagazScan  *scan = scan_native_behind(reader, "sagas", "sagas_pkey");
	int			room = 256;
	const char **keys = palloc(room * sizeof(char *));

	while (sagaz_scan_next(scan))
	{
		CHECK_FOR_INTERRUPTS();
		if (reader->nkeys == room)
			keys = repalloc_huge(keys, (Size) (room *= 2) * sizeof(char *));
		keys[reader->nkeys++] = sagaz_column_text(scan->slot, saga_saga_id);
	}
	sagaz_scan_end(scan);
	qsort(keys, reader->nkeys, sizeof(char *), compare_native_keys);
	reader->keys = keys;
}

static void
begin_reading_sagas(NativeReader *reader)
{
	const SagazFilter *filter = &reader->base.filter;

	reader->keys = filter->key ? &filter->key : filter->keys;
	reader->nkeys = filter->key ? 1 : filter->nkeys;
	if (reader->nkeys > 0)
		return;
	if (filter->order == SAGAZ_BY_KEY)
	{
		sort_native_keys(reader);
		return;
	}
	reader->sagas = scan_native_behind(reader, "sagas", "sagas_pkey");
	reader->steps = scan_native_behind(reader, "saga_steps", "saga_steps_pkey");
	reader->has_step = sagaz_scan_next(reader->steps);
	initStringInfo(&reader->last_key);
}

static bool
read_next_saga_by_key(NativeReader *reader, SagaRow *row, SagaSteps *steps)
{
	while (reader->next_key < reader->nkeys)
	{
		Datum		saga_id = CStringGetTextDatum(reader->keys[reader->next_key++]);

		CHECK_FOR_INTERRUPTS();
		if (!saga_read(saga_id, reader->snapshot, row))
			continue;
		*steps = saga_read_steps(saga_id, reader->snapshot);
		return true;
	}
	return false;
}

/* Whose steps has the scan come to? As memcmp() says it. */
static int
compare_native_owner(NativeReader *reader, Datum saga_id)
{
	Datum		owner = sagaz_column(reader->steps->slot, step_saga_id);

	if (DatumGetBool(DirectFunctionCall2Coll(texteq, DEFAULT_COLLATION_OID,
											 owner, saga_id)))
		return 0;
	return DatumGetInt32(DirectFunctionCall2Coll(bttextcmp, DEFAULT_COLLATION_OID,
												 owner, saga_id));
}

static bool
read_next_saga_in_order(NativeReader *reader, SagaRow *row, SagaSteps *steps)
{
	if (!sagaz_scan_next(reader->sagas))
		return false;
	saga_copy_row(reader->sagas->slot, row);
	while (reader->has_step)
	{
		int			order = compare_native_owner(reader, saga_get(row, saga_saga_id));

		if (order > 0)
			break;
		if (order == 0)
			saga_add_step(steps, reader->steps->slot);
		reader->has_step = sagaz_scan_next(reader->steps);
	}
	return true;
}

static bool
read_next_saga(NativeReader *reader, SagazRecord *record)
{
	SagaRow		row;
	SagaSteps	steps = {0};

	if (reader->sagas ? !read_next_saga_in_order(reader, &row, &steps) :
		!read_next_saga_by_key(reader, &row, &steps))
		return false;
	native_saga_of_row(&row, &steps, &record->saga);
	if (reader->sagas)
	{
		resetStringInfo(&reader->last_key);
		appendStringInfoString(&reader->last_key, record->saga.saga_id);
	}
	return true;
}

/* ---------------------------------------------------------------------- */
/* Events */

static void
refuse_native_position(const char *position)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_INPUT),
			 errmsg("position \"%s\" is none of the outbox", position)));
}

/* Open the reader's lane, or the archive, behind a place or an id. */
static void
open_native_lane(NativeReader *reader, int64 after)
{
	ScanKeyData keys[2];

	sagaz_key_int2(&keys[0], 1, BTEqualStrategyNumber, reader->lane);
	sagaz_key_int8(&keys[1], 2, BTGreaterStrategyNumber, after);
	if (reader->rows)
		sagaz_scan_again(reader->rows, keys, 2);
	else
		reader->rows = sagaz_scan_begin("outbox", "outbox_lane_seq",
										reader->snapshot, keys, 2,
										ForwardScanDirection);
}

static void
open_native_archive(NativeReader *reader, const char *after)
{
	MemoryContext outer = MemoryContextSwitchTo(reader->base.context);
	ScanKeyData key;

	reader->lane = SAGAZ_LANES;
	if (after)
		ScanKeyInit(&key, 1, BTGreaterStrategyNumber, F_UUID_GT,
					native_uuid(after));
	reader->rows = sagaz_scan_begin("outbox_archive", "outbox_archive_pkey",
									reader->snapshot, &key, after ? 1 : 0,
									ForwardScanDirection);
	MemoryContextSwitchTo(outer);
}

/* Go on behind a position. */
static void
open_native_position(NativeReader *reader, const char *position)
{
	int			lane;
	long long	seq;
	char		more;

	if (strncmp(position, ARCHIVE_POSITION, strlen(ARCHIVE_POSITION)) == 0 &&
		sagaz_filter_is_uuid(position + strlen(ARCHIVE_POSITION)))
		open_native_archive(reader, position + strlen(ARCHIVE_POSITION));
	else if (sscanf(position, LOG_POSITION "%d %lld%c", &lane, &seq, &more) == 2 &&
			 lane >= 0 && lane < SAGAZ_LANES)
	{
		reader->lane = (int16) lane;
		open_native_lane(reader, (int64) seq);
	}
	else
		refuse_native_position(position);
}

/* The archive keeps the final state in the default group. */
static bool
native_archive_tells(const NativeReader *reader)
{
	return strcmp(reader->states->group.name, SAGAZ_DEFAULT_GROUP) == 0;
}

static SagazScan *
scan_native_ids(NativeReader *reader, const char *table, const char *index, bool *found)
{
	SagazScan  *scan = sagaz_scan_begin(table, index, reader->snapshot, NULL, 0,
										ForwardScanDirection);

	*found = sagaz_scan_next(scan);
	return scan;
}

/* Log and archive by id; the archive is the default group's. */
static void
open_native_by_key(NativeReader *reader)
{
	reader->rows = scan_native_ids(reader, "outbox", "outbox_event_id", &reader->has_row);
	if (native_archive_tells(reader))
		reader->archive = scan_native_ids(reader, "outbox_archive", "outbox_archive_pkey",
										  &reader->has_archived);
}

/* Which statuses are asked for, as a set of status_bit(). */
static int
statuses_to_read(const SagazFilter *filter)
{
	int			statuses = 0;

	for (int i = 0; i < filter->nstatuses; i++)
		for (int status = 0; sagaz_event_words[status]; status++)
			if (strcmp(filter->statuses[i], sagaz_event_words[status]) == 0)
				statuses |= status_bit(status);
	return statuses;
}

/* Those of the filter's keys that can be ids of events. */
static SagazEventScan *
scan_native_keys(NativeReader *reader)
{
	const SagazFilter *filter = &reader->base.filter;
	const char *const *keys = filter->key ? &filter->key : filter->keys;
	int			nkeys = filter->key ? 1 : filter->nkeys;
	Datum	   *ids = palloc(nkeys * sizeof(Datum));
	int			nids = 0;

	for (int i = 0; i < nkeys; i++)
		if (sagaz_filter_is_uuid(keys[i]))
			ids[nids++] = native_uuid(keys[i]);
	return sagaz_scan_by_ids(reader->states, ALL_STATUSES, ids, nids);
}

static void
begin_reading_events(NativeReader *reader)
{
	const SagazFilter *filter = &reader->base.filter;

	reader->states = sagaz_states_open(reader->base.store->consumer_group,
									   reader->snapshot);
	if (filter->key || filter->nkeys > 0)
		reader->events = scan_native_keys(reader);
	else if (filter->saga_id)
		reader->events = sagaz_scan_by_saga(reader->states, ALL_STATUSES,
											CStringGetTextDatum(filter->saga_id));
	else if (filter->nstatuses > 0)
		reader->events = sagaz_scan_by_status(reader->states,
											  statuses_to_read(filter));
	else if (filter->order == SAGAZ_BY_KEY)
		open_native_by_key(reader);
	else if (filter->position)
		open_native_position(reader, filter->position);
	else
		open_native_lane(reader, 0);
}

/* Read an event that was found; false if it is none of the group's. */
static bool
read_native_event(NativeReader *reader, SagazFoundEvent *found, SagazEvent *event)
{
	if (!found->archived)
	{
		sagaz_state_of(reader->states, found->slot, &found->state);
		if (found->state.status == EVENT_NONE)
			return false;
	}
	native_event_of(reader->states, found, event);
	return true;
}

/* Does the event with the lower id lie in the archive? */
static bool
read_archived_next(NativeReader *reader)
{
	if (!reader->has_row || !reader->has_archived)
		return reader->has_archived;
	return memcmp(DatumGetUUIDP(sagaz_column(reader->archive->slot, archive_column(event_event_id))),
				  DatumGetUUIDP(sagaz_column(reader->rows->slot, outbox_event_id)),
				  UUID_LEN) < 0;
}

/* The next event by id, which may be none of the group's. */
static bool
read_next_event_by_key(NativeReader *reader, SagazEvent *event)
{
	bool		has_any;

	do
	{
		SagazFoundEvent found = {.archived = read_archived_next(reader)};

		CHECK_FOR_INTERRUPTS();
		has_any = reader->has_row || reader->has_archived;
		if (!has_any)
			break;
		found.slot = found.archived ? reader->archive->slot : reader->rows->slot;
		has_any = read_native_event(reader, &found, event);
		if (found.archived)
			reader->has_archived = sagaz_scan_next(reader->archive);
		else
			reader->has_row = sagaz_scan_next(reader->rows);
	} while (!has_any);
	return has_any;
}

/* The next row of the log or the archive; false behind the last. */
static bool
read_next_row(NativeReader *reader)
{
	while (!sagaz_scan_next(reader->rows))
	{
		if (reader->lane == SAGAZ_LANES)
			return false;
		reader->lane++;
		if (reader->lane < SAGAZ_LANES)
		{
			open_native_lane(reader, 0);
			continue;
		}
		if (!native_archive_tells(reader))
			return false;
		sagaz_scan_end(reader->rows);
		open_native_archive(reader, NULL);
	}
	return true;
}

/* Walk over log and archive; events that are none of the group's are passed. */
static bool
read_next_event_in_order(NativeReader *reader, SagazEvent *event)
{
	SagazFoundEvent found;

	do
	{
		CHECK_FOR_INTERRUPTS();
		if (!read_next_row(reader))
			return false;
		found.slot = reader->rows->slot;
		found.archived = reader->lane == SAGAZ_LANES;
	} while (!read_native_event(reader, &found, event));
	reader->last_lane = reader->lane;
	if (found.archived)
		reader->last_id = *DatumGetUUIDP(sagaz_column(found.slot, 1));
	else
		reader->last_seq = DatumGetInt64(sagaz_column(found.slot, outbox_seq));
	return true;
}

static bool
read_next_event(NativeReader *reader, SagazRecord *record)
{
	const SagazFoundEvent *found;

	if (reader->base.filter.order == SAGAZ_BY_KEY && reader->events == NULL)
		return read_next_event_by_key(reader, &record->event);
	if (reader->events == NULL)
		return read_next_event_in_order(reader, &record->event);
	found = sagaz_event_scan_next(reader->events);
	if (found)
		native_event_of(reader->states, found, &record->event);
	return found != NULL;
}

/* ---------------------------------------------------------------------- */

/*
 * Reads with the caller's snapshot, which must stay active as long as the
 * reader.
 */
void
native_read_begin(SagazReader *base)
{
	NativeReader *reader = (NativeReader *) base;

	reader->snapshot = GetActiveSnapshot();
	if (base->kind == SAGAZ_SAGA)
		begin_reading_sagas(reader);
	else
		begin_reading_events(reader);
}

bool
native_read_next(SagazReader *base, SagazRecord *record)
{
	NativeReader *reader = (NativeReader *) base;

	if (base->filter.limit > 0 && reader->count >= base->filter.limit)
		return false;
	while (base->kind == SAGAZ_SAGA ? read_next_saga(reader, record) :
		   read_next_event(reader, record))
	{
		CHECK_FOR_INTERRUPTS();
		if (!sagaz_filter_matches(&base->filter, record))
			continue;
		reader->count++;
		return true;
	}
	return false;
}

/* Before the first record it is where the reader was told to go on. */
char *
native_read_position(SagazReader *base)
{
	NativeReader *reader = (NativeReader *) base;

	if (reader->count == 0)
		return base->filter.position ? pstrdup(base->filter.position) : NULL;
	if (base->kind == SAGAZ_SAGA)
		return pstrdup(reader->last_key.data);
	if (reader->last_lane < SAGAZ_LANES)
		return psprintf(LOG_POSITION "%d " INT64_FORMAT, reader->last_lane,
						reader->last_seq);
	return psprintf(ARCHIVE_POSITION "%s",
					DatumGetCString(DirectFunctionCall1(uuid_out,
														UUIDPGetDatum(&reader->last_id))));
}

void
native_read_end(SagazReader *base)
{
	NativeReader *reader = (NativeReader *) base;
	SagazScan  *scans[] = {
		reader->sagas, reader->steps, reader->rows, reader->archive
	};

	for (int i = 0; i < (int) lengthof(scans); i++)
		if (scans[i])
			sagaz_scan_end(scans[i]);
	if (reader->events)
		sagaz_event_scan_end(reader->events);
	if (reader->states)
		sagaz_states_close(reader->states);
}
