/*
 * event.c
 *		Rows of the log.
 */
#include "lib/sagaz.h"

#include "utils/builtins.h"
#include "utils/uuid.h"

#include "outbox/event.h"

/*
 * The event of that id, NULL if the snapshot has none in the log.  *scan is
 * opened at the first call and serves the next ones, too; the row stays valid
 * until then.
 */
TupleTableSlot *
sagaz_event_fetch(SagazScan **scan, Datum event_id, Snapshot snapshot)
{
	ScanKeyData key;

	sagaz_key_uuid(&key, 1, event_id);
	if (*scan == NULL)
		*scan = sagaz_scan_begin("outbox", "outbox_event_id", snapshot, &key,
								 1, ForwardScanDirection);
	else
		sagaz_scan_again(*scan, &key, 1);
	return sagaz_scan_next(*scan) ? (*scan)->slot : NULL;
}

void
sagaz_event_no_such(Datum event_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_NOT_FOUND),
			 errmsg("event %s is not in the outbox",
					DatumGetCString(DirectFunctionCall1(uuid_out, event_id)))));
}
