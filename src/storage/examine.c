/*
 * examine.c
 *		Is a storage fit?  What is said of it was tried.
 *
 * A record that is not there is read, one more where that is cheap, and one is
 * written as far as that goes without writing it.  What no try can show the
 * backend says.
 */
#include "lib/sagaz.h"

#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "backends/record/record.h"
#include "storage/examine.h"

#define NO_KEY "00000000-0000-0000-0000-000000000000"

/* Does the storage's option storage_type, and its backend, allow the kind? */
bool
sagaz_examine_has_kind(const SagazStore *store, SagazKind kind)
{
	const char *type = sagaz_store_option(store, "storage_type");
	int			capability = kind == SAGAZ_SAGA ? SAGAZ_KEEPS_SAGAS : SAGAZ_KEEPS_EVENTS;

	return (store->backend->capabilities & capability) != 0 &&
		(type == NULL || strcmp(type, "both") == 0 ||
		 strcmp(type, kind == SAGAZ_SAGA ? "saga" : "outbox") == 0);
}

static void
note_examined(SagazExamination *examination, SagazKind kind, const char *what)
{
	examination->checked =
		lappend(examination->checked,
				psprintf("%s %s", kind == SAGAZ_SAGA ? "sagas" : "events", what));
}

static void
try_reading(SagazStore *store, SagazKind kind, const SagazFilter *filter)
{
	SagazReader *reader = sagaz_store_read_begin(store, kind, filter);
	SagazRecord record;

	(void) sagaz_store_read_next(reader, &record);
	sagaz_store_read_end(reader);
}

/* Whose tables are at the other end, where that is a question; else "". */
static char *
examined_layout(SagazStore *store)
{
	JsonbParseState *state = NULL;
	Jsonb	   *facts;
	JsonbValue *layout;

	if (store->backend->describe == NULL)
		return "";
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	store->backend->describe(store, &state);
	facts = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	layout = getKeyJsonValueFromContainer(&facts->root, "layout", 6, NULL);
	return layout && layout->type == jbvString ?
		pnstrdup(layout->val.string.val, layout->val.string.len) : "";
}

/* So far it went; nothing of it is to stay. */
static SagazVerdict
write_no_further(SagazRecord *record, bool exists, void *arg)
{
	*(bool *) arg = true;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_STORAGE),
			 errmsg("the storage can be written to")));
}

/* An error if a record could not be written. */
static void
try_writing(SagazStore *store, SagazKind kind)
{
	MemoryContext context = CurrentMemoryContext;
	SagazFilter filter = {.key = NO_KEY};
	volatile bool reached = false;

	PG_TRY();
	{
		store->only_looks = true;
		(void) sagaz_edit(store, kind, &filter, true, write_no_further, (void *) &reached);
	}
	PG_CATCH();
	{
		store->only_looks = false;
		if (!reached)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	store->only_looks = false;
}

/*
 * Try the storage for records of a kind; an error if that does not work.  In
 * a transaction of the caller's, who catches the error.  Writing is tried by
 * an edit that is broken off, so nothing stays.
 */
void
sagaz_storage_examine(SagazStore *store, SagazKind kind, SagazExamination *examination)
{
	SagazFilter none = {.key = NO_KEY};
	SagazFilter any = {.limit = 1};
	char	   *layout = examined_layout(store);

	try_reading(store, kind, &none);
	if (store->backend->capabilities & SAGAZ_KEY_ORDER)
		try_reading(store, kind, &any);
	note_examined(examination, kind, "can be read");
	/* who may write to tables of sagaz, the sagaz there decides */
	if (strcmp(layout, "sagaz") != 0 && strcmp(layout, "empty") != 0)
	{
		try_writing(store, kind);
		note_examined(examination, kind, "can be written");
	}
	examination->faults = list_concat(examination->faults,
									  store->backend->examine(store, kind));
}
