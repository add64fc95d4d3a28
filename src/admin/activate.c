/*
 * activate.c
 *		activate(): let a copy of the data deliver.
 *
 * Both the outbox and the deliveries came here as rows that say where they
 * were written; each is told that it is meant here.
 */
#include "lib/sagaz.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "outbox/epoch.h"
#include "wakeup/wake.h"
#include "worker/delivery.h"

PG_FUNCTION_INFO_V1(sagaz_activate);

Datum
sagaz_activate(PG_FUNCTION_ARGS)
{
	PreventCommandDuringRecovery("sagaz.activate()");
	sagaz_deliveries_activate(sagaz_epoch_activate());
	sagaz_wake_for_deliveries();
	PG_RETURN_VOID();
}
