/*
 * trouble.h
 *		What keeps a delivery from delivering at present.
 */
#ifndef SAGAZ_TROUBLE_H
#define SAGAZ_TROUBLE_H

#include "wakeup/shared.h"
#include "worker/delivery.h"

extern char *sagaz_delivery_trouble(const SagazDelivery *delivery,
									const SagazWorkerSlot *slot, bool with_times);
extern char *sagaz_delivery_at_work(const SagazDelivery *delivery,
									const SagazWorkerSlot *slot);

#endif							/* SAGAZ_TROUBLE_H */
