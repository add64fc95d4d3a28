/*
 * records.h
 *		Records out of and into storages by SQL functions.
 */
#ifndef SAGAZ_RECORDS_H
#define SAGAZ_RECORDS_H

#include "fmgr.h"

#include "backends/common/backend.h"

extern SagazStore *sagaz_records_store(FunctionCallInfo fcinfo,
									   int type_argno, SagazKind *kind);
extern void sagaz_records_warn(const SagazStore *store, const SagazRecord *record);
extern SagazRecord *sagaz_read_records(FunctionCallInfo fcinfo, int argno,
									   SagazKind kind,
									   void (*read) (SagazKind, Jsonb *, SagazRecord *),
									   int *count);

#endif							/* SAGAZ_RECORDS_H */
