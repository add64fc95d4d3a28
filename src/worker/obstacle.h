/*
 * obstacle.h
 *		Why a delivery does not run.
 */
#ifndef SAGAZ_OBSTACLE_H
#define SAGAZ_OBSTACLE_H

#include "worker/delivery.h"

extern bool sagaz_role_can_run(Oid role);
extern bool sagaz_role_may_use(Oid role, bool to_storage, Oid object);
extern Oid	sagaz_delivery_owner(const SagazDelivery *delivery);
extern char *sagaz_delivery_obstacle(const SagazDelivery *delivery);

#endif							/* SAGAZ_OBSTACLE_H */
