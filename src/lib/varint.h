/*
 * varint.h
 *		Whole numbers in as few bytes as they need, for the binary columns of
 *		outbox_batch: seven bits a byte, lowest first, the high bit says that
 *		more follow.
 */
#ifndef SAGAZ_VARINT_H
#define SAGAZ_VARINT_H

#include "lib/stringinfo.h"

typedef struct SagazBytes
{
	const unsigned char *at;
	const unsigned char *end;
} SagazBytes;

extern void sagaz_varint_put(StringInfo buffer, uint64 value);
extern uint64 sagaz_varint_get(SagazBytes *reader);
extern void sagaz_varint_put_signed(StringInfo buffer, int64 value);
extern int64 sagaz_varint_get_signed(SagazBytes *reader);
extern void sagaz_varint_begin(SagazBytes *reader, Datum value);

#endif							/* SAGAZ_VARINT_H */
