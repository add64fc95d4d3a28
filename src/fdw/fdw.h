/*
 * fdw.h
 *		What the files of the foreign tables over storages share.
 *
 * The folder makes tables of storages, for SELECT, INSERT, UPDATE and DELETE.
 * It calls src/storage and the interface of storages, and knows no backend.
 */
#ifndef SAGAZ_FDW_H
#define SAGAZ_FDW_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "foreign/fdwapi.h"

#include "backends/common/backend.h"
#include "storage/storage.h"

/* A field of a record, and how a column shows it. */
typedef enum SagazFieldType
{
	FIELD_TEXT,
	FIELD_JSON,
	FIELD_TIME,
	FIELD_INT,
	FIELD_BIGINT
} SagazFieldType;

typedef struct SagazField
{
	const char *name;
	SagazFieldType type;
	size_t		offset;			/* in SagazSaga or SagazEvent */
	const char *default_value;	/* SQL, for the column; NULL: none */
	bool		needed;			/* must not be null */
} SagazField;

/* A foreign table, or what of it a statement needs. */
typedef struct SagazTable
{
	Oid			id;
	Oid			server;
	SagazKind	kind;
	int			batch_size;
	TupleDesc	columns;
	const SagazField **fields;	/* of each column; NULL: dropped */
	Oid		   *functions;		/* of columns of other types: from text … */
	Oid		   *parameters;
	Oid		   *to_text;		/* … and to text */
	int			key;			/* attribute number; 0: not among the columns */
} SagazTable;

/* fdw_table.c */
extern const SagazField *sagaz_table_fields(SagazKind kind);
extern Oid	sagaz_table_field_type(const SagazField *field);
extern SagazTable *sagaz_table_open(Relation rel);
extern void sagaz_table_check_option(const char *name, const char *value);
extern void sagaz_table_row(const SagazTable *table, const SagazRecord *record,
							TupleTableSlot *slot);
extern Datum sagaz_table_get(const SagazTable *table, const SagazRecord *record,
							 int column, bool *isnull);
extern void sagaz_table_set(const SagazTable *table, SagazRecord *record,
							int column, Datum value, bool isnull);
extern void sagaz_table_record(const SagazTable *table, TupleTableSlot *slot,
							   SagazRecord *record);
extern void sagaz_table_check_record(SagazRecord *record);
extern SagazStore *sagaz_table_store(const SagazTable *table, Oid user);

/* parts of the routine */
extern void sagaz_fdw_plan(FdwRoutine *routine);
extern void sagaz_fdw_scan(FdwRoutine *routine);
extern void sagaz_fdw_analyze(FdwRoutine *routine);
extern void sagaz_fdw_modify(FdwRoutine *routine);

/*
 * What a scan was planned to ask the storage for: fdw_private of the plan has
 * a SagazHow for each, as integers, then the limit as a string.  The values
 * are in fdw_exprs, in the same order, those that are asked for.
 */
typedef enum SagazAsked
{
	ASKED_KEY,
	ASKED_STATUS,
	ASKED_SAGA,
	ASKED_LAST = ASKED_SAGA
} SagazAsked;

typedef enum SagazHow
{
	NOT_ASKED,
	EQUALS_VALUE,
	EQUALS_ANY					/* of an array */
} SagazHow;

extern const char *sagaz_plan_asked_name(SagazKind kind, SagazAsked asked);

#endif							/* SAGAZ_FDW_H */
