/*
 * secrets.h
 *		Storages' names that may be URLs with passwords: how errors keep them.
 */
#ifndef SAGAZ_SECRETS_H
#define SAGAZ_SECRETS_H

#include "fmgr.h"

extern bool sagaz_may_hold_secret(const char *name);
SAGAZ_NORETURN extern void sagaz_storage_unknown(const char *name);
extern Datum sagaz_secrets_hide_statement(FunctionCallInfo fcinfo,
										  PGFunction function);
extern Datum sagaz_secrets_hide_argument(FunctionCallInfo fcinfo, int argno,
										 PGFunction function);
extern Datum sagaz_with_storage(FunctionCallInfo fcinfo, PGFunction function);

#endif							/* SAGAZ_SECRETS_H */
