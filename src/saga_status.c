/*
 * saga_status.c
 *		Words of the status types of sagas and steps.
 */
#include "sagaz.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/syscache.h"

#include "saga.h"

static const char *const saga_words[] = {
	"pending", "executing", "completed", "compensating", "failed",
	"rolled_back", "partially_committed", "forward_recovery"
};

static const char *const step_words[] = {
	"pending", "executing", "completed", "compensating", "compensated",
	"failed", "tainted", "skipped"
};

const StatusType saga_statuses = {
	.name = "saga_status", .count = lengthof(saga_words), .words = saga_words
};

const StatusType step_statuses = {
	.name = "step_status", .count = lengthof(step_words), .words = step_words
};

/* The enum value for a word that is one of the type's. */
Oid
saga_status_oid(const StatusType *type, const char *word)
{
	Oid			namespace_id = get_namespace_oid(SAGAZ_SCHEMA, false);
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

const char *
saga_status_word(Oid status)
{
	HeapTuple	tuple = SearchSysCache1(ENUMOID, ObjectIdGetDatum(status));
	char	   *word;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for status %u", status);
	word = pstrdup(NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel));
	ReleaseSysCache(tuple);
	return word;
}

/* The enum value for a word that a user gave for the field. */
Oid
saga_check_status(const StatusType *type, const char *word, const char *field)
{
	StringInfoData valid;

	for (int i = 0; i < type->count; i++)
		if (strcmp(word, type->words[i]) == 0)
			return saga_status_oid(type, word);

	initStringInfo(&valid);
	for (int i = 0; i < type->count; i++)
		appendStringInfo(&valid, "%s%s", i > 0 ? ", " : "", type->words[i]);
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_INPUT),
			 errmsg("%s is not a status: \"%s\"", field, word),
			 errhint("Valid values are: %s.", valid.data)));
}
