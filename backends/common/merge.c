/*
 * merge.c
 *		Merging and removing records over a backend's put and edit.
 */
#include "backends/common/backend.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "backends/record/record.h"
#include "lib/key_table.h"

typedef enum MergeOutcome
{
	OUTCOME_ADDED,				/* so far nothing else is known of it */
	OUTCOME_CHANGED,
	OUTCOME_SAME,
	OUTCOME_KEPT
} MergeOutcome;

/* One of our records. */
typedef struct MergeEntry
{
	const char *key;			/* must be first */
	const SagazRecord *ours;
	MergeOutcome outcome;		/* of the last time it was edited */
} MergeEntry;

typedef struct Merge
{
	HTAB	   *entries;
	bool		over_claims;
} Merge;

static bool
merge_spares_claim(const SagazEvent *event)
{
	TimestampTz now = GetCurrentTimestamp();

	return strcmp(event->status, "claimed") == 0 &&
		sagaz_filter_lease_end(event, sagaz_claim_timeout * INT64CONST(1000), now) > now;
}

/* Has what is there got further than ours, so that it must stay? */
bool
sagaz_merge_keeps(const SagazRecord *there, const SagazRecord *ours,
				  bool over_claims)
{
	if (there->kind == SAGAZ_SAGA)
		return false;
	if (strcmp(there->event.status, "sent") == 0)
		return true;
	return !over_claims && merge_spares_claim(&there->event) &&
		strcmp(ours->event.status, "sent") != 0;
}

static SagazVerdict
merge_edit(SagazRecord *record, bool exists, void *arg)
{
	Merge	   *merge = arg;
	const char *key = sagaz_record_key(record);
	MergeEntry *entry = hash_search(merge->entries, &key, HASH_FIND, NULL);
	int64		version = record->saga.version;

	if (entry == NULL)
		return SAGAZ_KEEP;
	if (sagaz_record_same(record, entry->ours))
		entry->outcome = OUTCOME_SAME;
	else if (sagaz_merge_keeps(record, entry->ours, merge->over_claims))
		entry->outcome = OUTCOME_KEPT;
	else
	{
		entry->outcome = OUTCOME_CHANGED;
		*record = *entry->ours;
		if (record->kind == SAGAZ_SAGA)
			record->saga.version = Max(version + 1, record->saga.version);
		return SAGAZ_CHANGE;
	}
	return SAGAZ_KEEP;
}

/* A table of our records by key. */
static HTAB *
make_merge_entries(const SagazRecord *records, int count)
{
	HTAB	   *entries = sagaz_key_table("sagaz merge", count, sizeof(MergeEntry),
										  CurrentMemoryContext);

	for (int i = 0; i < count; i++)
	{
		const char *key = sagaz_record_key(&records[i]);
		MergeEntry *entry = hash_search(entries, &key, HASH_ENTER, NULL);

		entry->ours = &records[i];
		entry->outcome = OUTCOME_ADDED;
	}
	return entries;
}

/* Count the outcomes; those that we have just put are found the same. */
static void
tally_merge(HTAB *entries, int64 added, SagazMerged *merged)
{
	HASH_SEQ_STATUS scan;
	MergeEntry *entry;
	int64		same = 0;

	hash_seq_init(&scan, entries);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		merged->changed += entry->outcome == OUTCOME_CHANGED;
		merged->kept += entry->outcome == OUTCOME_KEPT;
		same += entry->outcome == OUTCOME_SAME;
	}
	merged->added += added;
	merged->unchanged += Max(same - added, 0);
}

/*
 * Most records are new, so all are put that are missing, in one round trip,
 * and only if some were there does it come to comparing.
 */
void
sagaz_merge_by_edit(SagazStore *store, SagazRecord *records, int count,
					bool over_claims, SagazMerged *merged)
{
	const char **keys;
	SagazFilter filter = {0};
	Merge		merge = {.over_claims = over_claims};
	int64		added = sagaz_put(store, records, count, SAGAZ_PUT_MISSING);

	if (added == count)
	{
		merged->added += added;
		return;
	}
	keys = palloc(count * sizeof(char *));
	for (int i = 0; i < count; i++)
		keys[i] = sagaz_record_key(&records[i]);
	filter.keys = keys;
	filter.nkeys = count;
	merge.entries = make_merge_entries(records, count);
	(void) sagaz_edit(store, records[0].kind, &filter, false, merge_edit, &merge);
	tally_merge(merge.entries, added, merged);
}

static SagazVerdict
remove_found(SagazRecord *record, bool exists, void *arg)
{
	return SAGAZ_REMOVE;
}

/* Remove what matches; a record that has a problem stays, as edits pass it over. */
int64
sagaz_remove_matching(SagazStore *store, SagazKind kind, const SagazFilter *filter)
{
	return sagaz_edit(store, kind, filter, false, remove_found, NULL);
}

/* For remove of a backend: all or nothing, as an edit is. */
int64
sagaz_remove_by_edit(SagazStore *store, SagazKind kind,
					 const char *const *keys, int nkeys)
{
	SagazFilter filter = {.keys = keys,.nkeys = nkeys};

	return sagaz_remove_matching(store, kind, &filter);
}
