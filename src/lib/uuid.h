/*
 * uuid.h
 *		Time-ordered event ids.
 */
#ifndef SAGAZ_UUID_H
#define SAGAZ_UUID_H

#include "utils/uuid.h"

extern void sagaz_uuid_make(pg_uuid_t *uuid);

#endif							/* SAGAZ_UUID_H */
