/*
 * exchange.h
 *		Records out of and into storages by SQL functions.
 */
#ifndef SAGAZ_EXCHANGE_H
#define SAGAZ_EXCHANGE_H

#include "fmgr.h"

#include "backends/common/backend.h"

extern SagazStore *sagaz_exchange_store(FunctionCallInfo fcinfo,
										int type_argno, SagazKind *kind);
extern SagazRecord *sagaz_read_records(FunctionCallInfo fcinfo, int argno,
									   SagazKind kind,
									   void (*read) (SagazKind, Jsonb *, SagazRecord *),
									   int *count);

#endif							/* SAGAZ_EXCHANGE_H */
