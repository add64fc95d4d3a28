/*
 * binding.h
 *		What a delivery goes to is an object, not a name.
 */
#ifndef SAGAZ_BINDING_H
#define SAGAZ_BINDING_H

#include "storage/storage.h"
#include "worker/delivery.h"

extern Oid	sagaz_binding_find(const SagazDelivery *delivery);
extern bool sagaz_binding_is_trusted(const SagazDelivery *delivery, Oid object,
									 Oid role);
extern void sagaz_binding_write(SagazWriter *writer, bool to_storage,
								Oid object);
extern void sagaz_binding_tie(const char *name, bool to_storage, Oid object);
extern void sagaz_binding_untie(const char *name);
extern char *sagaz_binding_obstacle(const SagazDelivery *delivery);
extern char *sagaz_binding_name(bool to_storage, Oid object);
extern void sagaz_binding_storage(const SagazDelivery *delivery,
								  SagazStorage *storage);

#endif							/* SAGAZ_BINDING_H */
