/*
 * forward.h
 *		What targets that are storages have in common.
 */
#ifndef SAGAZ_FORWARD_H
#define SAGAZ_FORWARD_H

#include "worker/target.h"

extern void sagaz_forward_read(TupleTableSlot *slot, SagazHanded *event);
extern void sagaz_forward_bind(SagazBatch *batch);
extern SagazStore *sagaz_forward_open(SagazBatch *batch);

#endif							/* SAGAZ_FORWARD_H */
