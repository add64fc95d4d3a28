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
