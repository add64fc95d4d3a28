/*
 * backends.c
 *		The backends that were compiled in: the one list that names them.
 */
#include "lib/sagaz.h"

#include "storage/storage.h"

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
