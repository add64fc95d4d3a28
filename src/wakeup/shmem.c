/*
 * shmem.c
 *		Asks the server for shared memory, and hands it to those who use it.
 *
 * The server calls the hooks, in the postmaster and, where processes are not
 * forked, in each of them; wake.c, shared.c and crash.c know nothing of that.
 */
#include "lib/sagaz.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "wakeup/crash.h"
#include "wakeup/shared.h"
#include "wakeup/wake.h"

#define TRANCHE "sagaz"

static shmem_startup_hook_type previous_startup_hook = NULL;
static shmem_request_hook_type previous_request_hook = NULL;

static void
request_shared_memory(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sagaz_wake_size()));
	RequestAddinShmemSpace(MAXALIGN(sagaz_shared_size()));
	RequestAddinShmemSpace(MAXALIGN(sagaz_crashes_size(sagaz_max_deliveries)));
	RequestNamedLWLockTranche(TRANCHE, 1);
}

static void
start_shared_memory(void)
{
	bool		found;
	void	   *memory;

	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	memory = ShmemInitStruct("sagaz wake", sagaz_wake_size(), &found);
	sagaz_wake_attach(memory, !found);
	memory = ShmemInitStruct("sagaz workers", sagaz_shared_size(), &found);
	sagaz_shared_attach(memory, &GetNamedLWLockTranche(TRANCHE)->lock, !found);
	memory = ShmemInitStruct("sagaz crashes",
							 sagaz_crashes_size(sagaz_max_deliveries), &found);
	sagaz_crashes_start(memory, sagaz_max_deliveries, !found);
	LWLockRelease(AddinShmemInitLock);
}

/* Called while shared_preload_libraries are loaded. */
void
sagaz_shmem_install(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = start_shared_memory;
}
