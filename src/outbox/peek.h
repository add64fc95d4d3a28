/*
 * peek.h
 *		Is there something for a consumer group to claim?
 */
#ifndef SAGAZ_PEEK_H
#define SAGAZ_PEEK_H

#include "datatype/timestamp.h"

extern bool sagaz_peek(const char *group_name, TimestampTz now,
					   TimestampTz *next);

#endif							/* SAGAZ_PEEK_H */
