/*
 * varint.h
 *		The binary columns of outbox_batch.
 *
 *	byte 0		the version of the column's layout, from 1 on
 *	bytes 1…	numbers, as the column's file has them
 *
 * A number has seven bits a byte, lowest first; the high bit says that more
 * bytes follow.  A signed one is stored as 2n, or as -2n - 1 if n is negative.
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
extern uint64 sagaz_varint_get(SagazBytes *bytes);
extern int	sagaz_varint_get_count(SagazBytes *bytes);
extern void sagaz_varint_put_signed(StringInfo buffer, int64 value);
extern int64 sagaz_varint_get_signed(SagazBytes *bytes);
extern void sagaz_varint_begin(StringInfo buffer, int version);
extern bytea *sagaz_varint_end(StringInfo buffer);
extern void sagaz_varint_open(SagazBytes *bytes, Datum value,
							 const char *column, int version);

#endif							/* SAGAZ_VARINT_H */
