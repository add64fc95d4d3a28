/*
 * record.h
 *		Records to and from JSON.
 */
#ifndef SAGAZ_RECORD_H
#define SAGAZ_RECORD_H

#include "backends/common/backend.h"

#include "lib/stringinfo.h"
#include "utils/hsearch.h"

extern const char *const sagaz_saga_words[];
extern const char *const sagaz_event_words[];

extern SagazKind sagaz_kind_of(const char *type);
extern Jsonb *sagaz_record_to_json(const SagazRecord *record);
extern void sagaz_record_check(SagazRecord *record);
extern void sagaz_record_copy(const SagazRecord *from, SagazRecord *to);
extern bool sagaz_record_same(const SagazRecord *a, const SagazRecord *b);
extern HTAB *sagaz_key_table(const char *name, long count, Size entry_size,
							 MemoryContext context);
extern bool sagaz_saga_same(const SagazSaga *a, const SagazSaga *b);

extern Jsonb *sagaz_normal_json(Jsonb *json);
extern Jsonb *sagaz_normal_steps(Jsonb *steps);
extern JsonbValue *sagaz_step_value(JsonbContainer *step, const char *key,
									JsonbValue *buffer);
extern bool sagaz_step_has_more(JsonbContainer *step);
extern Jsonb *sagaz_json_from_text(const char *text, int length,
								   char **problem);
extern Jsonb *sagaz_empty_object(void);
extern Jsonb *sagaz_empty_array(void);

/* record_wire.c: for the sagaz at the other end */
extern void sagaz_record_to_wire(const SagazRecord *record, StringInfo text);
extern void sagaz_records_to_wire(const SagazRecord *records, int count,
								  StringInfo text);

/* record_read.c */
extern void sagaz_record_from_json(SagazKind kind, Jsonb *json,
								   SagazRecord *record);
extern void sagaz_record_from_any(SagazKind kind, Jsonb *json,
								  SagazRecord *record);
extern void sagaz_record_from_wire(SagazKind kind, Jsonb *json,
								   SagazRecord *record);

/* A page of them ends early where they are large. */
#define SAGAZ_PAGE_BYTES (16 * 1024 * 1024)

/* native_record.c: why the tables of sagaz cannot hold a record, or NULL */
extern char *sagaz_native_unfit(const SagazRecord *record);

/* field.c: fields of foreign stores */
extern void sagaz_complain(SagazRecord *record, char *problem);
extern char *sagaz_field_text(const char *bytes, size_t length,
							  const char *field, SagazRecord *record);
extern Jsonb *sagaz_field_json(const char *text, const char *field,
							   SagazRecord *record);
extern TimestampTz sagaz_field_time(const char *text, const char *field,
									SagazRecord *record);

/* json_build.c: objects, pair by pair */
extern void sagaz_push_key(JsonbParseState **state, const char *key);
extern void sagaz_push_string(JsonbParseState **state, const char *key,
							  const char *value);
extern void sagaz_push_int(JsonbParseState **state, const char *key,
						   int64 value);
extern void sagaz_push_time(JsonbParseState **state, const char *key,
							TimestampTz value);
extern void sagaz_push_json(JsonbParseState **state, const char *key,
							Jsonb *value);
extern void sagaz_jsonb_value(Jsonb *json, JsonbValue *value);

#endif							/* SAGAZ_RECORD_H */
