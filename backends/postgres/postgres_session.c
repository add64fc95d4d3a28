/*
 * postgres_session.c
 *		What is fixed for a session at the other end.
 *
 * What an administrator set for the user or the database there, or a storage's
 * option "options", must not change what we read and write; rows that a policy
 * hides are an error, not absent.  Text is UTF-8.  The name is an option of
 * the connection already.
 */
#include "backends/postgres/postgres_libpq.h"

#include <ctype.h>

#include "utils/builtins.h"
#include "utils/memutils.h"

typedef struct PinnedSetting
{
	const char *name;
	const char *value;			/* NULL: sagaz.command_timeout */
} PinnedSetting;

/* Those that the server does not know are passed over. */
static const PinnedSetting pinned_settings[] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"TimeZone", "UTC"},
	{"DateStyle", "ISO, YMD"},
	{"IntervalStyle", "postgres"},
	{"extra_float_digits", "3"},
	{"bytea_output", "hex"},
	{"standard_conforming_strings", "on"},
	{"array_nulls", "on"},
	{"transform_null_equals", "off"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"row_security", "off"},
	{"restrict_nonsystem_relation_kind", ""},
	{"exit_on_error", "off"},
	{"statement_timeout", NULL},
	{"lock_timeout", NULL},
	{"idle_in_transaction_session_timeout", NULL},
	{"transaction_timeout", "0"},
	{"idle_session_timeout", "0"},
	{"client_connection_check_interval", "1s"}
};

/* what the options of the connection fix */
static const char *const connection_settings[] = {"client_encoding", "synchronous_commit"};

/*
 * This is the one statement that meets a search_path of others.  Who wants to
 * lose what was confirmed, does not so with ours.
 */
static char *
pinning_query(void)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT pg_catalog.set_config(name, value, false) FROM (VALUES");
	for (int i = 0; i < (int) lengthof(pinned_settings); i++)
	{
		const PinnedSetting *setting = &pinned_settings[i];

		appendStringInfo(&sql, " ('%s', %s),", setting->name,
						 setting->value ? psprintf("'%s'", setting->value) : "$1");
	}
	/* who knows no encoding has nothing to check text by, and would end a statement */
	appendStringInfoString(&sql, " ('client_encoding', CASE"
						   " WHEN pg_catalog.current_setting('server_encoding')"
						   " OPERATOR(pg_catalog.=) 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END),");
	appendStringInfoString(&sql, " ('synchronous_commit', CASE"
						   " WHEN pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off'"
						   " THEN 'on' ELSE pg_catalog.current_setting('synchronous_commit') END)"
						   ") AS pinned (name, value)"
						   " WHERE pg_catalog.current_setting(name, true) IS NOT NULL");
	return sql.data;
}

/*
 * A round trip: for a new session, and anew where sagaz.command_timeout has
 * changed.
 */
void
postgres_pin_settings(PostgresStore *store)
{
	const char *timeout = psprintf("%d", sagaz_command_timeout);

	(void) postgres_query(store, pinning_query(), 1, NULL, &timeout);
	store->connection->statement_timeout = sagaz_command_timeout;
}

/*
 * The same for a new session; false if it is over, ended by a limit on its time
 * that was set over there.  Another session can begin without that limit.
 */
bool
postgres_pin_first(PostgresStore *store)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool pinned = true;

	store->connection->met_limit = false;
	PG_TRY();
	{
		postgres_pin_settings(store);
	}
	PG_CATCH();
	{
		if (!store->connection->met_limit)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		pinned = false;
	}
	PG_END_TRY();
	return pinned;
}

/* Options of a session that no limit ends, of a server of that version. */
char *
postgres_unlimited_options(const char *options, int server_version)
{
	return psprintf("%s -c statement_timeout=0%s%s", options ? options : "",
					server_version >= 140000 ? " -c idle_session_timeout=0" : "",
					server_version >= 170000 ? " -c transaction_timeout=0" : "");
}

/* ---------------------------------------------------------------------- */
/* The option "options" */

static void
refuse_session_options(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_INPUT),
			 errmsg("options of a PostgreSQL storage are not valid"),
			 errdetail_internal("%s", detail),
			 errhint("Write settings as in '-c work_mem=64MB -c geqo=off'.")));
}

/* A name as the server reads it, which takes a dash for an underscore. */
static bool
is_session_setting(const char *name, size_t length, const char *setting)
{
	if (strlen(setting) != length)
		return false;
	for (size_t i = 0; i < length; i++)
		if (tolower((unsigned char) (name[i] == '-' ? '_' : name[i])) !=
			tolower((unsigned char) setting[i]))
			return false;
	return true;
}

static void
refuse_pinned(const char *name, size_t length)
{
	bool		is_pinned = false;

	for (int i = 0; i < (int) lengthof(pinned_settings); i++)
		is_pinned |= is_session_setting(name, length, pinned_settings[i].name);
	for (int i = 0; i < (int) lengthof(connection_settings); i++)
		is_pinned |= is_session_setting(name, length, connection_settings[i]);
	if (is_pinned)
		refuse_session_options(psprintf("%s is fixed by sagaz.", pnstrdup(name, length)));
}

/* name=value, to the next blank that has no backslash before it. */
static const char *
check_session_setting(const char *part)
{
	size_t		length = strcspn(part, "= \t\n\\");

	if (length == 0 || part[length] != '=')
		refuse_session_options("A name and \"=\" are missing.");
	refuse_pinned(part, length);
	for (part += length; *part && !isspace((unsigned char) *part); part++)
		if (*part == '\\' && part[1])
			part++;
	return part;
}

/* Nothing but settings, and none of those that are fixed. */
void
postgres_check_session_options(const char *value)
{
	const char *next = value;

	for (;;)
	{
		while (isspace((unsigned char) *next))
			next++;
		if (*next == '\0')
			return;
		if (strncmp(next, "-c", 2) != 0 && strncmp(next, "--", 2) != 0)
			refuse_session_options("Only settings can be given.");
		for (next += 2; isspace((unsigned char) *next) && next[-1] != '-';)
			next++;
		next = check_session_setting(next);
	}
}
