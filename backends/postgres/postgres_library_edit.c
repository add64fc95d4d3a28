/*
 * postgres_library_edit.c
 *		The Python library's tables in another PostgreSQL database: editing
 *		records, in a transaction of two exchanges.
 */
#include "backends/postgres/postgres_library.h"

#include "miscadmin.h"

/* What an edit came to. */
typedef struct Changes
{
	SagazKind	kind;
	SagazRecord **whole;		/* to be written whole */
	int			nwhole;
	SagazRecord **states;		/* events whose content is as it was */
	int			nstates;
	const char **removed;		/* keys */
	int			nremoved;
	SagazRecord *fresh;			/* was not there, is to be */
} Changes;

static bool
library_same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

/* Has an edit left an event's content as it was, and changed its state? */
static bool
edit_left_content(const SagazEvent *a, const SagazEvent *b)
{
	return a->payload == b->payload && a->headers == b->headers &&
		a->created_at == b->created_at &&
		library_same_text(a->saga_id, b->saga_id) &&
		library_same_text(a->event_type, b->event_type) &&
		library_same_text(a->aggregate_type, b->aggregate_type) &&
		library_same_text(a->aggregate_id, b->aggregate_id) &&
		library_same_text(a->routing_key, b->routing_key) &&
		library_same_text(a->partition_key, b->partition_key);
}

static void
edit_library_record(PostgresStore *store, Changes *changes, SagazRecord *record,
					bool exists, SagazEdit edit, void *arg)
{
	SagazRecord before = *record;
	char	   *key = pstrdup(sagaz_record_key(record));

	switch (edit(record, exists, arg))
	{
		case SAGAZ_CHANGE:
			library_check_record(store, record);
			if (!exists)
				changes->fresh = record;
			else if (record->kind == SAGAZ_EVENT &&
					 edit_left_content(&before.event, &record->event))
				changes->states[changes->nstates++] = record;
			else
				changes->whole[changes->nwhole++] = record;
			break;
		case SAGAZ_REMOVE:
			if (exists)
				changes->removed[changes->nremoved++] = key;
			break;
		case SAGAZ_KEEP:
			break;
	}
}

/* Call the edit for all rows; what it says goes to changes. */
static void
edit_rows(PostgresStore *store, Changes *changes, const PostgresResult *rows,
		  const SagazFilter *filter, SagazEdit edit, void *arg)
{
	int64		seen = 0;

	changes->whole = palloc((rows->nrows + 1) * sizeof(SagazRecord *));
	changes->states = palloc((rows->nrows + 1) * sizeof(SagazRecord *));
	changes->removed = palloc((rows->nrows + 1) * sizeof(char *));
	for (int row = 0; row < rows->nrows; row++)
	{
		SagazRecord *record = library_record(rows, row, changes->kind, filter);

		if (filter->limit > 0 && seen >= filter->limit)
			break;
		if (record == NULL || record->problem)
			continue;
		seen++;
		edit_library_record(store, changes, record, true, edit, arg);
	}
}

/* The edit of a record that is not there. */
static void
edit_fresh(PostgresStore *store, Changes *changes, const char *key,
		   SagazEdit edit, void *arg)
{
	SagazRecord *record = palloc0(sizeof(SagazRecord));

	record->kind = changes->kind;
	if (record->kind == SAGAZ_SAGA)
		record->saga.saga_id = pstrdup(key);
	else
		record->event.event_id = pstrdup(key);
	edit_library_record(store, changes, record, false, edit, arg);
}

/* Write the changes; false if a record that was not there is there now. */
static bool
write_library_changes(PostgresStore *store, Changes *changes)
{
	PostgresResult **results;
	int			nresults;

	if (changes->fresh)
	{
		library_queue_main(store, &changes->fresh, 1, false);
		results = postgres_exchange(store, &nresults);
		if (results[nresults - 1]->nrows == 0)
			return false;
		library_queue_rest(store, &changes->fresh, 1);
	}
	if (changes->nwhole > 0)
	{
		library_queue_main(store, changes->whole, changes->nwhole, true);
		library_queue_rest(store, changes->whole, changes->nwhole);
	}
	if (changes->nstates > 0)
		library_queue_states(store, changes->states, changes->nstates);
	if (changes->nremoved > 0)
		library_queue_removal(store, changes->kind, changes->removed, changes->nremoved);
	return true;
}

/* Returns how many were changed, or -1 if somebody else was faster. */
static int64
edit_once(PostgresStore *store, SagazKind kind, const SagazFilter *filter,
		  bool create, SagazEdit edit, void *arg)
{
	Changes		changes = {.kind = kind};
	PostgresResult *rows = library_lock(store, kind, filter);
	bool		is_written;
	int			nresults;

	edit_rows(store, &changes, rows, filter, edit, arg);
	if (create && rows->nrows == 0)
		edit_fresh(store, &changes, filter->key, edit, arg);
	is_written = write_library_changes(store, &changes);
	postgres_queue(store, is_written ? "COMMIT" : "ROLLBACK", 0, NULL, NULL);
	(void) postgres_exchange(store, &nresults);
	return is_written ? changes.nwhole + changes.nstates + changes.nremoved +
		(changes.fresh != NULL) : -1;
}

/*
 * In a transaction at the other end, with the rows locked there; anew from
 * the beginning where somebody else put one of them meanwhile.
 */
int64
library_edit(PostgresStore *store, SagazKind kind, const SagazFilter *filter,
			 bool create, SagazEdit edit, void *arg)
{
	volatile int64 changed = -1;

	if (!create && !store->has[kind])
		return 0;
	PG_TRY();
	{
		library_make_tables(store);
		while (changed < 0)
		{
			CHECK_FOR_INTERRUPTS();
			changed = edit_once(store, kind, filter, create, edit, arg);
		}
	}
	PG_CATCH();
	{
		postgres_roll_back(store);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return changed;
}
