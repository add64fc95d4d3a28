/*
 * settings.c
 *		The settings: their defaults, bounds, and who may set them.
 *
 * A setting of the caller's session holds in functions that run with another
 * role's rights, too.  So what anybody may set bounds only the time and the
 * memory that the session takes; what says where data go, or which files may
 * be used, is for superusers and for those whom they grant SET on it.
 */
#include "lib/sagaz.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/varlena.h"

char	   *sagaz_saga_storage;
char	   *sagaz_outbox_storage;
int			sagaz_poll_interval;
int			sagaz_claim_timeout;
int			sagaz_max_retries;
int			sagaz_retry_backoff;
int			sagaz_batch_size;
int			sagaz_archive_after;
int			sagaz_inbox_after;
int			sagaz_housekeeping_interval;
char	   *sagaz_databases;
int			sagaz_max_deliveries;
int			sagaz_max_crashes;
int			sagaz_max_deliveries_per_database;
int			sagaz_max_deliveries_per_role;
int			sagaz_spare_processes;
int			sagaz_memory_limit;
int			sagaz_idle_timeout;
int			sagaz_connect_timeout;
int			sagaz_command_timeout;
int			sagaz_max_reply;
int			sagaz_max_payload_size;
char	   *sagaz_sqlite_directory;

#define URL_MESSAGE "a storage that is a setting must be one with a name"
#define URL_DETAIL "This is a URL."
#define URL_HINT "Give it a name with SELECT sagaz.create_storage(name, url)."

/* While a setting is defined, values from before may only raise a warning. */
static bool defining = false;

/*
 * A storage that a setting names must have a name: a URL is opened with the
 * rights of whoever is there when it is used, who may be a function's definer.
 * There may be a secret in it: no message quotes it, and where it is a
 * statement that says it, which PostgreSQL would write into the log, the error
 * is our own.
 */
static bool
check_storage_name(char **newval, void **extra, GucSource source)
{
	if (strstr(*newval, "://") == NULL)
		return true;
	if (source >= PGC_S_TEST && !defining)
	{
		error_context_stack = NULL;
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg(URL_MESSAGE), errdetail(URL_DETAIL), errhint(URL_HINT),
				 errhidestmt(true)));
	}
	GUC_check_errmsg(URL_MESSAGE);
	GUC_check_errdetail(URL_DETAIL);
	GUC_check_errhint(URL_HINT);
	return false;
}

static void
define_storage_settings(void)
{
	defining = true;
	DefineCustomStringVariable(SAGAZ_SAGA_STORAGE,
							   "Storage that saga functions use when none is named.",
							   NULL, &sagaz_saga_storage, "native",
							   PGC_SUSET, 0, check_storage_name, NULL, NULL);
	DefineCustomStringVariable(SAGAZ_OUTBOX_STORAGE,
							   "Storage that outbox functions use when none is named.",
							   NULL, &sagaz_outbox_storage, "native",
							   PGC_SUSET, 0, check_storage_name, NULL, NULL);
	defining = false;
}

/* May the role say, for a session or a database, what a PGC_SUSET setting is? */
bool
sagaz_settings_may_set(const char *setting, Oid role)
{
#if PG_VERSION_NUM >= 150000
	return pg_parameter_aclcheck(setting, role, ACL_SET) == ACLCHECK_OK;
#else
	return superuser_arg(role);
#endif
}

static void
define_backend_settings(void)
{
	DefineCustomIntVariable("sagaz.memory_limit",
							"Memory that a storage of kind memory may take.",
							NULL, &sagaz_memory_limit, 64 * 1024, 64, MAX_KILOBYTES,
							PGC_USERSET, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("sagaz.idle_timeout",
							"Time after which a connection to a storage that is not used is closed.",
							"-1 keeps it as long as the session lasts.",
							&sagaz_idle_timeout, 300000, -1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("sagaz.connect_timeout",
							"Time that connecting to a storage may take.",
							NULL, &sagaz_connect_timeout, 10000, 1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("sagaz.command_timeout",
							"Time that a storage may take to answer.",
							NULL, &sagaz_command_timeout, 10000, 1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("sagaz.max_reply",
							"Largest answer of a storage that is taken into memory.",
							NULL, &sagaz_max_reply, 512 * 1024, 1024, 2 * 1024 * 1024 - 1,
							PGC_SUSET, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("sagaz.max_payload_size",
							"Largest payload or headers of an event, as text.",
							NULL, &sagaz_max_payload_size, 16 * 1024, 1, 256 * 1024,
							PGC_SUSET, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomStringVariable("sagaz.sqlite_directory",
							   "Directory whose SQLite files need no privilege of server files.",
							   NULL, &sagaz_sqlite_directory, "",
							   PGC_SUSET, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
}

static void
define_delivery_settings(void)
{
	DefineCustomIntVariable("sagaz.poll_interval",
							"Longest time between two looks for events where no commit wakes the reader.",
							NULL, &sagaz_poll_interval, 1000, 10, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("sagaz.claim_timeout",
							"Age at which a claimed batch may be taken over by another worker.",
							NULL, &sagaz_claim_timeout, 300000, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("sagaz.max_retries",
							"Retries after which a failure makes an event a dead letter.",
							NULL, &sagaz_max_retries, 10, 0, 1000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("sagaz.retry_backoff",
							"Wait before the first retry; it doubles with each further one.",
							NULL, &sagaz_retry_backoff, 1000, 0, 3600000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

/* sagaz.databases must be a list of names; '*' is one of them. */
static bool
check_databases_setting(char **newval, void **extra, GucSource source)
{
	char	   *copy = pstrdup(*newval);
	List	   *names;

	if (SplitIdentifierString(copy, ',', &names))
		return true;
	GUC_check_errdetail("List syntax is invalid.");
	return false;
}

static void
define_worker_settings(void)
{
	DefineCustomIntVariable("sagaz.batch_size",
							"Events that a delivery hands over at once, where it does not say so itself.",
							NULL, &sagaz_batch_size, 100, 1, 100000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("sagaz.archive_after",
							"Age at which house-keeping moves finished events from the log to the archive.",
							"-1 turns it off.",
							&sagaz_archive_after, 7 * 86400, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("sagaz.inbox_after",
							"Age at which house-keeping removes rows of the consumers' inbox.",
							"-1 turns it off.",
							&sagaz_inbox_after, 30 * 86400, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("sagaz.housekeeping_interval",
							"Time between two looks of the worker for old events.",
							NULL, &sagaz_housekeeping_interval, 60000, 100, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable("sagaz.databases",
							   "Databases whose deliveries are run.",
							   "A list of names, or * for all.",
							   &sagaz_databases, "*",
							   PGC_SIGHUP, GUC_LIST_INPUT, check_databases_setting,
							   NULL, NULL);
	DefineCustomIntVariable("sagaz.max_crashes",
							"Crashes of the server within ten minutes after which the delivery that was at work stands still.",
							"0 turns it off.",
							&sagaz_max_crashes, 3, 0, 10,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("sagaz.max_deliveries",
							"Deliveries of all databases that can run at the same time.",
							NULL, &sagaz_max_deliveries, 64, 1, 4096,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
}

static void
define_share_settings(void)
{
	DefineCustomIntVariable("sagaz.max_deliveries_per_database",
							"Deliveries of one database that can run at the same time.",
							"-1 sets no limit.",
							&sagaz_max_deliveries_per_database, 32, -1, 4096,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("sagaz.max_deliveries_per_role",
							"Deliveries of one owner, in all databases, that can run at the same time.",
							"-1 sets no limit.",
							&sagaz_max_deliveries_per_role, -1, -1, 4096,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("sagaz.spare_processes",
							"Background processes that deliveries leave to others.",
							NULL, &sagaz_spare_processes, 2, 1, 1024,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
}

/* Those of the worker exist only where it does, in preloaded modules. */
void
sagaz_settings_define(bool with_worker)
{
	define_storage_settings();
	define_backend_settings();
	define_delivery_settings();
	if (with_worker)
	{
		define_worker_settings();
		define_share_settings();
	}
	MarkGUCPrefixReserved("sagaz");
}
