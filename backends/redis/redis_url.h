/*
 * redis_url.h
 *		URLs of Redis storages, taken apart into options.
 */
#ifndef SAGAZ_REDIS_URL_H
#define SAGAZ_REDIS_URL_H

#include "backends/common/backend.h"

extern List *redis_url_read(const char *scheme, const char *rest);
extern bool redis_url_is_number(const char *value, int64 min, int64 max);

#endif							/* SAGAZ_REDIS_URL_H */
