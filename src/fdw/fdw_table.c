/*
 * fdw_table.c
 *		Foreign tables over storages: their options, and rows to and from
 *		records.
 *
 * A column shows the field of its name.  Of the field's own type it takes the
 * value as it is, and of any other by way of text.
 */
#include "lib/sagaz.h"

#include <limits.h>

#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

#include "fdw/fdw.h"
#include "backends/record/filter.h"
#include "backends/record/bounds.h"
#include "backends/record/record.h"
#include "saga/saga.h"

#define DEFAULT_BATCH_SIZE 100

#define SAGA(name, type) #name, FIELD_##type, offsetof(SagazSaga, name)
#define EVENT(name, type) #name, FIELD_##type, offsetof(SagazEvent, name)

static const SagazField saga_fields[] = {
	{SAGA(saga_id, TEXT), NULL, true},
	{SAGA(saga_name, TEXT), NULL, true},
	{SAGA(status, TEXT), "'pending'", true},
	{SAGA(context, JSON), "'{}'", false},
	{SAGA(metadata, JSON), NULL, false},
	{SAGA(version, BIGINT), "1", true},
	{SAGA(created_at, TIME), "pg_catalog.clock_timestamp()", true},
	{SAGA(updated_at, TIME), "pg_catalog.clock_timestamp()", true},
	{SAGA(steps, JSON), "'[]'", true},
	{.name = NULL}
};

static const SagazField event_fields[] = {
	{EVENT(event_id, TEXT), "sagaz.uuidv7()", true},
	{EVENT(saga_id, TEXT), NULL, true},
	{EVENT(aggregate_type, TEXT), "'saga'", true},
	{EVENT(aggregate_id, TEXT), NULL, false},
	{EVENT(event_type, TEXT), NULL, true},
	{EVENT(payload, JSON), NULL, true},
	{EVENT(headers, JSON), "'{}'", true},
	{EVENT(status, TEXT), "'pending'", true},
	{EVENT(created_at, TIME), "pg_catalog.clock_timestamp()", true},
	{EVENT(claimed_at, TIME), NULL, false},
	{EVENT(sent_at, TIME), NULL, false},
	{EVENT(retry_count, INT), "0", true},
	{EVENT(last_error, TEXT), NULL, false},
	{EVENT(worker_id, TEXT), NULL, false},
	{EVENT(routing_key, TEXT), NULL, false},
	{EVENT(partition_key, TEXT), NULL, false},
	{.name = NULL}
};

/* The fields of a kind of record; one without a name ends them. */
const SagazField *
sagaz_table_fields(SagazKind kind)
{
	return kind == SAGAZ_SAGA ? saga_fields : event_fields;
}

/* What the field is of before the column's own type is made of it. */
Oid
sagaz_table_field_type(const SagazField *field)
{
	static const Oid types[] = {
		[FIELD_TEXT] = TEXTOID,
		[FIELD_JSON] = JSONBOID,
		[FIELD_TIME] = TIMESTAMPTZOID,
		[FIELD_INT] = INT4OID,
		[FIELD_BIGINT] = INT8OID
	};

	return types[field->type];
}

/* ---------------------------------------------------------------------- */
/* Options and columns */

static int
read_table_batch_size(const char *value)
{
	char	   *end;
	long		size = strtol(value, &end, 10);

	if (*end != '\0' || end == value || size < 1 || size > 100000)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("batch_size must be between 1 and 100000")));
	return (int) size;
}

/* An error if the option is none of a table, or has another value. */
void
sagaz_table_check_option(const char *name, const char *value)
{
	if (strcmp(name, "type") == 0)
		(void) sagaz_record_kind(value);
	else if (strcmp(name, "batch_size") == 0)
		(void) read_table_batch_size(value);
	else
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("invalid option \"%s\"", name),
				 errhint("Valid options in this context are: type, batch_size")));
}

static const char *
table_option_of(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
		if (strcmp(((DefElem *) lfirst(cell))->defname, name) == 0)
			return defGetString(lfirst(cell));
	return NULL;
}

static const SagazField *
find_table_field(SagazKind kind, const char *name, Relation rel)
{
	for (const SagazField *field = sagaz_table_fields(kind); field->name; field++)
		if (strcmp(field->name, name) == 0)
			return field;
	ereport(ERROR,
			(errcode(ERRCODE_FDW_COLUMN_NAME_NOT_FOUND),
			 errmsg("column \"%s\" of foreign table \"%s\" is no field of %s", name,
					RelationGetRelationName(rel),
					kind == SAGAZ_SAGA ? "a saga" : "an event"),
			 errhint("IMPORT FOREIGN SCHEMA %s makes tables with all fields.", SAGAZ_SCHEMA)));
	return NULL;
}

static void
read_table_column(SagazTable *table, Relation rel, int column)
{
	Form_pg_attribute attribute = TupleDescAttr(table->columns, column);
	const SagazField *field;
	bool		is_varlena;

	if (attribute->attisdropped)
		return;
	field = find_table_field(table->kind, NameStr(attribute->attname), rel);
	table->fields[column] = field;
	if (field == sagaz_table_fields(table->kind))
		table->key = column + 1;
	if (attribute->atttypid == sagaz_table_field_type(field))
		return;
	getTypeInputInfo(attribute->atttypid, &table->functions[column],
					 &table->parameters[column]);
	getTypeOutputInfo(attribute->atttypid, &table->to_text[column], &is_varlena);
}

/* What the foreign table is, in the present memory context. */
SagazTable *
sagaz_table_open(Relation rel)
{
	ForeignTable *foreign = GetForeignTable(RelationGetRelid(rel));
	SagazTable *table = palloc0(sizeof(SagazTable));
	const char *type = table_option_of(foreign->options, "type");
	const char *batch_size = table_option_of(foreign->options, "batch_size");
	int			natts = RelationGetDescr(rel)->natts;

	if (type == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("foreign table \"%s\" has no option type", RelationGetRelationName(rel)),
				 errhint("ALTER FOREIGN TABLE … OPTIONS (ADD type 'saga'), or 'outbox'.")));
	table->id = RelationGetRelid(rel);
	table->server = foreign->serverid;
	table->kind = sagaz_record_kind(type);
	table->batch_size = batch_size ? read_table_batch_size(batch_size) : DEFAULT_BATCH_SIZE;
	table->columns = CreateTupleDescCopy(RelationGetDescr(rel));
	table->fields = palloc0((natts + 1) * sizeof(SagazField *));
	table->functions = palloc0((natts + 1) * sizeof(Oid));
	table->parameters = palloc0((natts + 1) * sizeof(Oid));
	table->to_text = palloc0((natts + 1) * sizeof(Oid));
	for (int column = 0; column < natts; column++)
		read_table_column(table, rel, column);
	return table;
}

/*
 * The store of the table's server, as that user has it.  Whoever may use the
 * table needs no USAGE on the server: who made the table had it.
 */
SagazStore *
sagaz_table_store(const SagazTable *table, Oid user)
{
	SagazStorage storage;
	SagazStore *store;
	Oid			caller;
	int			context;

	GetUserIdAndSecContext(&caller, &context);
	if (OidIsValid(user) && user != caller)
		SetUserIdAndSecContext(user, context | SECURITY_LOCAL_USERID_CHANGE);
	sagaz_storage_of_server(table->server, &storage);
	store = sagaz_storage_open(&storage, storage.name, table->kind);
	SetUserIdAndSecContext(caller, context);
	return store;
}

/* ---------------------------------------------------------------------- */
/* Records to rows */

static void *
table_place_of(const SagazRecord *record, const SagazField *field)
{
	char	   *start = record->kind == SAGAZ_SAGA ? (char *) &record->saga :
		(char *) &record->event;

	return start + field->offset;
}

/* The value as the field's type has it. */
static Datum
get_table_value(const SagazRecord *record, const SagazField *field, bool *isnull)
{
	void	   *place = table_place_of(record, field);

	*isnull = false;
	switch (field->type)
	{
		case FIELD_TEXT:
			*isnull = *(char **) place == NULL;
			return *isnull ? (Datum) 0 : CStringGetTextDatum(*(char **) place);
		case FIELD_JSON:
			*isnull = *(Jsonb **) place == NULL;
			return *isnull ? (Datum) 0 : JsonbPGetDatum(*(Jsonb **) place);
		case FIELD_TIME:
			*isnull = *(TimestampTz *) place == 0;
			return TimestampTzGetDatum(sagaz_real_time(*(TimestampTz *) place));
		case FIELD_INT:
			return Int32GetDatum(*(int *) place);
		case FIELD_BIGINT:
			return Int64GetDatum(*(int64 *) place);
	}
	return (Datum) 0;
}

/* By way of text, to the column's type. */
static Datum
to_table_column(const SagazTable *table, int column, Datum value)
{
	Oid			output;
	bool		is_varlena;

	getTypeOutputInfo(sagaz_table_field_type(table->fields[column]), &output, &is_varlena);
	return OidInputFunctionCall(table->functions[column],
								OidOutputFunctionCall(output, value),
								table->parameters[column],
								TupleDescAttr(table->columns, column)->atttypmod);
}

/*
 * What a column that is not dropped shows of a record; the value may point
 * into it.
 */
Datum
sagaz_table_get(const SagazTable *table, const SagazRecord *record, int column,
				bool *isnull)
{
	Datum		value = get_table_value(record, table->fields[column], isnull);

	if (!*isnull && OidIsValid(table->functions[column]))
		value = to_table_column(table, column, value);
	return value;
}

/* Store a record as the slot's row, in the present memory context. */
void
sagaz_table_row(const SagazTable *table, const SagazRecord *record,
				TupleTableSlot *slot)
{
	SagazRecord shown = *record;

	if (shown.kind == SAGAZ_EVENT && shown.event.aggregate_id == NULL)
		shown.event.aggregate_id = shown.event.saga_id;
	ExecClearTuple(slot);
	for (int column = 0; column < table->columns->natts; column++)
	{
		bool	   *isnull = &slot->tts_isnull[column];

		*isnull = table->fields[column] == NULL;
		slot->tts_values[column] = *isnull ? (Datum) 0 :
			sagaz_table_get(table, &shown, column, isnull);
	}
	ExecStoreVirtualTuple(slot);
}

/* ---------------------------------------------------------------------- */
/* Rows to records */

static Datum
from_table_column(const SagazTable *table, int column, Datum value)
{
	Oid			input;
	Oid			parameter;

	getTypeInputInfo(sagaz_table_field_type(table->fields[column]), &input, &parameter);
	return OidInputFunctionCall(input, OidOutputFunctionCall(table->to_text[column], value),
								parameter, -1);
}

/* A time that every storage can write. */
static TimestampTz
table_finite_time(const SagazField *field, TimestampTz time)
{
	if (TIMESTAMP_NOT_FINITE(time))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_SERIALIZATION),
				 errmsg("%s must be finite", field->name)));
	return time;
}

static void
set_table_value(SagazRecord *record, const SagazField *field, Datum value, bool isnull)
{
	void	   *place = table_place_of(record, field);

	switch (field->type)
	{
		case FIELD_TEXT:
			*(char **) place = isnull ? NULL : TextDatumGetCString(value);
			break;
		case FIELD_JSON:
			*(Jsonb **) place = isnull ? NULL : DatumGetJsonbPCopy(value);
			break;
		case FIELD_TIME:
			*(TimestampTz *) place = isnull ? 0 :
				sagaz_record_time(table_finite_time(field, DatumGetTimestampTz(value)));
			break;
		case FIELD_INT:
			*(int *) place = isnull ? 0 : DatumGetInt32(value);
			break;
		case FIELD_BIGINT:
			*(int64 *) place = isnull ? 0 : DatumGetInt64(value);
			break;
	}
}

/* Set the field that a column shows. */
void
sagaz_table_set(const SagazTable *table, SagazRecord *record, int column,
				Datum value, bool isnull)
{
	const SagazField *field = table->fields[column];

	if (isnull && field->needed)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("%s must not be null", field->name)));
	if (!isnull && OidIsValid(table->to_text[column]))
		value = from_table_column(table, column, value);
	set_table_value(record, field, value, isnull);
}

/* An error if it is not fit to be a record. */
void
sagaz_table_check_record(SagazRecord *record)
{
	sagaz_record_check(record);
	if (record->problem)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_SERIALIZATION),
				 errmsg("record \"%s\" is refused", sagaz_record_key(record)),
				 errdetail("%s.", record->problem)));
}

static void
check_new_id(const char *id, const char *field, size_t limit)
{
	if (id[0] == '\0' || strlen(id) > limit)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 id[0] ? errmsg("%s is too long", field) :
				 errmsg("%s must not be empty", field),
				 id[0] ? errdetail("It has %zu bytes; the limit is %zu.", strlen(id), limit) : 0));
}

/* A storage may hold any; what comes in here is what the functions take. */
static void
check_new_keys(const SagazRecord *record)
{
	char	   *why;

	if (record->kind == SAGAZ_SAGA)
	{
		check_new_id(record->saga.saga_id, "saga_id", SAGA_ID_LENGTH);
		check_new_id(record->saga.saga_name, "saga_name", SAGA_NAME_LENGTH);
		return;
	}
	check_new_id(record->event.saga_id, "saga_id", SAGAZ_KEY_LENGTH);
	check_new_id(record->event.event_type, "event_type", SAGAZ_KEY_LENGTH);
	why = sagaz_bounds_of_event(&record->event);
	if (why)
		ereport(ERROR, (errcode(ERRCODE_SAGAZ_INPUT), errmsg_internal("%s", why)));
	if (!sagaz_filter_is_own_uuid(record->event.event_id))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("event_id must be a UUID in small letters")));
}

/* The record that a new row makes; an error if it is not fit to be one. */
void
sagaz_table_record(const SagazTable *table, TupleTableSlot *slot,
				   SagazRecord *record)
{
	memset(record, 0, sizeof(SagazRecord));
	record->kind = table->kind;
	if (record->kind == SAGAZ_SAGA)
		record->saga.status = "pending";
	else
		record->event.status = "pending";
	slot_getallattrs(slot);
	for (int column = 0; column < table->columns->natts; column++)
		if (table->fields[column])
			sagaz_table_set(table, record, column, slot->tts_values[column],
							slot->tts_isnull[column]);
	if (sagaz_record_key(record) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("%s must be among the columns", sagaz_table_fields(table->kind)->name)));
	sagaz_table_check_record(record);
	check_new_keys(record);
}
