/*
 * sqlite.c
 *		Storages in SQLite files: options, and what is written.
 *
 * The tables are the Python library's, so that it can work on the same file;
 * what they have no place for (versions, batches, leases, next attempts) is
 * in side tables, sagaz_saga and sagaz_event, which are made with the first
 * write.  A file of the library is not changed before that; a new file gets a
 * write-ahead log.
 */
#include "backends/sqlite/sqlite.h"

#include <sys/stat.h>

#include "commands/defrem.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "backends/common/url.h"
#include "backends/record/record.h"

static const char *
sqlite_version(void)
{
	return sqlite3_libversion();
}

/* ---------------------------------------------------------------------- */
/* Options and URLs */

static void
check_sqlite_mode(const char *value)
{
	if (strcmp(value, "ro") != 0 && strcmp(value, "rw") != 0 && strcmp(value, "rwc") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("mode \"%s\" of a SQLite storage is unknown", value),
				 errhint("Say 'ro' to read only, 'rw' to write to a file that is there, or 'rwc' to make it, too.")));
}

static void
check_sqlite_file_mode(const char *value)
{
	if (strspn(value, "01234567") != strlen(value) || strlen(value) > 4 ||
		(strtol(value, NULL, 8) & ~0177) != 0600)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("file_mode \"%s\" of a SQLite storage is not valid", value),
				 errhint("Write octal digits that let the owner read and write, as '0660'.")));
}

static void
refuse_sqlite_url(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_INPUT),
			 errmsg("URL of a SQLite storage is not valid"),
			 errdetail_internal("%s.", why),
			 errhint("Write sqlite:///path/of/the/file[?mode=ro], with %%25 for a percent sign and %%3F for a question mark in the path.")));
}

static List *
read_sqlite_parameter(List *options, const char *part, size_t length)
{
	char	   *value = strchr(pnstrdup(part, length), '=');

	if (value == NULL || strncmp(part, "mode=", 5) != 0)
		refuse_sqlite_url(psprintf("There is no parameter \"%.*s\"", (int) length, part));
	value = sagaz_url_decode(value + 1, strlen(value + 1), refuse_sqlite_url);
	check_sqlite_mode(value);
	return sagaz_url_add_option(options, "mode", value);
}

/* sqlite:///path[?mode=…], the path beginning with the third slash */
static List *
sqlite_read_url(const char *scheme, const char *rest)
{
	size_t		length = strcspn(rest, "?");
	const char *part = rest + length;
	List	   *options;

	if (rest[0] != '/' || length == 1)
		refuse_sqlite_url("It names no file");
	options = sagaz_url_add_option(NIL, "path",
								   sagaz_url_decode(rest, length, refuse_sqlite_url));
	while (*part == '?' || *part == '&')
	{
		part++;
		length = strcspn(part, "&");
		options = read_sqlite_parameter(options, part, length);
		part += length;
	}
	return options;
}

/* ---------------------------------------------------------------------- */
/* The storage as a whole */

static void
sqlite_ping(SagazStore *base)
{
	SqliteStore *store = (SqliteStore *) base;

	sqlite_be_ready(store, false);
	sqlite_look(store);
}

static void
sqlite_make_ready(SagazStore *base)
{
	SqliteStore *store = (SqliteStore *) base;

	if (!sqlite_would_be_made(store))
		sqlite_be_ready(store, true);
}

/* The file, by whichever of its names it was opened; or what it will be. */
static char *
sqlite_identity(SagazStore *base, SagazKind kind)
{
	const char *path = sagaz_store_option(base, "path");
	struct stat st;

	if (stat(path, &st) != 0)
	{
		char	   *directory = pstrdup(path);

		get_parent_directory(directory);
		if (stat(directory[0] ? directory : "/", &st) != 0)
			return psprintf("sqlite:%s", path);
		return psprintf("sqlite:" UINT64_FORMAT ":" UINT64_FORMAT "%s",
						(uint64) st.st_dev, (uint64) st.st_ino,
						last_dir_separator(path));
	}
	return psprintf("sqlite:" UINT64_FORMAT ":" UINT64_FORMAT,
					(uint64) st.st_dev, (uint64) st.st_ino);
}

/* ---------------------------------------------------------------------- */
/* Writing */

/* Run a statement that returns no rows. */
static void
finish_sqlite_statement(SqliteStore *store, sqlite3_stmt *statement)
{
	int			code = sqlite3_step(statement);

	if (code != SQLITE_DONE && code != SQLITE_ROW)
	{
		code = sqlite3_extended_errcode(store->db);
		sqlite_complain_of(store, code);
	}
	sqlite3_reset(statement);
}

static void
write_sqlite_saga(SqliteStore *store, const SagazSaga *saga)
{
	sqlite3_stmt *statement =
		sqlite_prepare(store, "INSERT INTO sagas (saga_id, saga_name, status, steps,"
				" context, metadata, created_at, updated_at)"
				" VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (saga_id) DO UPDATE"
				" SET saga_name = excluded.saga_name, status = excluded.status,"
				" steps = excluded.steps, context = excluded.context,"
				" metadata = excluded.metadata, created_at = excluded.created_at,"
				" updated_at = excluded.updated_at");

	sqlite_bind_text(statement, 1, saga->saga_id);
	sqlite_bind_text(statement, 2, saga->saga_name);
	sqlite_bind_text(statement, 3, saga->status);
	sqlite_bind_json(statement, 4, saga->steps);
	sqlite_bind_json(statement, 5, saga->context);
	sqlite_bind_json(statement, 6, saga->metadata);
	sqlite_bind_time(statement, 7, saga->created_at);
	sqlite_bind_time(statement, 8, saga->updated_at);
	finish_sqlite_statement(store, statement);
	statement = sqlite_prepare(store, "INSERT OR REPLACE INTO sagaz_saga"
						" (saga_id, version, updated_at) VALUES (?, ?, ?)");
	sqlite_bind_text(statement, 1, saga->saga_id);
	sqlite_bind_int(statement, 2, saga->version);
	sqlite_bind_time(statement, 3, saga->updated_at);
	finish_sqlite_statement(store, statement);
}

static void
write_sqlite_event_side(SqliteStore *store, const SagazEvent *event)
{
	sqlite3_stmt *statement;

	if (event->batch_id == 0 && event->lease_until == 0 &&
		event->next_attempt_at == 0)
	{
		statement = sqlite_prepare(store, "DELETE FROM sagaz_event WHERE event_id = ?");
		sqlite_bind_text(statement, 1, event->event_id);
		finish_sqlite_statement(store, statement);
		return;
	}
	statement = sqlite_prepare(store, "INSERT OR REPLACE INTO sagaz_event"
						" (event_id, batch_id, lease_until, next_attempt_at)"
						" VALUES (?, ?, ?, ?)");
	sqlite_bind_text(statement, 1, event->event_id);
	sqlite_bind_int(statement, 2, event->batch_id);
	sqlite_bind_int(statement, 3, event->lease_until);
	sqlite_bind_int(statement, 4, event->next_attempt_at);
	finish_sqlite_statement(store, statement);
}

static void
write_sqlite_event(SqliteStore *store, const SagazEvent *event)
{
	sqlite3_stmt *statement =
		sqlite_prepare(store, "INSERT INTO outbox_events (event_id, saga_id, event_type,"
				" payload, status, created_at, claimed_at, sent_at, worker_id,"
				" retry_count, last_error, aggregate_type, aggregate_id, headers,"
				" routing_key, partition_key)"
				" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
				" ON CONFLICT (event_id) DO UPDATE SET saga_id = excluded.saga_id,"
				" event_type = excluded.event_type, payload = excluded.payload,"
				" status = excluded.status, created_at = excluded.created_at,"
				" claimed_at = excluded.claimed_at, sent_at = excluded.sent_at,"
				" worker_id = excluded.worker_id, retry_count = excluded.retry_count,"
				" last_error = excluded.last_error, aggregate_type = excluded.aggregate_type,"
				" aggregate_id = excluded.aggregate_id, headers = excluded.headers,"
				" routing_key = excluded.routing_key, partition_key = excluded.partition_key");

	sqlite_bind_text(statement, 1, event->event_id);
	sqlite_bind_text(statement, 2, event->saga_id);
	sqlite_bind_text(statement, 3, event->event_type);
	sqlite_bind_json(statement, 4, event->payload);
	sqlite_bind_text(statement, 5, event->status);
	sqlite_bind_time(statement, 6, event->created_at);
	sqlite_bind_time(statement, 7, event->claimed_at);
	sqlite_bind_time(statement, 8, event->sent_at);
	sqlite_bind_text(statement, 9, event->worker_id);
	sqlite3_bind_int(statement, 10, event->retry_count);
	sqlite_bind_text(statement, 11, event->last_error);
	sqlite_bind_text(statement, 12, event->aggregate_type);
	sqlite_bind_text(statement, 13, event->aggregate_id ? event->aggregate_id : event->saga_id);
	sqlite_bind_json(statement, 14, event->headers);
	sqlite_bind_text(statement, 15, event->routing_key);
	sqlite_bind_text(statement, 16, event->partition_key);
	finish_sqlite_statement(store, statement);
	write_sqlite_event_side(store, event);
}

static void
write_sqlite_record(SqliteStore *store, const SagazRecord *record)
{
	if (record->kind == SAGAZ_SAGA)
		write_sqlite_saga(store, &record->saga);
	else
		write_sqlite_event(store, &record->event);
}

static void
remove_from_sqlite(SqliteStore *store, SagazKind kind, const char *key)
{
	static const char *const removals[][2] = {
		{"DELETE FROM sagas WHERE saga_id = ?",
		"DELETE FROM sagaz_saga WHERE saga_id = ?"},
		{"DELETE FROM outbox_events WHERE event_id = ?",
		"DELETE FROM sagaz_event WHERE event_id = ?"}
	};

	for (int i = 0; i < 2; i++)
	{
		sqlite3_stmt *statement = sqlite_prepare(store, removals[kind][i]);

		sqlite_bind_text(statement, 1, key);
		finish_sqlite_statement(store, statement);
	}
}

static bool
exists_in_sqlite(SqliteStore *store, SagazKind kind, const char *key)
{
	sqlite3_stmt *statement =
		sqlite_prepare(store, kind == SAGAZ_SAGA ?
				"SELECT 1 FROM sagas WHERE saga_id = ?" :
				"SELECT 1 FROM outbox_events WHERE event_id = ?");
	int			code;

	sqlite_bind_text(statement, 1, key);
	code = sqlite3_step(statement);
	sqlite_check(store, code);
	sqlite3_reset(statement);
	return code == SQLITE_ROW;
}

static int64
put_all_in_sqlite(SqliteStore *store, SagazRecord *records, int count, SagazPutMode mode)
{
	int64		written = 0;

	for (int i = 0; i < count; i++)
	{
		const char *key = sagaz_record_key(&records[i]);

		if (mode != SAGAZ_PUT_ALWAYS && exists_in_sqlite(store, records[i].kind, key))
		{
			if (mode == SAGAZ_PUT_NEW)
				ereport(ERROR,
						(errcode(ERRCODE_UNIQUE_VIOLATION),
						 errmsg("record \"%s\" exists already in storage \"%s\"",
								key, store->base.name)));
			continue;
		}
		write_sqlite_record(store, &records[i]);
		written++;
	}
	return written;
}

static int64
sqlite_put(SagazStore *base, SagazRecord *records, int count, SagazPutMode mode)
{
	SqliteStore *store = (SqliteStore *) base;
	volatile int64 written = 0;

	PG_TRY();
	{
		sqlite_begin(store, records[0].kind);
		written = put_all_in_sqlite(store, records, count, mode);
		sqlite_commit(store);
	}
	PG_CATCH();
	{
		sqlite_roll_back(store);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return written;
}

/* All records that match, before any of them is changed. */
static List *
read_all_of_sqlite(SqliteStore *store, SagazKind kind, const SagazFilter *filter)
{
	SagazReader *reader = sagaz_store_read_begin(&store->base, kind, filter);
	SagazRecord *record = palloc(sizeof(SagazRecord));
	List	   *records = NIL;

	while (sagaz_store_read_next(reader, record))
	{
		records = lappend(records, record);
		record = palloc(sizeof(SagazRecord));
	}
	sagaz_store_read_end(reader);
	return records;
}

static int64
edit_one_in_sqlite(SqliteStore *store, SagazRecord *record, bool is_there,
				   SagazEdit edit, void *arg)
{
	char	   *key = pstrdup(sagaz_record_key(record));

	if (record->problem)
		return 0;
	switch (edit(record, is_there, arg))
	{
		case SAGAZ_CHANGE:
			write_sqlite_record(store, record);
			return 1;
		case SAGAZ_REMOVE:
			remove_from_sqlite(store, record->kind, key);
			return 1;
		case SAGAZ_KEEP:
			break;
	}
	return 0;
}

static int64
edit_all_in_sqlite(SqliteStore *store, SagazKind kind, const SagazFilter *filter,
				   bool create, SagazEdit edit, void *arg)
{
	List	   *records = read_all_of_sqlite(store, kind, filter);
	ListCell   *cell;
	int64		changed = 0;

	foreach(cell, records)
		changed += edit_one_in_sqlite(store, lfirst(cell), true, edit, arg);
	if (create && !exists_in_sqlite(store, kind, filter->key))
	{
		SagazRecord fresh = {.kind = kind};

		fresh.saga.saga_id = fresh.event.event_id = pstrdup(filter->key);
		changed += edit_one_in_sqlite(store, &fresh, false, edit, arg);
	}
	return changed;
}

static int64
sqlite_edit(SagazStore *base, SagazKind kind, const SagazFilter *filter,
			bool create, SagazEdit edit, void *arg)
{
	SqliteStore *store = (SqliteStore *) base;
	volatile int64 changed = 0;

	if (sqlite_would_be_made(store))
		return 0;
	sqlite_be_ready(store, create);
	if (!create && !store->has[kind])
		return 0;
	PG_TRY();
	{
		sqlite_begin(store, kind);
		if (!store->has[kind] || !store->has_side[kind])
			sqlite_look(store);
		changed = edit_all_in_sqlite(store, kind, filter, create, edit, arg);
		sqlite_commit(store);
	}
	PG_CATCH();
	{
		sqlite_roll_back(store);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return changed;
}

static const char *const sqlite_schemes[] = {"sqlite", NULL};

static const SagazOption sqlite_options[] = {
	{.name = "path"},
	{.name = "mode",.check = check_sqlite_mode},
	{.name = "file_mode",.check = check_sqlite_file_mode},
	SAGAZ_COMMON_OPTIONS
};

const SagazBackend sagaz_sqlite_backend = {
	.name = "sqlite",
	.capabilities = SAGAZ_KEEPS_SAGAS | SAGAZ_KEEPS_EVENTS | SAGAZ_TAKES_EDITS |
		SAGAZ_KEEPS_VERSIONS | SAGAZ_OUTLIVES_SESSION | SAGAZ_KEY_ORDER |
		SAGAZ_LIBRARY_READS,
	.store_size = sizeof(SqliteStore),
	.reader_size = sizeof(SqliteReader),
	.options = sqlite_options,
	.version = sqlite_version,
	.schemes = sqlite_schemes,
	.read_url = sqlite_read_url,
	.open = sqlite_open,
	.ping = sqlite_ping,
	.examine = sagaz_store_no_faults,
	.overlap = sagaz_store_no_overlap,
	.make_ready = sqlite_make_ready,
	.store_can = sagaz_store_can_all,
	.identity = sqlite_identity,
	.origin = sagaz_store_origin_by_identity,
	.unfit = sagaz_store_fits_library,
	.put = sqlite_put,
	.edit = sqlite_edit,
	SAGAZ_MERGES_BY_EDIT,
	.read_begin = sqlite_read_begin,
	.read_next = sqlite_read_next,
	.read_end = sqlite_read_end,
	.read_position = sagaz_store_no_position,
	.count = sagaz_store_count_by_reading,
	SAGAZ_CLAIMS_BY_EDIT,
	.call = sagaz_store_no_call,
	SAGAZ_WITHOUT_STREAMS
};
