/*
 * backends.c
 *		The backends that were compiled in: the one list that names them.
 */
#include "lib/sagaz.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "lib/rows.h"
#include "storage/storage.h"

PG_FUNCTION_INFO_V1(sagaz_backends_list);

const SagazBackend *const sagaz_backends[] = {
	&sagaz_native_backend,
	&sagaz_memory_backend,
#ifndef SAGAZ_WITHOUT_SQLITE
	&sagaz_sqlite_backend,
#endif
#ifndef SAGAZ_WITHOUT_REDIS
	&sagaz_redis_backend,
#endif
#ifndef SAGAZ_WITHOUT_POSTGRES
	&sagaz_postgresql_backend,
#endif
};
const int	sagaz_nbackends = lengthof(sagaz_backends);

/* NULL where there is none of that name. */
const SagazBackend *
sagaz_backend_find(const char *name)
{
	for (int i = 0; i < sagaz_nbackends; i++)
		if (strcmp(sagaz_backends[i]->name, name) == 0)
			return sagaz_backends[i];
	return NULL;
}

static Datum
capability_words(int capabilities)
{
	static const struct
	{
		int			bit;
		const char *word;
	}			words[] =
	{
		{SAGAZ_KEEPS_SAGAS, "saga"},
		{SAGAZ_KEEPS_EVENTS, "outbox"},
		{SAGAZ_KEEPS_VERSIONS, "versions"},
		{SAGAZ_OUTLIVES_SESSION, "durable"},
		{SAGAZ_KEY_ORDER, "key_order"},
		{SAGAZ_HAS_STREAMS, "streams"}
	};
	const char *found[lengthof(words)];
	int			nfound = 0;

	for (int i = 0; i < (int) lengthof(words); i++)
		if (capabilities & words[i].bit)
			found[nfound++] = words[i].word;
	return sagaz_text_array(found, nfound);
}

/* backends(): name, version, capabilities */
Datum
sagaz_backends_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	sagaz_rows_begin(fcinfo);
	for (int i = 0; i < sagaz_nbackends; i++)
	{
		const SagazBackend *backend = sagaz_backends[i];
		const char *version = backend->version();
		Datum		values[] = {
			CStringGetTextDatum(backend->name),
			CStringGetTextDatum(version),
			capability_words(backend->capabilities)
		};
		bool		nulls[] = {false, version[0] == '\0', false};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
