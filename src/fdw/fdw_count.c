/*
 * fdw_count.c
 *		How many rows a foreign table has, for the planner.
 *
 * The storage is asked, but not for each plan: a session remembers what it
 * heard for a while.
 */
#include "lib/sagaz.h"

#include "utils/acl.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "fdw/fdw_count.h"

#define REMEMBERED_MS 60000

typedef struct CountKey
{
	Oid			table;
	Oid			user;
} CountKey;

typedef struct CountEntry
{
	CountKey	key;			/* must be first */
	double		rows;
	TimestampTz asked_at;
} CountEntry;

static HTAB *counts = NULL;

/*
 * Remembered by the session for a while: the planner asks often, and each
 * time would be a round trip.
 */
double
sagaz_table_count(const SagazTable *table, Oid user)
{
	CountKey	key = {table->id, user};
	SagazFilter filter = {0};
	CountEntry *entry;
	double		rows;
	TimestampTz now = GetCurrentTimestamp();

	/* who may not read the table learns nothing from its plans */
	if (pg_class_aclcheck(table->id, user, ACL_SELECT) != ACLCHECK_OK)
		return SAGAZ_UNKNOWN_ROWS;
	if (counts == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(CountKey),.entrysize = sizeof(CountEntry)};

		counts = hash_create("sagaz table counts", 16, &control, HASH_ELEM | HASH_BLOBS);
	}
	entry = hash_search(counts, &key, HASH_FIND, NULL);
	if (entry && !TimestampDifferenceExceeds(entry->asked_at, now, REMEMBERED_MS))
		return entry->rows;
	rows = (double) sagaz_count(sagaz_table_store(table, user), table->kind, &filter);
	entry = hash_search(counts, &key, HASH_ENTER, NULL);
	entry->rows = rows;
	entry->asked_at = now;
	return rows;
}
