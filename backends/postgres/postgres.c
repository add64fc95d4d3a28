/*
 * postgres.c
 *		Storages in another PostgreSQL database: options, URLs and the table of
 *		operations.
 *
 * postgres_connect.c and postgres_connection.c talk to the server.  What the
 * records look like there is known to postgres_sagaz.c, for a database with
 * this extension, and to postgres_library.c, for the Python library's tables.
 */
#include "backends/postgres/postgres_store.h"

#include <limits.h>

#include "commands/defrem.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "backends/common/url.h"
#include "backends/record/record.h"

/* Records of one round trip, at first and at most, and how much they should be. */
#define FIRST_CHUNK 32
#define READ_CHUNK 500
#define CHUNK_BYTES (8 * 1024 * 1024)

/* ---------------------------------------------------------------------- */
/* Options */

static void
refuse_postgres_option(const char *option, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_INPUT),
			 errmsg("%s is not valid", option),
			 errhint("%s", hint)));
}

static void
check_postgres_layout(const char *value)
{
	if (strcmp(value, "auto") != 0 && strcmp(value, "sagaz") != 0 &&
		strcmp(value, "library") != 0)
		refuse_postgres_option("layout", "Say 'auto', 'sagaz' or 'library'.");
}

static void
check_postgres_schema(const char *value)
{
	if (value[0] == '\0' || strlen(value) >= NAMEDATALEN)
		refuse_postgres_option("schema", "Give the name of a schema.");
}

static void
check_role(const char *value)
{
	if (value[0] == '\0' || strlen(value) >= NAMEDATALEN)
		refuse_postgres_option("trusted_owner", "Give the name of a role there.");
}

/* Whole seconds that sagaz can count in milliseconds; 0: as the setting says. */
static void
check_connect_timeout(const char *value)
{
	char	   *end;
	long		seconds;

	errno = 0;
	seconds = strtol(value, &end, 10);
	if (errno != 0 || end == value || *end != '\0' || seconds < 0 || seconds > INT_MAX / 1000)
		refuse_postgres_option("connect_timeout", "Give a number of seconds, 0 for what sagaz.connect_timeout says.");
}

/* Those that libpq knows, too, it gets as they are. */
static const SagazOption postgres_options[] = {
	{.name = "host"},
	{.name = "hostaddr"},
	{.name = "port"},
	{.name = "dbname"},
	{.name = "user",.secret = true},
	{.name = "password",.secret = true},
	{.name = "connect_timeout",.check = check_connect_timeout},
	{.name = "application_name"},
	{.name = "options",.check = postgres_check_session_options},
	{.name = "channel_binding"},
	{.name = "keepalives"},
	{.name = "keepalives_idle"},
	{.name = "keepalives_interval"},
	{.name = "keepalives_count"},
	{.name = "tcp_user_timeout"},
	{.name = "sslmode"},
	{.name = "sslrootcert"},
	{.name = "sslcrl"},
	{.name = "sslsni"},
	{.name = "ssl_min_protocol_version"},
	{.name = "ssl_max_protocol_version"},
	{.name = "target_session_attrs"},
	{.name = "layout",.check = check_postgres_layout},
	{.name = "schema",.check = check_postgres_schema},
	{.name = "trusted_owner",.check = check_role},
	SAGAZ_COMMON_OPTIONS
};

static const SagazOption *
find_postgres_option(const char *name)
{
	for (const SagazOption *option = postgres_options; option->name; option++)
		if (strcmp(option->name, name) == 0)
			return option;
	return NULL;
}

/* ---------------------------------------------------------------------- */
/* URLs */

static const char *const postgres_schemes[] = {"postgresql", "postgres", NULL};

static void
refuse_postgres_url(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_INPUT),
			 errmsg("URL of a PostgreSQL storage is not valid"),
			 errdetail_internal("%s.", why),
			 errhint("Write postgresql://[user:password@]host[:port][/database][?option=value&...]; what is not a letter or a digit is written as %%XX.")));
}

/*
 * If this part of a URL's query is an option of ours, which libpq would not
 * know, add it to the options.
 */
static bool
take_postgres_option(const char *part, size_t length, List **options)
{
	static const char *const own[] = {"layout", "schema", "trusted_owner"};

	for (int i = 0; i < (int) lengthof(own); i++)
	{
		size_t		name = strlen(own[i]);
		char	   *value;

		if (length <= name || strncmp(part, own[i], name) != 0 || part[name] != '=')
			continue;
		value = sagaz_url_decode(part + name + 1, length - name - 1,
								 refuse_postgres_url);
		find_postgres_option(own[i])->check(value);
		*options = sagaz_url_add_option(*options, own[i], value);
		return true;
	}
	return false;
}

/* The URL for libpq, without options of ours. */
static char *
postgres_libpq_url(const char *rest, List **options)
{
	const char *query = strchr(rest, '?');
	StringInfoData url;
	char		separator = '?';

	initStringInfo(&url);
	appendStringInfoString(&url, "postgresql://");
	if (query == NULL)
	{
		appendStringInfoString(&url, rest);
		return url.data;
	}
	appendBinaryStringInfo(&url, rest, query - rest);
	for (const char *part = query + 1;;)
	{
		size_t		length = strcspn(part, "&");

		if (!take_postgres_option(part, length, options))
		{
			appendStringInfoChar(&url, separator);
			appendBinaryStringInfo(&url, part, length);
			separator = '&';
		}
		if (part[length] == '\0')
			return url.data;
		part += length + 1;
	}
}

static List *
postgres_read_url(const char *scheme, const char *rest)
{
	List	   *own = NIL;
	List	   *options;
	ListCell   *cell;

	options = postgres_url_options(postgres_libpq_url(rest, &own));
	if (options == NIL && strcmp(rest, "") != 0 && strcmp(rest, "/") != 0 && own == NIL)
		refuse_postgres_url("It is not understood");
	foreach(cell, options)
	{
		const char *name = ((DefElem *) lfirst(cell))->defname;

		const SagazOption *option = find_postgres_option(name);

		if (option == NULL)
			refuse_postgres_url(psprintf("A storage has no option \"%s\"", name));
		if (option->check)
			option->check(defGetString(lfirst(cell)));
	}
	return list_concat(options, own);
}

static const PostgresOperations *
postgres_operations_in(PostgresLayout layout)
{
	return layout == LAYOUT_SAGAZ ? &postgres_sagaz_operations :
		&postgres_library_operations;
}

/* Get ready for an operation, and find out who does it. */
static const PostgresOperations *
postgres_operations_of(PostgresStore *store)
{
	postgres_ready(store);
	return postgres_operations_in(postgres_layout(store));
}

/* ---------------------------------------------------------------------- */
/* Operations */

static void
postgres_open(SagazStore *base)
{
	PostgresStore *store = (PostgresStore *) base;
	const char *schema = sagaz_store_option(base, "schema");

	store->schema = pstrdup(quote_identifier(schema ? schema : POSTGRES_DEFAULT_SCHEMA));
	postgres_connect(store);
}

static void
postgres_ping(SagazStore *base)
{
	PostgresStore *store = (PostgresStore *) base;

	postgres_ready(store);
	postgres_look_for_layout(store);
}

/* The records of a sagaz are changed by its own functions. */
static int
postgres_store_can(SagazStore *base)
{
	bool		is_sagaz = postgres_operations_of((PostgresStore *) base) ==
		&postgres_sagaz_operations;

	return is_sagaz ?
		base->backend->capabilities & ~(SAGAZ_TAKES_EDITS | SAGAZ_LIBRARY_READS) :
		base->backend->capabilities;
}

static void
postgres_describe(SagazStore *base, JsonbParseState **state)
{
	static const char *const words[] = {
		[LAYOUT_UNKNOWN] = "unknown",
		[LAYOUT_EMPTY] = "empty",
		[LAYOUT_SAGAZ] = "sagaz",
		[LAYOUT_LIBRARY] = "library"
	};

	sagaz_json_push_string(state, "layout", words[((PostgresStore *) base)->layout]);
}

static char *
postgres_identity(SagazStore *base, SagazKind kind)
{
	PostgresStore *store = (PostgresStore *) base;
	PostgresResult *answer;

	(void) postgres_operations_of(store);
	answer = postgres_query(store,
							"SELECT c.system_identifier, d.oid"
							" FROM pg_catalog.pg_control_system() AS c, pg_catalog.pg_database AS d"
							" WHERE d.datname = pg_catalog.current_database()", 0, NULL, NULL);
	return psprintf("postgresql:%s:%s:%s", postgres_text(answer, 0, 0),
					postgres_text(answer, 0, 1),
					store->layout == LAYOUT_SAGAZ ? "sagaz" :
					psprintf("library:%s", store->schema));
}

static int64
postgres_put(SagazStore *base, SagazRecord *records, int count, SagazPutMode mode)
{
	PostgresStore *store = (PostgresStore *) base;

	return postgres_operations_of(store)->put(store, records, count, mode);
}

static int64
postgres_edit(SagazStore *base, SagazKind kind, const SagazFilter *filter,
			  bool create, SagazEdit edit, void *arg)
{
	PostgresStore *store = (PostgresStore *) base;

	return postgres_operations_of(store)->edit(store, kind, filter, create, edit, arg);
}

static int64
postgres_count(SagazStore *base, SagazKind kind, const SagazFilter *filter)
{
	PostgresStore *store = (PostgresStore *) base;

	return postgres_operations_of(store)->count(store, kind, filter);
}

static void
postgres_merge(SagazStore *base, SagazRecord *records, int count,
			   bool over_claims, SagazMerged *merged)
{
	PostgresStore *store = (PostgresStore *) base;

	postgres_operations_of(store)->merge(store, records, count, over_claims, merged);
}

static int64
postgres_remove(SagazStore *base, SagazKind kind, const char *const *keys,
				int nkeys)
{
	PostgresStore *store = (PostgresStore *) base;

	return postgres_operations_of(store)->remove(store, kind, keys, nkeys);
}

/* Nobody looks again for each of many records whether there are tables now. */
static char *
postgres_unfit(SagazStore *base, const SagazRecord *record)
{
	PostgresStore *store = (PostgresStore *) base;
	const PostgresOperations *operations = store->layout == LAYOUT_UNKNOWN ?
		postgres_operations_of(store) : postgres_operations_in(store->layout);

	char	   *why = operations->unfit(store, record);

	return why ? why : sagaz_unfit_for_encoding(record, postgres_encoding(store));
}

static bool
postgres_call(SagazStore *base, const SagazCall *call)
{
	PostgresStore *store = (PostgresStore *) base;

	return postgres_operations_of(store) == &postgres_sagaz_operations &&
		postgres_sagaz_call(store, call);
}

/* ---------------------------------------------------------------------- */
/* Reading */

static void
give_up_postgres_request(void *arg)
{
	postgres_give_up_request(((PostgresReader *) arg)->request);
}

static void
postgres_read_begin(SagazReader *base)
{
	PostgresReader *reader = (PostgresReader *) base;
	bool		in_pages = base->filter.order == SAGAZ_FOR_COPY &&
		((PostgresStore *) base->store)->layout == LAYOUT_SAGAZ;

	/* a page is not longer than its records allow, whatever is asked for */
	reader->fetch_size = in_pages && base->filter.chunk > 0 ? base->filter.chunk :
		FIRST_CHUNK;
	reader->chunk = AllocSetContextCreate(base->context, "sagaz read chunk",
										  ALLOCSET_DEFAULT_SIZES);
	reader->give_up.func = give_up_postgres_request;
	reader->give_up.arg = reader;
	MemoryContextRegisterResetCallback(base->context, &reader->give_up);
}

/* More or fewer records next time, by what these have taken up. */
static void
adapt_postgres_page(PostgresReader *reader, int asked)
{
	const SagazFilter *filter = &reader->base.filter;
	Size		bytes = MemoryContextMemAllocated(reader->chunk, true);

	if (bytes > CHUNK_BYTES)
		reader->fetch_size = Max(1, (int) (asked * (CHUNK_BYTES / (double) bytes)));
	else
		reader->fetch_size = Min(filter->chunk > 0 ? filter->chunk : READ_CHUNK,
								 Max(asked, reader->fetch_size) * 4);
}

/* Read the next records, into the chunk. */
static void
fetch_postgres_page(PostgresReader *reader)
{
	MemoryContext outer;

	MemoryContextReset(reader->chunk);
	outer = MemoryContextSwitchTo(reader->chunk);
	reader->records = postgres_operations_of((PostgresStore *) reader->base.store)->fetch(reader);
	adapt_postgres_page(reader, reader->fetch_size);
	MemoryContextSwitchTo(outer);
	reader->next = 0;
}

static bool
postgres_read_next(SagazReader *base, SagazRecord *record)
{
	PostgresReader *reader = (PostgresReader *) base;

	if (base->filter.limit > 0 && reader->count >= base->filter.limit)
		return false;
	while (reader->next >= list_length(reader->records))
	{
		if (reader->at_end)
			return false;
		fetch_postgres_page(reader);
	}
	sagaz_record_copy(list_nth(reader->records, reader->next++), record);
	reader->count++;
	return true;
}

/* Of the library's tables a reader keeps nothing open. */
static char *
postgres_read_position(SagazReader *base)
{
	PostgresReader *reader = (PostgresReader *) base;

	if (reader->next > 0 && reader->next <= list_length(reader->positions))
		return pstrdup(list_nth(reader->positions, reader->next - 1));
	return reader->next == 0 && reader->page_end ? pstrdup(reader->page_end) : NULL;
}

static void
postgres_read_end(SagazReader *base)
{
	PostgresReader *reader = (PostgresReader *) base;
	PostgresStore *store = (PostgresStore *) base->store;

	if (reader->cursor)
		postgres_sagaz_close(reader);
	if (reader->copies && !base->store->broken)
	{
		(void) postgres_query(store, "CLOSE sagaz_copy", 0, NULL, NULL);
		store->copy_is_open = false;
	}
}

const SagazBackend sagaz_postgresql_backend = {
	.name = "postgresql",
	.capabilities = SAGAZ_KEEPS_SAGAS | SAGAZ_KEEPS_EVENTS | SAGAZ_TAKES_EDITS |
		SAGAZ_KEEPS_VERSIONS | SAGAZ_OUTLIVES_SESSION | SAGAZ_KEY_ORDER |
		SAGAZ_LIBRARY_READS,
	.store_size = sizeof(PostgresStore),
	.reader_size = sizeof(PostgresReader),
	.options = postgres_options,
	.version = postgres_client_version,
	.schemes = postgres_schemes,
	.read_url = postgres_read_url,
	.open = postgres_open,
	.ping = postgres_ping,
	.examine = postgres_examine,
	.overlap = sagaz_store_no_overlap,
	.make_ready = postgres_ping,
	.store_can = postgres_store_can,
	.describe = postgres_describe,
	.identity = postgres_identity,
	.origin = sagaz_store_origin_by_identity,
	.unfit = postgres_unfit,
	.put = postgres_put,
	.edit = postgres_edit,
	.merge = postgres_merge,
	.remove = postgres_remove,
	.read_begin = postgres_read_begin,
	.read_next = postgres_read_next,
	.read_end = postgres_read_end,
	.read_position = postgres_read_position,
	.count = postgres_count,
	SAGAZ_CLAIMS_BY_EDIT,
	.call = postgres_call,
	SAGAZ_WITHOUT_STREAMS
};
