/*
 * uuid.h
 *		Time-ordered event ids.
 */
#ifndef SAGAZ_UUID_H
#define SAGAZ_UUID_H

#include "utils/uuid.h"

extern void sagaz_make_uuidv7(pg_uuid_t *uuid);

#endif							/* SAGAZ_UUID_H */
