/*
 * storage.h
 *		Finding and opening storages by name or URL.
 *
 * The folder leads from what a caller names to an open store: a foreign
 * server, or a URL where he may use one, the options and secrets, the
 * session's cache of stores; and it has the SQL functions that take a
 * storage, which go to the native function, to the sagaz at the other end, or
 * to one written over backend.h.  It calls the backends through their table
 * and all that lies below.
 */
#ifndef SAGAZ_STORAGE_H
#define SAGAZ_STORAGE_H

#include "fmgr.h"

#include "backends/common/backend.h"

/* What a name or a URL stands for, before it is opened. */
typedef struct SagazStorage
{
	const SagazBackend *backend;
	Oid			server;			/* InvalidOid: given by a URL */
	Oid			owner;			/* whose rights decide */
	bool		is_superusers;	/* who owns it, who uses it and whose session it is */
	bool		reads_files;	/* see server_file.c */
	bool		writes_files;
	char	   *user;			/* who uses it */
	char	   *name;			/* for messages; holds no secret */
	List	   *options;
} SagazStorage;

extern void sagaz_storage_find(const char *name, SagazStorage *storage);
extern bool sagaz_storage_may_be_default(const SagazStorage *storage,
										 SagazKind kind);
extern void sagaz_storage_of_server(Oid server, SagazStorage *storage);
extern SagazStore *sagaz_storage_native(void);
extern SagazStore *sagaz_storage_open(const SagazStorage *storage,
									  const char *name, SagazKind kind);
extern SagazStore *sagaz_storage_open_named(const char *name, SagazKind kind);
extern SagazStore *sagaz_storage_argument(FunctionCallInfo fcinfo, SagazKind kind);
extern SagazStore *sagaz_storage_argument_of_any(FunctionCallInfo fcinfo);
extern const SagazBackend *sagaz_storage_read_url(const char *url,
												  List **options);
extern char *sagaz_storage_wrapper(const SagazBackend *backend);
extern bool sagaz_storage_option_is_secret(const SagazBackend *backend,
										   const char *name);
extern void sagaz_storage_check_open(const SagazStore *store);
extern void sagaz_storage_check_group(const SagazStore *store,
									  FunctionCallInfo fcinfo, int argno);

/* backends.c */
extern const SagazBackend *const sagaz_backends[];
extern const int sagaz_nbackends;
extern const SagazBackend *sagaz_backend_find(const char *name);

/* storage_cache.c */
extern SagazStore *sagaz_storage_connect(const SagazStorage *storage,
										 const char *name);

#endif							/* SAGAZ_STORAGE_H */
