/*
 * module.c
 *		Loading of the module.  Only a preloaded one has shared memory and a
 *		worker; everything else works in a session that loads it by itself.
 */
#include "lib/sagaz.h"

#include "miscadmin.h"

#include "wakeup/shared.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	sagaz_settings_define(process_shared_preload_libraries_in_progress);
	if (!process_shared_preload_libraries_in_progress)
		return;
	sagaz_shmem_install();
	sagaz_commands_install();
	sagaz_launcher_install();
}
