/*
 * dispatch.c
 *		The SQL functions that take a storage: which code serves them.
 *
 * The storage is always the last argument.  NULL is the setting for sagas or
 * for events; 'native' goes to the function on the native tables, a storage
 * that has a sagaz of its own to that one's function, and anything else to
 * the function that is written over backend.h.
 */
#include "lib/sagaz.h"

#include "fmgr.h"

#include "storage/calls.h"
#include "storage/secrets.h"
#include "storage/storage.h"

#define DISPATCH(name, kind) \
	extern Datum sagaz_##name(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(sagaz_any_##name); \
	static Datum \
	dispatch_##name(PG_FUNCTION_ARGS) \
	{ \
		SagazStore *store = sagaz_storage_argument(fcinfo, kind); \
		Datum		value; \
		\
		if (store && sagaz_call_##name == sagaz_call_claim_batch) \
			sagaz_storage_check_open(store); \
		if (store && sagaz_remote_call(fcinfo, store, &value)) \
			return value; \
		return store ? sagaz_call_##name(fcinfo, store) : \
			sagaz_##name(fcinfo); \
	} \
	\
	Datum \
	sagaz_any_##name(PG_FUNCTION_ARGS) \
	{ \
		return sagaz_secrets_hide_storage(fcinfo, dispatch_##name); \
	}

#define DISPATCH_SAGA(name) DISPATCH(name, SAGAZ_SAGA)
#define DISPATCH_EVENT(name) DISPATCH(name, SAGAZ_EVENT)

SAGAZ_SAGA_FUNCTIONS(DISPATCH_SAGA)
SAGAZ_EVENT_FUNCTIONS(DISPATCH_EVENT)
