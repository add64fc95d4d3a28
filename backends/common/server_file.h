/*
 * server_file.h
 *		Who may name a file of this server.
 */
#ifndef SAGAZ_SERVER_FILE_H
#define SAGAZ_SERVER_FILE_H

#include "backends/common/backend.h"

extern bool sagaz_may_use_server_file(Oid role, bool writes);
extern void sagaz_check_server_file(const SagazStore *store, const char *option,
									bool writes);

#endif							/* SAGAZ_SERVER_FILE_H */
