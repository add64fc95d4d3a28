/*
 * health_workers.c
 *		The part of health_check() that is about deliveries and their workers.
 */
#include "lib/sagaz.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/json.h"

#include "outbox/cluster.h"
#include "worker/delivery.h"
#include "worker/shares.h"
#include "worker/trouble.h"
#include "admin/health.h"
#include "wakeup/shared.h"

/* What is wrong with the delivery, or NULL. */
static const char *
worker_complaint(const SagazDelivery *delivery, const SagazWorkerSlot *slot)
{
	const char *trouble = sagaz_delivery_trouble(delivery, slot, false);

	return trouble ? psprintf("delivery \"%s\" %s", delivery->name, trouble) : NULL;
}

/* Look at each delivery; returns how many there are. */
static int
check_health_of_deliveries(SagazHealth *health)
{
	SagazScan  *scan = sagaz_scan_begin("delivery", "delivery_pkey",
										health->snapshot, NULL, 0,
										ForwardScanDirection);
	bool		may_run = !RecoveryInProgress() && sagaz_cluster_is_active(health->snapshot);
	const char *comma = "";
	int			count = 0;

	appendStringInfoString(&health->details, ", \"deliveries\": [");
	while (sagaz_scan_next(scan))
	{
		SagazDelivery delivery;
		SagazWorkerSlot slot;
		const char *complaint;

		count++;
		sagaz_delivery_read(scan->slot, &delivery);
		slot = sagaz_shares_read(delivery.name);
		complaint = may_run ? worker_complaint(&delivery, &slot) : NULL;
		if (complaint)
			sagaz_health_complain(health, &health->degraded, complaint);
		appendStringInfo(&health->details, "%s{\"name\": ", comma);
		escape_json(&health->details, delivery.name);
		appendStringInfo(&health->details, ", \"paused\": %s, \"running\": %s}",
						 delivery.paused ? "true" : "false",
						 slot.pid != 0 ? "true" : "false");
		comma = ", ";
	}
	appendStringInfoChar(&health->details, ']');
	sagaz_scan_end(scan);
	return count;
}

/* What is wrong with the worker processes as such. */
static void
check_worker_processes(SagazHealth *health, int deliveries)
{
	bool		running = sagaz_workers && sagaz_workers->launcher_pid != 0;

	appendStringInfo(&health->details,
					 ", \"preloaded\": %s, \"launcher\": %s",
					 sagaz_workers ? "true" : "false",
					 running ? "true" : "false");
	if (deliveries == 0 || RecoveryInProgress())
		return;
	if (sagaz_workers == NULL)
		sagaz_health_complain(health, &health->degraded,
							  "there are deliveries but no worker, set shared_preload_libraries = 'sagaz'");
	else if (!running)
		sagaz_health_complain(health, &health->degraded,
							  "the launcher of the workers does not run");
	else if (sagaz_workers->no_process)
		sagaz_health_complain(health, &health->degraded,
							  "no background process is free for a worker, increase max_worker_processes");
	else if (sagaz_workers->no_slot)
		sagaz_health_complain(health, &health->degraded,
							  "there are more deliveries than sagaz.max_deliveries");
}

/* Are there workers for the deliveries of this database? */
void
sagaz_health_workers(SagazHealth *health)
{
	check_worker_processes(health, check_health_of_deliveries(health));
}
