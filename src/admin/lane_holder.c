/*
 * lane_holder.c
 *		Open transactions that keep claims out of a lane.
 *
 * Who claims holds the lane until his transaction ends.  A client that is gone
 * meanwhile, or waits for something, stops the lane; four stop a group.
 */
#include "lib/sagaz.h"

#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "admin/lane_holder.h"
#include "lib/owner.h"

static const char *const query =
	"SELECT l.objid::pg_catalog.int4, l.objsubid::pg_catalog.int4 OPERATOR(pg_catalog.-) 1,"
	" coalesce(a.backend_type OPERATOR(pg_catalog.=) 'client backend', true),"
	" coalesce(a.state OPERATOR(pg_catalog.~~) 'idle in transaction%', false),"
	" coalesce(extract(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-)"
	" CASE WHEN a.state OPERATOR(pg_catalog.~~) 'idle in transaction%' THEN a.state_change ELSE a.xact_start END), 0)::pg_catalog.float8,"
	" CASE WHEN l.pid IS NULL THEN 'a prepared transaction'"
	" ELSE pg_catalog.format('the open transaction of session %s (role %s, application \"%s\", %s) since %s',"
	" l.pid, a.usename, a.application_name, a.state, pg_catalog.to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"')) END"
	" FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) l.pid"
	" WHERE l.locktype OPERATOR(pg_catalog.=) 'object' AND l.granted"
	" AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d"
	" WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())"
	" AND l.classid OPERATOR(pg_catalog.=) 'sagaz.consumer_group'::pg_catalog.regclass"
	" AND l.objsubid OPERATOR(pg_catalog.>) 0"
	" AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()"
	" ORDER BY 1, 2, l.pid";

static SagazLaneHolder *
read_lane_holder(HeapTuple row, TupleDesc desc)
{
	SagazLaneHolder *holder = palloc0(sizeof(SagazLaneHolder));
	bool		isnull;

	holder->group_no = (int16) DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
	holder->lane = (int16) DatumGetInt32(SPI_getbinval(row, desc, 2, &isnull));
	holder->is_client = DatumGetBool(SPI_getbinval(row, desc, 3, &isnull));
	holder->is_idle = DatumGetBool(SPI_getbinval(row, desc, 4, &isnull));
	holder->seconds = DatumGetFloat8(SPI_getbinval(row, desc, 5, &isnull));
	holder->text = TextDatumGetCString(SPI_getbinval(row, desc, 6, &isnull));
	return holder;
}

/*
 * All of this database, but the own transaction, in the present memory
 * context.  Runs as the extension's owner, who sees all sessions.
 */
List *
sagaz_lane_holders(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *holders = NIL;
	SagazUser	user;

	sagaz_become_owner(&user);
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute(query, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "cannot read the locks");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext outer = MemoryContextSwitchTo(context);

		holders = lappend(holders, read_lane_holder(SPI_tuptable->vals[i],
													SPI_tuptable->tupdesc));
		MemoryContextSwitchTo(outer);
	}
	SPI_finish();
	sagaz_owner_restore(&user);
	return holders;
}
