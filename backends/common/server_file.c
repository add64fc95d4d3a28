/*
 * server_file.c
 *		Who may name a file of this server: certificates, sockets, SQLite files.
 *
 * Whatever opens it does so as the server's user.  So the rule is that of
 * server-side file access, for whoever owns the storage: pg_read_server_files
 * to read and pg_write_server_files to write.  The catalogs are asked when the
 * storage is found: a delivery opens it outside of a transaction.
 */
#include "backends/common/server_file.h"

#include "catalog/pg_authid.h"
#include "utils/acl.h"

/* In a transaction. */
bool
sagaz_may_use_server_file(Oid role, bool writes)
{
	return has_privs_of_role(role, writes ? ROLE_PG_WRITE_SERVER_FILES :
							 ROLE_PG_READ_SERVER_FILES);
}

/* An error if the storage's owner may not name a file in the option. */
void
sagaz_check_server_file(const SagazStore *store, const char *option, bool writes)
{
	if (writes ? store->writes_files : store->reads_files)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for %s of storage \"%s\"", option, store->name),
			 errdetail("It names a file of this server."),
			 errhint("The storage's owner needs the privileges of %s.",
					 writes ? "pg_write_server_files" : "pg_read_server_files")));
}
