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
extern Datum sagaz_secrets_hide_storage(FunctionCallInfo fcinfo, PGFunction function);

/* The SQL function "name", which does what the other one does, by one of these. */
#define SAGAZ_SQL_FUNCTION(name, calls, function) \
PG_FUNCTION_INFO_V1(name); \
\
Datum \
name(PG_FUNCTION_ARGS) \
{ \
	return calls(fcinfo, function); \
} \
extern int	no_such_variable

#endif							/* SAGAZ_SECRETS_H */
