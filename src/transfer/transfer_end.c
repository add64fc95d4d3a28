/*
 * transfer_end.c
 *		The two storages of a transfer.
 */
#include "lib/sagaz.h"

#include "utils/builtins.h"

#include "backends/record/record.h"
#include "transfer/transfer.h"

/*
 * A URL without what is secret in it, for people.  A URL without a password
 * stays as it is, so that a transfer can be resumed by it.
 */
static char *
shown_end_url(const SagazStorage *storage, const char *url)
{
	const char *rest = strstr(url, "://") + 3;
	size_t		place = strcspn(rest, "?");
	const char *at = NULL;
	ListCell   *cell;
	bool		has_password = false;

	foreach(cell, storage->options)
		if (strcmp(((DefElem *) lfirst(cell))->defname, "password") == 0)
			has_password = true;
	if (!has_password)
		return pstrdup(url);
	/* what is behind the last @ is the place, unless the @ is a parameter's */
	for (size_t i = 0; i < place; i++)
		if (rest[i] == '@')
			at = rest + i;
	if (at == NULL && strchr(rest, '@'))
		return psprintf("%.*s***@", (int) (rest - url), url);
	if (at == NULL)
		at = rest - 1;
	return psprintf("%.*s***@%.*s", (int) (rest - url), url,
					(int) (rest + place - at - 1), at + 1);
}

/* Find what the name or URL stands for; it is not opened. */
void
sagaz_end_find(SagazSide *end, const char *role, const char *name)
{
	end->role = role;
	end->name = pstrdup(name);
	end->is_native = strcmp(name, "native") == 0;
	end->shown = end->name;
	if (end->is_native)
		return;
	sagaz_storage_find(end->name, &end->storage);
	if (strstr(name, "://"))
		end->shown = shown_end_url(&end->storage, name);
}

/*
 * The open store.  It stays open as long as nothing is wrong with it; who
 * holds a pointer to it asks again after each step.
 */
SagazStore *
sagaz_end_open(SagazSide *end, SagazKind kind)
{
	return end->is_native ? sagaz_storage_native() :
		sagaz_storage_open(&end->storage, end->name, kind);
}

/*
 * Does the storage answer, and what are its tables like?  A target is made
 * ready to be written to.
 */
void
sagaz_end_look(SagazSide *end, SagazKind kind)
{
	SagazStore *store = sagaz_end_open(end, kind);
	JsonbParseState *state = NULL;
	Jsonb	   *facts;
	JsonbValue *layout;

	if (strcmp(end->role, "target") == 0)
		store->backend->make_ready(store);
	else
		store->backend->ping(store);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (store->backend->describe)
		store->backend->describe(store, &state);
	facts = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	layout = getKeyJsonValueFromContainer(&facts->root, "layout", 6, NULL);
	if (layout && layout->type == jbvString)
		end->layout = pnstrdup(layout->val.string.val, layout->val.string.len);
	else
		end->layout = pstrdup(end->is_native ? "sagaz" : "library");
}

/* Are both the same place for a kind that is to be moved, under whatever names? */
bool
sagaz_ends_are_same(SagazTransfer *transfer)
{
	for (SagazKind kind = SAGAZ_SAGA; kind <= SAGAZ_EVENT; kind++)
	{
		SagazStore *source;
		SagazStore *target;

		if (!sagaz_transfer_has(transfer, kind))
			continue;
		source = sagaz_end_open(&transfer->source, kind);
		target = sagaz_end_open(&transfer->target, kind);
		if (source == target || strcmp(source->backend->identity(source, kind),
									   target->backend->identity(target, kind)) == 0)
			return true;
	}
	return false;
}

/* ---------------------------------------------------------------------- */
/* Is the source what it was? */

/* Opens the source and may ask it, or leave a mark there; in the present memory context. */
char *
sagaz_end_origin(SagazTransfer *transfer)
{
	SagazKind	kind = sagaz_transfer_has(transfer, SAGAZ_SAGA) ? SAGAZ_SAGA : SAGAZ_EVENT;
	SagazStore *store = sagaz_end_open(&transfer->source, kind);

	return store->backend->origin(store, transfer->origin);
}

/*
 * An error if another storage has come to the place of the source since the
 * transfer began: what that one lacks was not removed by anybody.
 */
void
sagaz_end_check_origin(SagazTransfer *transfer)
{
	char	   *origin = sagaz_end_origin(transfer);

	if (transfer->origin == NULL || strcmp(origin, transfer->origin) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_TRANSFER),
			 errmsg("the source is not the one that the transfer began with"),
			 errdetail("It was %s, and is %s.", transfer->origin, origin),
			 errhint("Bring the first one back. If this one is meant, begin another with CALL %s.%s(source, target): it removes nothing that was moved before.",
					 SAGAZ_SCHEMA, transfer->is_migration ? "migrate" : "transfer")));
}

/*
 * An error if less than half of what the source held is there: nobody knows
 * then whether that was meant, and what was moved may be the last copy.
 */
void
sagaz_end_check_held(SagazTransfer *transfer, int64 held, int64 holds)
{
	if (transfer->accepts_removals || holds >= held - holds)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_TRANSFER),
			 errmsg("most of what the source held is gone"),
			 errdetail("Of " INT64_FORMAT " records " INT64_FORMAT " are there.", held, holds),
			 errhint("See that it is the right source, and whole. If they were removed on purpose, say accept_removals => true.")));
}
