/*
 * words.c
 *		Words of the status types of sagas, steps and events, and which status
 *		of an event may follow which.
 */
#include "lib/sagaz.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/inval.h"
#include "utils/syscache.h"

#include "lib/words.h"

const char *const sagaz_saga_words[] = {
	"pending", "executing", "completed", "compensating", "failed",
	"rolled_back", "partially_committed", "forward_recovery", NULL
};

static const char *const step_words[] = {
	"pending", "executing", "completed", "compensating", "compensated",
	"failed", "tainted", "skipped"
};

const char *const sagaz_event_words[] = {
	[EVENT_PENDING] = "pending",
	[EVENT_CLAIMED] = "claimed",
	[EVENT_SENT] = "sent",
	[EVENT_FAILED] = "failed",
	[EVENT_DEAD_LETTER] = "dead_letter",
	[EVENT_STATUSES] = NULL
};

const char *const sagaz_unfinished_saga_words[SAGAZ_UNFINISHED_WORDS] = {
	"pending", "executing", "compensating", "forward_recovery"
};

#define SAGA_STATUSES ((int) lengthof(sagaz_saga_words) - 1)

const StatusType saga_statuses = {
	.name = "saga_status", .count = SAGA_STATUSES, .words = sagaz_saga_words
};

const StatusType step_statuses = {
	.name = "step_status", .count = lengthof(step_words), .words = step_words
};

const StatusType event_statuses = {
	.name = "event_status", .count = EVENT_STATUSES, .words = sagaz_event_words
};

static const StatusType *const types[] = {
	&saga_statuses, &step_statuses, &event_statuses
};

/*
 * The enum values in the order of the words, as far as they were looked up: a
 * copy needs them for each step.
 */
static Oid	known[lengthof(types)][lengthof(sagaz_saga_words) - 1];

StaticAssertDecl(lengthof(step_words) < lengthof(sagaz_saga_words) &&
				 EVENT_STATUSES < lengthof(sagaz_saga_words),
				 "no type has more words than that of sagas");

static void
forget_word_values(Datum arg, int cache, uint32 hash)
{
	memset(known, 0, sizeof(known));
}

static Oid *
word_values_of(const StatusType *type)
{
	static bool registered = false;
	int			i = 0;

	if (!registered)
	{
		CacheRegisterSyscacheCallback(ENUMOID, forget_word_values, (Datum) 0);
		CacheRegisterSyscacheCallback(TYPEOID, forget_word_values, (Datum) 0);
		registered = true;
	}
	while (types[i] != type)
		i++;
	return known[i];
}

static Oid
look_up_word(const StatusType *type, const char *word)
{
	Oid			namespace_id = sagaz_schema_id();
	Oid			type_id = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
										  CStringGetDatum(type->name),
										  ObjectIdGetDatum(namespace_id));
	HeapTuple	tuple = SearchSysCache2(ENUMTYPOIDNAME,
										ObjectIdGetDatum(type_id),
										CStringGetDatum(word));
	Oid			status;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for %s \"%s\"", type->name, word);
	status = ((Form_pg_enum) GETSTRUCT(tuple))->oid;
	ReleaseSysCache(tuple);
	return status;
}

/* The enum value for a word by its place. */
static Oid
word_value_at(const StatusType *type, int i)
{
	Oid		   *values = word_values_of(type);

	if (!OidIsValid(values[i]))
	{
		Oid			status = look_up_word(type, type->words[i]);

		values[i] = status;
	}
	return values[i];
}

/* The enum value for a word that is one of the type's. */
Oid
saga_status_word_oid(const StatusType *type, const char *word)
{
	for (int i = 0; i < type->count; i++)
		if (strcmp(type->words[i], word) == 0)
			return word_value_at(type, i);
	elog(ERROR, "%s has no word \"%s\"", type->name, word);
}

/* The word of a value of any of the types, a constant. */
const char *
saga_status_word(Oid status)
{
	for (int t = 0; t < (int) lengthof(types); t++)
		for (int i = 0; i < types[t]->count; i++)
			if (word_value_at(types[t], i) == status)
				return types[t]->words[i];
	elog(ERROR, "cache lookup failed for status %u", status);
}

/*
 * The enum value for a word that a user gave for the field; an error that
 * names the field and the words there are.
 */
Oid
saga_status_of_word(const StatusType *type, const char *word, const char *field)
{
	StringInfoData valid;

	for (int i = 0; i < type->count; i++)
		if (strcmp(word, type->words[i]) == 0)
			return saga_status_word_oid(type, word);

	initStringInfo(&valid);
	for (int i = 0; i < type->count; i++)
		appendStringInfo(&valid, "%s%s", i > 0 ? ", " : "", type->words[i]);
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_INPUT),
			 errmsg("%s is not a status: \"%s\"", field, word),
			 errhint("Valid values are: %s.", valid.data)));
}

/* The status of an event that the word stands for; EVENT_NONE: none. */
EventStatus
sagaz_event_status(const char *word)
{
	int			status = 0;

	while (sagaz_event_words[status] && strcmp(sagaz_event_words[status], word) != 0)
		status++;
	return (EventStatus) status;
}

/* The status as a value of its type. */
Datum
sagaz_event_status_value(EventStatus status)
{
	return ObjectIdGetDatum(word_value_at(&event_statuses, status));
}

/*
 * May somebody change an event's status like that, in any store?  That an
 * event is claimed is a claim's doing alone.
 */
bool
sagaz_event_status_may_follow(EventStatus from, EventStatus to)
{
	static const bool allowed[EVENT_STATUSES][EVENT_STATUSES] = {
		[EVENT_PENDING] = {[EVENT_SENT] = true,[EVENT_FAILED] = true,
		[EVENT_DEAD_LETTER] = true},
		[EVENT_CLAIMED] = {[EVENT_SENT] = true,[EVENT_FAILED] = true,
		[EVENT_PENDING] = true,[EVENT_DEAD_LETTER] = true},
		[EVENT_FAILED] = {[EVENT_PENDING] = true,[EVENT_SENT] = true,
		[EVENT_DEAD_LETTER] = true},
		[EVENT_DEAD_LETTER] = {[EVENT_PENDING] = true},
	};

	return from < EVENT_STATUSES && to < EVENT_STATUSES && allowed[from][to];
}
