/*
 * sagaz.c
 *		Loading of the module and its settings.
 */
#include "sagaz.h"

#include <limits.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "wake.h"

#if PG_VERSION_NUM < 150000
#define MarkGUCPrefixReserved(name) EmitWarningsOnPlaceholders(name)
#endif

PG_MODULE_MAGIC;

char	   *sagaz_saga_storage;
char	   *sagaz_outbox_storage;
int			sagaz_poll_interval;
int			sagaz_claim_timeout;
int			sagaz_max_retries;
int			sagaz_retry_backoff;

void		_PG_init(void);

static void
define_storage_settings(void)
{
	DefineCustomStringVariable("sagaz.saga_storage",
							   "Storage that saga functions use when none is named.",
							   NULL, &sagaz_saga_storage, "native",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("sagaz.outbox_storage",
							   "Storage that outbox functions use when none is named.",
							   NULL, &sagaz_outbox_storage, "native",
							   PGC_USERSET, 0, NULL, NULL, NULL);
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

void
_PG_init(void)
{
	define_storage_settings();
	define_delivery_settings();
	MarkGUCPrefixReserved("sagaz");

	if (process_shared_preload_libraries_in_progress)
		sagaz_wake_install();
}
