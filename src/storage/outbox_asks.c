/*
 * outbox_asks.c
 *		Asking about events of storages other than the native tables.
 */
#include "lib/sagaz.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "outbox/event.h"
#include "outbox/outbox.h"
#include "status/event_scan.h"
#include "storage/calls.h"
#include "storage/event_row_out.h"
#include "backends/record/record.h"
#include "lib/rows.h"
#include "storage/storage.h"
#include "lib/words.h"

static const char *const claimed_word[] = {"claimed"};
static const char *const pending_word[] = {"pending"};
static const char *const dead_word[] = {"dead_letter"};

/* A row needs a UUID, though a record may have another id. */
static Datum
asked_uuid_of(const SagazStore *store, const char *event_id)
{
	if (!sagaz_filter_is_own_uuid(event_id))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_SERIALIZATION),
				 errmsg("event \"%s\" of storage \"%s\" has an id that is no UUID in small letters",
						event_id, store->name),
				 errhint("%s.export_all() shows it as it is.", SAGAZ_SCHEMA)));
	return DirectFunctionCall1(uuid_in, CStringGetDatum(event_id));
}

/* Return an event as a row of type outbox_event. */
void
sagaz_put_asked_row(FunctionCallInfo fcinfo, const SagazStore *store,
					const SagazRecord *record)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	const SagazEvent *event = &record->event;
	Datum		values[event_columns];
	bool		nulls[event_columns];

	sagaz_call_check_readable(store, record);
	sagaz_event_row_of_record(event, asked_uuid_of(store, event->event_id),
							  values, nulls);
	nulls[event_batch_id] = event->batch_id == 0;
	values[event_batch_id] = Int64GetDatum(event->batch_id);
	values[event_consumer_group] = CStringGetTextDatum(store->consumer_group);
	nulls[event_consumer_group] = false;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
put_asked_rows(FunctionCallInfo fcinfo, SagazStore *store, const SagazFilter *filter)
{
	SagazReader *reader = sagaz_store_read_begin(store, SAGAZ_EVENT, filter);
	SagazRecord record;

	while (sagaz_store_read_next(reader, &record))
		sagaz_put_asked_row(fcinfo, store, &record);
	sagaz_store_read_end(reader);
}

/* get_event(event_id, consumer_group) */
Datum
sagaz_call_get_event(FunctionCallInfo fcinfo, SagazStore *store)
{
	SagazFilter filter = {0};

	sagaz_rows_begin(fcinfo);
	filter.key = DatumGetCString(DirectFunctionCall1(uuid_out, sagaz_argument(fcinfo, 0, "event_id")));
	sagaz_storage_check_group(store, fcinfo, 1);
	put_asked_rows(fcinfo, store, &filter);
	return (Datum) 0;
}

/* get_events_by_saga(saga_id, consumer_group) */
Datum
sagaz_call_get_events_by_saga(FunctionCallInfo fcinfo, SagazStore *store)
{
	SagazFilter filter = {.order = SAGAZ_OLDEST_FIRST};

	sagaz_rows_begin(fcinfo);
	filter.saga_id = sagaz_text_argument(fcinfo, 0, "saga_id");
	sagaz_storage_check_group(store, fcinfo, 1);
	put_asked_rows(fcinfo, store, &filter);
	return (Datum) 0;
}

/* get_stuck_events(claimed_older_than, consumer_group) */
Datum
sagaz_call_get_stuck_events(FunctionCallInfo fcinfo, SagazStore *store)
{
	SagazFilter filter = {.statuses = claimed_word,.nstatuses = 1,
	.order = SAGAZ_OLDEST_FIRST};

	sagaz_rows_begin(fcinfo);
	filter.claimed_before = GetCurrentTimestamp() -
		sagaz_interval_argument(fcinfo, 0, "claimed_older_than") + 1;
	sagaz_storage_check_group(store, fcinfo, 1);
	put_asked_rows(fcinfo, store, &filter);
	return (Datum) 0;
}

/* get_dead_letter_events(max_rows, consumer_group) */
Datum
sagaz_call_get_dead_letter_events(FunctionCallInfo fcinfo, SagazStore *store)
{
	SagazFilter filter = {.statuses = dead_word,.nstatuses = 1,
	.order = SAGAZ_OLDEST_FIRST};

	sagaz_rows_begin(fcinfo);
	filter.limit = sagaz_rows_argument(fcinfo, 0, "max_rows");
	sagaz_storage_check_group(store, fcinfo, 1);
	if (filter.limit > 0)
		put_asked_rows(fcinfo, store, &filter);
	return (Datum) 0;
}

/* get_pending_count(consumer_group) */
Datum
sagaz_call_get_pending_count(FunctionCallInfo fcinfo, SagazStore *store)
{
	SagazFilter filter = {.statuses = pending_word,.nstatuses = 1};

	sagaz_storage_check_group(store, fcinfo, 0);
	PG_RETURN_INT64(sagaz_count(store, SAGAZ_EVENT, &filter));
}

/* ---------------------------------------------------------------------- */
/* Statistics and health */

typedef struct EventTally
{
	int64		total;
	int64		by_status[EVENT_STATUSES];
	int64		batches;
	TimestampTz oldest_pending;
} EventTally;

static void
tally_outbox_event(EventTally *tally, const SagazEvent *event)
{
	for (int i = 0; sagaz_event_words[i]; i++)
		if (strcmp(sagaz_event_words[i], event->status) == 0)
			tally->by_status[i]++;
	tally->total++;
	if (strcmp(event->status, "pending") == 0 &&
		(tally->oldest_pending == 0 || event->created_at < tally->oldest_pending))
		tally->oldest_pending = event->created_at;
}

static int
compare_batch_ids(const ListCell *a, const ListCell *b)
{
	int64		x = *(int64 *) lfirst(a);
	int64		y = *(int64 *) lfirst(b);

	return (x > y) - (x < y);
}

/* Batches that are out; there are few of them. */
static int64
count_outbox_batches(SagazStore *store)
{
	SagazFilter filter = {.statuses = claimed_word,.nstatuses = 1};
	SagazReader *reader = sagaz_store_read_begin(store, SAGAZ_EVENT, &filter);
	SagazRecord record;
	List	   *ids = NIL;
	ListCell   *cell;
	int64		count = 0;
	int64		last = 0;

	while (sagaz_store_read_next(reader, &record))
	{
		int64	   *id = palloc(sizeof(int64));

		*id = record.event.batch_id;
		ids = lappend(ids, id);
	}
	sagaz_store_read_end(reader);
	list_sort(ids, compare_batch_ids);
	foreach(cell, ids)
	{
		int64		id = *(int64 *) lfirst(cell);

		if (id != last || count == 0)
			count++;
		last = id;
	}
	return count;
}

static void
tally_outbox_events(SagazStore *store, EventTally *tally)
{
	SagazFilter filter = {0};
	SagazReader *reader = sagaz_store_read_begin(store, SAGAZ_EVENT, &filter);
	MemoryContext part = AllocSetContextCreate(CurrentMemoryContext,
											   "sagaz tally", ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(part);
	SagazRecord record;

	while (sagaz_store_read_next(reader, &record))
	{
		if (record.problem == NULL)
			tally_outbox_event(tally, &record.event);
		MemoryContextReset(part);
	}
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(part);
	sagaz_store_read_end(reader);
	tally->batches = count_outbox_batches(store);
}

/* get_outbox_statistics(consumer_group) */
Datum
sagaz_call_get_outbox_statistics(FunctionCallInfo fcinfo, SagazStore *store)
{
	EventTally	tally = {0};
	Interval   *age = palloc0(sizeof(Interval));
	TupleDesc	row_type;
	Datum		values[12];
	bool		nulls[12] = {false};
	int			column = 0;

	if (get_call_result_type(fcinfo, NULL, &row_type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	sagaz_storage_check_group(store, fcinfo, 0);
	tally_outbox_events(store, &tally);
	age->time = Max(GetCurrentTimestamp() - sagaz_real_time(tally.oldest_pending), 0);
	values[column++] = CStringGetTextDatum(store->consumer_group);
	values[column++] = Int64GetDatum(tally.total);
	for (int status = 0; status < EVENT_STATUSES; status++)
		values[column++] = Int64GetDatum(tally.by_status[status]);
	values[column++] = Int64GetDatum(0);
	nulls[column] = tally.oldest_pending == 0;
	values[column++] = PointerGetDatum(age);
	values[column++] = Int64GetDatum(tally.batches);
	values[column++] = BoolGetDatum(false);
	values[column++] = BoolGetDatum(false);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(row_type),
													  values, nulls)));
}
