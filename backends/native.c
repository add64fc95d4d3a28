/*
 * native.c
 *		The native tables behind the interface of all storages: reading and
 *		putting whole records, for copies.
 *
 * A thin adapter over src/; the SQL functions on the native tables do not
 * come this way.  An event that is put goes where adopt() puts one: into the
 * archive if it is sent, else into the log, with a retry row unless it is
 * plainly pending.
 */
#include "backend.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "event_record.h"
#include "event_scan.h"
#include "outbox.h"
#include "owner.h"
#include "record.h"
#include "saga.h"
#include "wake.h"

typedef struct NativeReader
{
	SagazReader base;
	Snapshot	snapshot;
	SagazScan  *sagas;
	SagazStates *states;
	SagazEventScan *events;
	int64		count;
} NativeReader;

static const char *
native_version(void)
{
	return "";
}

static List *
native_read_url(const char *scheme, const char *rest)
{
	return NIL;
}

static void
native_open(SagazStore *store)
{
}

static void
native_ping(SagazStore *store)
{
}

static char *
native_identity(SagazStore *store)
{
	return psprintf("postgresql:" UINT64_FORMAT ":%u:sagaz",
					GetSystemIdentifier(), MyDatabaseId);
}

/* ---------------------------------------------------------------------- */
/* Reading */

static void
native_read_begin(SagazReader *base)
{
	NativeReader *reader = (NativeReader *) base;

	reader->snapshot = GetActiveSnapshot();
	if (base->kind == SAGAZ_SAGA)
		reader->sagas = sagaz_scan_begin("sagas", "sagas_pkey", reader->snapshot,
										 NULL, 0, ForwardScanDirection);
	else
	{
		reader->states = sagaz_states_open(base->store->consumer_group,
										   reader->snapshot);
		reader->events = sagaz_scan_by_status(reader->states, ALL_STATUSES);
	}
}

static bool
next_saga(NativeReader *reader, SagazRecord *record)
{
	SagaRow		row;

	if (!sagaz_scan_next(reader->sagas))
		return false;
	for (int i = 0; i < saga_columns; i++)
	{
		row.values[i] = reader->sagas->slot->tts_values[i];
		row.nulls[i] = reader->sagas->slot->tts_isnull[i];
	}
	sagaz_record_from_json(SAGAZ_SAGA, saga_load_json(&row, reader->snapshot),
						   record);
	record->saga.version = DatumGetInt64(saga_get(&row, saga_version));
	return true;
}

static bool
next_event(NativeReader *reader, SagazRecord *record)
{
	const SagazFoundEvent *found = sagaz_event_scan_next(reader->events);
	Datum		values[event_columns];
	bool		nulls[event_columns];

	if (found == NULL)
		return false;
	sagaz_event_row(reader->states, found, values, nulls);
	sagaz_event_of_columns(values, nulls, &record->event);
	return true;
}

static bool
native_read_next(SagazReader *base, SagazRecord *record)
{
	NativeReader *reader = (NativeReader *) base;

	if (base->filter.limit > 0 && reader->count >= base->filter.limit)
		return false;
	while (base->kind == SAGAZ_SAGA ? next_saga(reader, record) :
		   next_event(reader, record))
	{
		CHECK_FOR_INTERRUPTS();
		if (!sagaz_filter_matches(&base->filter, record))
			continue;
		reader->count++;
		return true;
	}
	return false;
}

static void
native_read_end(SagazReader *base)
{
	NativeReader *reader = (NativeReader *) base;

	if (reader->sagas)
		sagaz_scan_end(reader->sagas);
	if (reader->events)
		sagaz_event_scan_end(reader->events);
	if (reader->states)
		sagaz_states_close(reader->states);
}

/* ---------------------------------------------------------------------- */
/* Writing */

/* Its tables are the extension owner's, and so are the functions it calls. */
static int64
native_put(SagazStore *store, SagazRecord *records, int count, SagazPutMode mode)
{
	Oid			types[] = {JSONBOID, BOOLOID};
	Datum		values[] = {
		JsonbPGetDatum(sagaz_records_to_json(records, count)),
		BoolGetDatum(mode == SAGAZ_PUT_ALWAYS)
	};
	SagazUser	user;
	bool		isnull;
	int64		written;

	sagaz_become_owner(&user);
	SPI_connect();
	if (SPI_execute_with_args(records[0].kind == SAGAZ_SAGA ?
							  "SELECT sagaz.import_sagas($1, $2)" :
							  "SELECT sagaz.import_events($1)",
							  records[0].kind == SAGAZ_SAGA ? 2 : 1,
							  types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not import records");
	written = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
										  SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	sagaz_become(&user);
	if (mode == SAGAZ_PUT_NEW && written < count)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("a record with such a key is there already"),
				 errdetail("Of %d, " INT64_FORMAT " are new.", count, written)));
	if (records[0].kind == SAGAZ_EVENT && written > 0)
		sagaz_wake_at_commit();
	return written;
}

static int64
native_edit(SagazStore *store, SagazKind kind, const SagazFilter *filter,
			bool create, SagazEdit edit, void *arg)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_STORAGE),
			 errmsg("the native storage is not edited this way")));
	return 0;
}

static const char *const native_schemes[] = {"native", NULL};

static const SagazOption native_options[] = {
	SAGAZ_COMMON_OPTIONS
};

const SagazBackend sagaz_native_backend = {
	.name = "native",
	.capabilities = SAGAZ_KEEPS_SAGAS | SAGAZ_KEEPS_EVENTS |
		SAGAZ_KEEPS_VERSIONS | SAGAZ_OUTLIVES_SESSION | SAGAZ_KEY_ORDER,
	.store_size = sizeof(SagazStore),
	.reader_size = sizeof(NativeReader),
	.options = native_options,
	.version = native_version,
	.schemes = native_schemes,
	.read_url = native_read_url,
	.open = native_open,
	.ping = native_ping,
	.identity = native_identity,
	.unfit = sagaz_fits,
	.put = native_put,
	.edit = native_edit,
	SAGAZ_MERGES_BY_EDIT,
	.read_begin = native_read_begin,
	.read_next = native_read_next,
	.read_end = native_read_end,
	.read_position = sagaz_no_position,
	.count = sagaz_count_by_reading,
	SAGAZ_CLAIMS_BY_EDIT,
	.call = sagaz_no_call,
	SAGAZ_WITHOUT_STREAMS
};
