/*
 * registry.c
 *		The backends that were compiled in.
 */
#include "sagaz.h"

#include "backend.h"

const SagazBackend *const sagaz_backends[] = {
#ifdef SAGAZ_WITH_MEMORY
	&sagaz_memory_backend,
#endif
#ifdef SAGAZ_WITH_SQLITE
	&sagaz_sqlite_backend,
#endif
	NULL
};

/* Known schemes and what would bring them in, for the hint. */
static const struct
{
	const char *scheme;
	const char *advice;
}			known_schemes[] =
{
	{"memory", "Build sagaz with \"make WITHOUT=\" that does not name memory."},
	{"sqlite", "Build sagaz with \"make WITHOUT=\" that does not name sqlite."},
};

/* The backend for a URL's scheme; raises SZ009 if there is none. */
const SagazBackend *
sagaz_backend_by_scheme(const char *scheme, int length)
{
	for (int i = 0; sagaz_backends[i] != NULL; i++)
	{
		const SagazBackend *backend = sagaz_backends[i];

		Assert(backend->size == sizeof(SagazBackend));
		if ((int) strlen(backend->scheme) == length &&
			strncmp(backend->scheme, scheme, length) == 0)
			return backend;
	}
	for (int i = 0; i < (int) lengthof(known_schemes); i++)
		if ((int) strlen(known_schemes[i].scheme) == length &&
			strncmp(known_schemes[i].scheme, scheme, length) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_SAGAZ_STORAGE),
					 errmsg("storages of kind \"%s\" are not built in",
							known_schemes[i].scheme),
					 errhint("%s", known_schemes[i].advice)));
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_INPUT),
			 errmsg("url has an unknown scheme"),
			 errhint("URLs are memory://name and sqlite:///path.")));
}

/* The backend of a foreign data wrapper, or NULL. */
const SagazBackend *
sagaz_backend_by_wrapper(const char *wrapper)
{
	for (int i = 0; sagaz_backends[i] != NULL; i++)
		if (strcmp(sagaz_backends[i]->wrapper, wrapper) == 0)
			return sagaz_backends[i];
	return NULL;
}
