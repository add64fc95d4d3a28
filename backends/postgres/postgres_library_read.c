/*
 * postgres_library_read.c
 *		The Python library's tables in another PostgreSQL database: reading.
 */
#include "backends/postgres/postgres_library.h"
#include "backends/postgres/postgres_columns.h"

#include <limits.h>

#include "utils/timestamp.h"

#include "backends/record/record.h"
#include "lib/encoding.h"
#include "lib/times.h"

/* A SELECT that is being put together. */
typedef struct LibraryQuery
{
	StringInfoData sql;
	const char **values;
	int			nvalues;
	int			room;
} LibraryQuery;

static const char *const main_table[] = {"@.sagas", "@.saga_outbox"};
static const char *const key_column[] = {"saga_id", "event_id"};

/* As sagaz_record_check() has what is NULL. */
#define UPDATED_AT "coalesce(m.updated_at, m.created_at, 'epoch')"

/* What there is to be read while a side table is not there. */
static const char *const no_side[] = {
	"(SELECT NULL::varchar AS saga_id, NULL::timestamptz AS created_at,"
	" NULL::timestamptz AS updated_at, NULL::bigint AS version,"
	" NULL::jsonb AS steps, NULL::jsonb AS steps_seen WHERE false)",
	"(SELECT NULL::uuid AS event_id, NULL::timestamptz AS created_at,"
	" NULL::varchar AS status, NULL::timestamptz AS claimed_at,"
	" NULL::bigint AS batch_id, NULL::bigint AS lease_until,"
	" NULL::bigint AS next_attempt_at, NULL::text AS routing_key,"
	" NULL::text AS partition_key WHERE false)"
};

static const char *const side_table[] = {"@.sagaz_saga", "@.sagaz_event"};

static const char *const selected[] = {
	"SELECT m.saga_id, m.saga_name, m.status,"
	" CASE WHEN s.steps_seen = t.steps THEN s.steps ELSE t.steps END,"
	" m.context, m.metadata, m.created_at, m.updated_at, s.version,"
	" s.updated_at IS DISTINCT FROM m.updated_at",
	"SELECT m.event_id, m.saga_id, m.event_type, m.payload, m.status,"
	" m.created_at, m.claimed_at, m.sent_at, m.worker_id, m.retry_count,"
	" m.last_error, m.aggregate_type, m.aggregate_id, m.headers,"
	" s.routing_key, s.partition_key, l.batch_id, l.lease_until,"
	" l.next_attempt_at"
};

/* Formats for the main table and the side table. */
static const char *const joined[] = {
	" FROM %s AS m LEFT JOIN %s AS s"
	" ON s.saga_id = m.saga_id AND s.created_at IS NOT DISTINCT FROM m.created_at",
	" FROM %s AS m LEFT JOIN %s AS s"
	" ON s.event_id = m.event_id AND s.created_at = m.created_at"
	" LEFT JOIN LATERAL (SELECT s.batch_id, s.lease_until, s.next_attempt_at"
	" WHERE s.status = m.status AND s.claimed_at IS NOT DISTINCT FROM m.claimed_at)"
	" AS l ON true"
};

/* ---------------------------------------------------------------------- */
/* Statements */

/* Add a parameter as it is; its number. */
static int
add_bytes(LibraryQuery *query, const char *value)
{
	if (query->nvalues == query->room)
	{
		query->room = query->room * 2 + 8;
		query->values = query->values ?
			repalloc(query->values, query->room * sizeof(char *)) :
			palloc(query->room * sizeof(char *));
	}
	query->values[query->nvalues++] = value;
	return query->nvalues;
}

static int
add_value(LibraryQuery *query, const char *value)
{
	return add_bytes(query, sagaz_to_utf8(value));
}

/* Add a condition, a format for the parameter's number. */
static void add_condition(LibraryQuery *query, const char *format, const char *value) pg_attribute_printf(2, 0);

static void
add_condition(LibraryQuery *query, const char *format, const char *value)
{
	int			number = add_value(query, value);

	appendStringInfoString(&query->sql, " AND ");
	appendStringInfo(&query->sql, format, number, number);
}

static char *
library_time(TimestampTz time)
{
	char	   *text = palloc(SAGAZ_TIME_SIZE);

	time = sagaz_real_time(time);
	if (!sagaz_time_in_range(time))
		return time < 0 ? "-infinity" : "infinity";
	(void) sagaz_format_time(time, text);
	return text;
}

static void
queue_library_query(PostgresStore *store, LibraryQuery *query)
{
	postgres_queue_bytes(store, library_sql(store, query->sql.data), query->nvalues,
						 NULL, query->values);
}

/* ---------------------------------------------------------------------- */
/* Filters */

/* Only those of the keys that can be there: an event's is a UUID. */
static char *
keys_array(SagazKind kind, const char *const *keys, int count)
{
	const char **possible = palloc(Max(count, 1) * sizeof(char *));
	int			npossible = 0;

	for (int i = 0; i < count; i++)
		if (kind == SAGAZ_SAGA || sagaz_filter_is_uuid(keys[i]))
			possible[npossible++] = keys[i];
	return postgres_text_array(possible, npossible);
}

static void
add_claimable(LibraryQuery *query, const SagazFilter *filter)
{
	int			now = add_value(query, psprintf(INT64_FORMAT, filter->claimable_at));
	int			latest = add_value(query, library_time(filter->claimable_at - filter->lease_us));
	int			ahead = add_value(query, library_time(filter->claimable_at + SAGAZ_CLOCK_SLACK));

	appendStringInfo(&query->sql, " AND CASE m.status"
					 " WHEN 'claimed' THEN (coalesce(m.claimed_at, '-infinity') <= $%d::timestamptz"
					 " OR m.claimed_at > $%d::timestamptz)"
					 " AND coalesce(l.lease_until, 0) <= $%d::bigint"
					 " WHEN 'pending' THEN coalesce(l.next_attempt_at, 0) <= $%d::bigint"
					 " WHEN 'failed' THEN coalesce(l.next_attempt_at, 0) <= $%d::bigint"
					 " ELSE false END AND m.status IN ('pending', 'failed', 'claimed')",
					 latest, ahead, now, now, now);
}

static void
add_event_conditions(LibraryQuery *query, const SagazFilter *filter)
{
	if (filter->saga_id)
		add_condition(query, "m.saga_id = $%d", filter->saga_id);
	if (filter->event_type)
		add_condition(query, "m.event_type = $%d", filter->event_type);
	if (filter->batch_id != 0)
		add_condition(query, "l.batch_id = $%d::bigint AND s.batch_id = $%d::bigint",
					  psprintf(INT64_FORMAT, filter->batch_id));
	if (filter->claimed_before != 0)
		appendStringInfo(&query->sql, " AND (m.claimed_at < $%d::timestamptz"
						 " OR m.claimed_at > $%d::timestamptz)",
						 add_value(query, library_time(filter->claimed_before)),
						 add_value(query, library_time(GetCurrentTimestamp() + SAGAZ_CLOCK_SLACK)));
	if (filter->sent_before != 0)
		add_condition(query, "m.sent_at < $%d::timestamptz",
					  library_time(filter->sent_before));
	if (filter->claimable_at != 0)
		add_claimable(query, filter);
}

/* All of a filter but a part of a name, which the reader compares. */
static void
add_conditions(LibraryQuery *query, SagazKind kind, const SagazFilter *filter)
{
	const char *type = kind == SAGAZ_SAGA ? "text[]" : "uuid[]";

	appendStringInfoString(&query->sql, " WHERE true");
	if (filter->key)
		add_condition(query, psprintf("m.%s = ANY ($%%d::%s)", key_column[kind], type),
					  keys_array(kind, &filter->key, 1));
	if (filter->nkeys > 0)
		add_condition(query, psprintf("m.%s = ANY ($%%d::%s)", key_column[kind], type),
					  keys_array(kind, filter->keys, filter->nkeys));
	if (filter->nstatuses > 0)
		add_condition(query, "m.status = ANY ($%d::text[])",
					  postgres_text_array(filter->statuses, filter->nstatuses));
	if (kind == SAGAZ_EVENT)
		add_event_conditions(query, filter);
	else if (filter->updated_before != 0)
		add_condition(query, UPDATED_AT " < $%d::timestamptz",
					  library_time(filter->updated_before));
}

/* How the storage sorts keys is good enough where nobody asks for bytes. */
static const char *
key_order(SagazKind kind, SagazOrder order)
{
	return kind == SAGAZ_SAGA && order != SAGAZ_ANY_ORDER &&
		order != SAGAZ_FOR_COPY ? " COLLATE \"C\"" : "";
}

static void
add_order(LibraryQuery *query, SagazKind kind, SagazOrder order)
{
	appendStringInfoString(&query->sql, " ORDER BY ");
	if (order == SAGAZ_OLDEST_FIRST ||
		(order == SAGAZ_FOR_COPY && kind == SAGAZ_EVENT))
		appendStringInfoString(&query->sql, "m.created_at, ");
	if (order == SAGAZ_NEWEST_FIRST)
		appendStringInfoString(&query->sql, "m.created_at DESC, ");
	appendStringInfo(&query->sql, "m.%s%s", key_column[kind], key_order(kind, order));
}

/* A SELECT of this, from the tables of that kind, of what matches. */
static LibraryQuery *
begin_library_query(const PostgresStore *store, SagazKind kind, const char *what,
					const SagazFilter *filter)
{
	LibraryQuery	   *query = palloc0(sizeof(LibraryQuery));

	initStringInfo(&query->sql);
	appendStringInfoString(&query->sql, what);
	appendStringInfo(&query->sql, joined[kind], main_table[kind],
					 store->has_side[kind] ? side_table[kind] : no_side[kind]);
	if (kind == SAGAZ_SAGA && what == selected[kind])
		appendStringInfoString(&query->sql, " CROSS JOIN LATERAL (SELECT "
							   LIBRARY_STEPS_OF("m") ") AS t");
	add_conditions(query, kind, filter);
	return query;
}

/* ---------------------------------------------------------------------- */
/* Rows to records */

static char *
read_library_text(const PostgresResult *rows, int row, int column, const char *field,
				  SagazRecord *record)
{
	const char *value = postgres_bytes(rows, row, column);

	return value ? sagaz_field_text(value, strlen(value), field, record) : NULL;
}

static Jsonb *
read_library_json(const PostgresResult *rows, int row, int column, const char *field,
				  SagazRecord *record)
{
	return sagaz_field_json(read_library_text(rows, row, column, field, record), field, record);
}

static TimestampTz
read_library_time(const PostgresResult *rows, int row, int column, const char *field,
				  SagazRecord *record)
{
	return sagaz_field_time(read_library_text(rows, row, column, field, record), field, record);
}

/* The column is an integer. */
static int
retry_count_of(const PostgresResult *rows, int row, int column)
{
	int64		number = postgres_number_or_zero(rows, row, column);

	if (number < PG_INT32_MIN || number > PG_INT32_MAX)
		postgres_refuse_result(rows, "A number is out of range");
	return (int) number;
}

static void
read_library_saga(const PostgresResult *rows, int row, SagazRecord *record)
{
	SagazSaga  *saga = &record->saga;

	saga->saga_id = read_library_text(rows, row, 0, "saga_id", record);
	saga->saga_name = read_library_text(rows, row, 1, "saga_name", record);
	saga->status = read_library_text(rows, row, 2, "status", record);
	saga->steps = read_library_json(rows, row, 3, "steps", record);
	saga->context = read_library_json(rows, row, 4, "context", record);
	saga->metadata = read_library_json(rows, row, 5, "metadata", record);
	saga->created_at = read_library_time(rows, row, 6, "created_at", record);
	saga->updated_at = read_library_time(rows, row, 7, "updated_at", record);
	saga->version = postgres_number_or_zero(rows, row, 8);
	/* the library changed it since, and knows no versions */
	if (saga->version > 0 && postgres_flag(rows, row, 9))
		saga->version++;
}

static void
read_library_event(const PostgresResult *rows, int row, SagazRecord *record)
{
	SagazEvent *event = &record->event;

	event->event_id = read_library_text(rows, row, 0, "event_id", record);
	event->saga_id = read_library_text(rows, row, 1, "saga_id", record);
	event->event_type = read_library_text(rows, row, 2, "event_type", record);
	event->payload = read_library_json(rows, row, 3, "payload", record);
	event->status = read_library_text(rows, row, 4, "status", record);
	event->created_at = read_library_time(rows, row, 5, "created_at", record);
	event->claimed_at = read_library_time(rows, row, 6, "claimed_at", record);
	event->sent_at = read_library_time(rows, row, 7, "sent_at", record);
	event->worker_id = read_library_text(rows, row, 8, "worker_id", record);
	event->retry_count = retry_count_of(rows, row, 9);
	event->last_error = read_library_text(rows, row, 10, "last_error", record);
	event->aggregate_type = read_library_text(rows, row, 11, "aggregate_type", record);
	event->aggregate_id = read_library_text(rows, row, 12, "aggregate_id", record);
	event->headers = read_library_json(rows, row, 13, "headers", record);
	event->routing_key = read_library_text(rows, row, 14, "routing_key", record);
	event->partition_key = read_library_text(rows, row, 15, "partition_key", record);
	event->batch_id = postgres_number_or_zero(rows, row, 16);
	event->lease_until = postgres_number_or_zero(rows, row, 17);
	event->next_attempt_at = postgres_number_or_zero(rows, row, 18);
}

/* The record of a row, or NULL where it does not match the filter. */
SagazRecord *
library_record(const PostgresResult *rows, int row, SagazKind kind,
		 const SagazFilter *filter)
{
	SagazRecord *record = palloc0(sizeof(SagazRecord));

	record->kind = kind;
	if (kind == SAGAZ_SAGA)
		read_library_saga(rows, row, record);
	else
		read_library_event(rows, row, record);
	sagaz_record_check(record);
	if ((record->problem || filter->name_part) &&
		!sagaz_filter_matches(filter, record))
		return NULL;
	return record;
}

/* ---------------------------------------------------------------------- */
/* Reading */

/* Rows of records, the next so many by key or the first so many by time. */
static PostgresResult *
read_library_page(PostgresStore *store, SagazKind kind, const SagazFilter *filter,
				  const char *after_key, int count)
{
	LibraryQuery	   *query = begin_library_query(store, kind, selected[kind], filter);
	PostgresResult **results;
	int			nresults;

	if (after_key)
	{
		appendStringInfo(&query->sql, " AND m.%s%s > ", key_column[kind],
						 key_order(kind, filter->order));
		appendStringInfo(&query->sql, "$%d%s", add_bytes(query, after_key),
						 kind == SAGAZ_SAGA ? "" : "::uuid");
	}
	add_order(query, kind, filter->order);
	if (count != INT_MAX)
		appendStringInfo(&query->sql, " LIMIT %d", count);
	queue_library_query(store, query);
	results = postgres_exchange(store, &nresults);
	postgres_expect_rows(results[0], count);
	return results[0];
}

/*
 * The next "count" records in the filter's order or, where that is any, by
 * key; after_key is the last one's key as it came, NULL for none.  In any
 * order but by key there is one call, for as many as there are.
 */
static List *
read_library(PostgresStore *store, SagazKind kind, const SagazFilter *filter,
			 const char **after_key, int count)
{
	bool		in_pages = postgres_reads_by_key(kind, filter);
	/* a name is not compared at the other end */
	int			wanted = in_pages || filter->name_part == NULL ? count : INT_MAX;
	List	   *records = NIL;

	if (!store->has[kind])
		return NIL;
	for (;;)
	{
		PostgresResult *rows = read_library_page(store, kind, filter, *after_key, wanted);

		for (int row = 0; row < rows->nrows && list_length(records) < count; row++)
		{
			SagazRecord *record = library_record(rows, row, kind, filter);

			if (record)
				records = lappend(records, record);
			*after_key = postgres_bytes(rows, row, 0);
		}
		if (!in_pages || rows->nrows < wanted || list_length(records) == count)
			return records;
	}
}

/*
 * The next events of a copy.  The tables have no index by time, so the events
 * are sorted once, into a cursor that outlasts its transaction.  One that an
 * error has left open is closed by the next copy.
 */
static List *
fetch_library_copy(PostgresReader *reader, int count)
{
	PostgresStore *store = (PostgresStore *) reader->base.store;
	SagazKind	kind = reader->base.kind;
	LibraryQuery *query;
	List	   *records = NIL;
	PostgresResult **results;
	PostgresResult *rows;
	int			nresults;

	if (!store->has[kind])
	{
		reader->at_end = true;
		return NIL;
	}
	if (!reader->copies)
	{
		if (store->copy_is_open)
			postgres_queue(store, "CLOSE sagaz_copy", 0, NULL, NULL);
		query = begin_library_query(store, kind, selected[kind], &reader->base.filter);
		add_order(query, kind, reader->base.filter.order);
		query->sql.data = psprintf("DECLARE sagaz_copy NO SCROLL CURSOR WITH HOLD FOR %s",
								   query->sql.data);
		queue_library_query(store, query);
	}
	postgres_queue(store, psprintf("FETCH %d FROM sagaz_copy", count), 0, NULL, NULL);
	results = postgres_exchange(store, &nresults);
	reader->copies = store->copy_is_open = true;
	rows = results[nresults - 1];
	postgres_expect_rows(rows, count);
	for (int row = 0; row < rows->nrows; row++)
	{
		SagazRecord *record = library_record(rows, row, kind, &reader->base.filter);

		if (record)
			records = lappend(records, record);
	}
	reader->at_end = rows->nrows < count;
	return records;
}

/* Those by time come all at once, but for a copy. */
List *
library_fetch(PostgresReader *reader)
{
	const SagazFilter *filter = &reader->base.filter;
	bool		in_chunks = postgres_reads_by_key(reader->base.kind, filter);
	int64		count = in_chunks ? reader->fetch_size : INT_MAX;
	const char *last_key = reader->last_key;
	List	   *records;

	if (filter->order == SAGAZ_FOR_COPY && !in_chunks)
		return fetch_library_copy(reader, reader->fetch_size);
	if (filter->limit > 0)
		count = Min(count, filter->limit - reader->count);
	records = read_library((PostgresStore *) reader->base.store, reader->base.kind,
						   filter, &last_key, (int) count);
	if (last_key != reader->last_key)
		reader->last_key = MemoryContextStrdup(reader->base.context, last_key);
	reader->at_end = !in_chunks || list_length(records) < count;
	return records;
}

/*
 * The rows, without a look into them: those that no record can be made of
 * count.
 */
int64
library_count(PostgresStore *store, SagazKind kind, const SagazFilter *filter)
{
	PostgresResult **results;
	int			nresults;

	if (!store->has[kind])
		return 0;
	if (filter->name_part || filter->limit > 0)
		return sagaz_store_count_by_reading(&store->base, kind, filter);
	queue_library_query(store, begin_library_query(store, kind, "SELECT count(*)", filter));
	results = postgres_exchange(store, &nresults);
	return postgres_number(results[0], 0, 0);
}

/*
 * Lock what matches, then read it: what somebody else has just changed is
 * only seen whole by a statement that begins when the lock is there.  The
 * keys stay at the other end, so that both are one exchange.
 */
PostgresResult *
library_lock(PostgresStore *store, SagazKind kind, const SagazFilter *filter)
{
	SagazFilter unlimited = *filter;
	const char *key = key_column[kind];
	LibraryQuery	   *lock = begin_library_query(store, kind,
								   psprintf("SELECT pg_catalog.set_config('sagaz_edit.keys',"
											" coalesce(array_agg(f.%s)::text, '{}'), true)"
											" FROM (SELECT m.%s", key, key), filter);
	LibraryQuery	   *query = begin_library_query(store, kind, selected[kind], &unlimited);
	PostgresResult **results;
	int			nresults;

	add_order(lock, kind, filter->order);
	if (filter->limit > 0 && filter->name_part == NULL)
		appendStringInfo(&lock->sql, " LIMIT " INT64_FORMAT, filter->limit);
	appendStringInfo(&lock->sql, " FOR UPDATE OF m%s) AS f",
					 filter->claimable_at != 0 ? " SKIP LOCKED" : "");
	appendStringInfo(&query->sql,
					 " AND m.%s = ANY (current_setting('sagaz_edit.keys')::%s)",
					 key, kind == SAGAZ_SAGA ? "text[]" : "uuid[]");
	add_order(query, kind, filter->order);
	postgres_queue(store, "BEGIN", 0, NULL, NULL);
	queue_library_query(store, lock);
	queue_library_query(store, query);
	results = postgres_exchange(store, &nresults);
	return results[2];
}
