/*
 * varint.h
 *		Whole numbers in as few bytes as they need, for the binary columns of
 *		outbox_batch: seven bits a byte, lowest first, the high bit says that
 *		more follow.
 */
#ifndef SAGAZ_VARINT_H
#define SAGAZ_VARINT_H

#include "lib/stringinfo.h"

typedef struct SagazReader
{
	const unsigned char *at;
	const unsigned char *end;
} SagazReader;

extern void sagaz_put_number(StringInfo buffer, uint64 value);
extern uint64 sagaz_get_number(SagazReader *reader);
extern void sagaz_put_signed(StringInfo buffer, int64 value);
extern int64 sagaz_get_signed(SagazReader *reader);
extern void sagaz_reader_init(SagazReader *reader, Datum value);

#endif							/* SAGAZ_VARINT_H */
