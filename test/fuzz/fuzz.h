/*
 * fuzz.h
 *		What the files of the fuzzer share.
 */
#ifndef SAGAZ_FUZZ_H
#define SAGAZ_FUZZ_H

#include "lib/sagaz.h"

/* fuzz_record.c */
extern void fuzz_record(const uint8 *data, size_t size);

/* fuzz_redis.c */
extern void fuzz_redis(const uint8 *data, size_t size);
extern void fuzz_redis_begin(const char *peer, const char *real, const char *corpus);

#endif							/* SAGAZ_FUZZ_H */
