/*
 * record.h
 *		Records: a saga or an event as every storage has it, and to and from JSON.
 *
 * What a record is lies below all that makes or reads one, the engine's own
 * tables and the interface of storages alike: this header knows neither.
 *
 * Strings are in the database's encoding.  Times are 0 where there is none;
 * the instant whose number is 0, the first of 2000 in UTC, is -infinity.
 *
 * The folder makes records out of JSON and text and back, compares them in
 * their normal form, and tells what does not fit.  It calls src/lib and, for
 * the words and steps of sagas, src/saga.
 */
#ifndef SAGAZ_RECORD_H
#define SAGAZ_RECORD_H

#include "lib/sagaz.h"

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "utils/jsonb.h"

/* When a record was made whose store does not tell: the first of 1970 in UTC. */
#define SAGAZ_UNDATED \
	((TimestampTz) (UNIX_EPOCH_JDATE - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY)

/* A time as records have it, and back. */
static inline TimestampTz
sagaz_record_time(TimestampTz time)
{
	return time == 0 ? DT_NOBEGIN : time;
}

static inline TimestampTz
sagaz_real_time(TimestampTz time)
{
	return time == DT_NOBEGIN ? 0 : time;
}

typedef enum SagazKind
{
	SAGAZ_SAGA,
	SAGAZ_EVENT
} SagazKind;

/* Steps, context and metadata are as they were stored, not in normal form. */
typedef struct SagazSaga
{
	char	   *saga_id;
	char	   *saga_name;
	char	   *status;			/* a word; a foreign store may hold any */
	Jsonb	   *steps;			/* an array of objects */
	Jsonb	   *context;
	Jsonb	   *metadata;		/* NULL: none */
	int64		version;		/* 1 where the store keeps none */
	TimestampTz created_at;
	TimestampTz updated_at;
} SagazSaga;

/* The 16 fields of an event, then what a lease and a retry need. */
typedef struct SagazEvent
{
	char	   *event_id;		/* a UUID, except where the library wrote others */
	char	   *saga_id;
	char	   *aggregate_type;
	char	   *aggregate_id;	/* NULL: the saga_id */
	char	   *event_type;
	Jsonb	   *payload;
	Jsonb	   *headers;		/* an object */
	char	   *status;
	TimestampTz created_at;
	TimestampTz claimed_at;
	TimestampTz sent_at;
	int			retry_count;
	char	   *last_error;		/* this and what follows: NULL for none */
	char	   *worker_id;
	char	   *routing_key;
	char	   *partition_key;

	int64		batch_id;		/* of the claim, 0: none */
	TimestampTz lease_until;	/* an extended lease; 0: as claims last */
	TimestampTz next_attempt_at;	/* do not hand out earlier */
} SagazEvent;

/*
 * One of the two.  A record that is stored but that a record cannot hold has
 * a problem: then its key is set, and beyond that only what could be read.
 */
typedef struct SagazRecord
{
	SagazKind	kind;
	char	   *problem;
	SagazSaga	saga;
	SagazEvent	event;
} SagazRecord;

/* What it is found by; set even where the record has a problem. */
static inline const char *
sagaz_record_key(const SagazRecord *record)
{
	return record->kind == SAGAZ_SAGA ? record->saga.saga_id :
		record->event.event_id;
}


extern SagazKind sagaz_record_kind(const char *type);
extern Jsonb *sagaz_record_to_json(const SagazRecord *record);
extern void sagaz_record_check(SagazRecord *record);
extern void sagaz_record_copy(const SagazRecord *from, SagazRecord *to);
extern bool sagaz_record_same(const SagazRecord *a, const SagazRecord *b);
extern bool sagaz_record_same_saga(const SagazSaga *a, const SagazSaga *b);

extern Jsonb *sagaz_normal_json(Jsonb *json);
extern Jsonb *sagaz_normal_steps(Jsonb *steps);
extern JsonbValue *sagaz_normal_step_value(JsonbContainer *step, const char *key,
										   JsonbValue *buffer);
extern bool sagaz_normal_step_has_more(JsonbContainer *step);
extern Jsonb *sagaz_record_empty_object(void);
extern Jsonb *sagaz_record_empty_array(void);

/* record_wire.c: for the sagaz at the other end */
extern void sagaz_record_to_wire(const SagazRecord *record, StringInfo text);
extern void sagaz_records_to_wire(const SagazRecord *records, int count,
								  StringInfo text);

/* record_read.c */
extern void sagaz_record_from_json(SagazKind kind, Jsonb *json,
								   SagazRecord *record);
extern void sagaz_record_from_new(SagazKind kind, Jsonb *json,
								  SagazRecord *record);
extern void sagaz_record_from_any_new(SagazKind kind, Jsonb *json,
									  SagazRecord *record);
extern void sagaz_record_from_wire(SagazKind kind, Jsonb *json,
								   SagazRecord *record);

/* A page of them ends early where they are large. */
#define SAGAZ_PAGE_BYTES (16 * 1024 * 1024)

/*
 * An entry of an index has to fit into a third of a page.  Ids and names of
 * up to so many bytes do, with what else is in the entry.
 */
#define SAGAZ_KEY_LENGTH 2600

/* fit.c: why the tables of sagaz cannot hold a record, or NULL */
extern char *sagaz_fit_problem(const SagazRecord *record);
extern void sagaz_check_fit(const SagazRecord *record);

/* fit.c: and why text in that encoding cannot hold it */
extern char *sagaz_unfit_for_encoding(const SagazRecord *record, int encoding);

/* field.c: fields of foreign stores */
extern void sagaz_field_complain(SagazRecord *record, char *problem);
extern char *sagaz_field_text(const char *bytes, size_t length,
							  const char *field, SagazRecord *record);
extern Jsonb *sagaz_field_parse_json(const char *text, int length,
								   char **problem);
extern Jsonb *sagaz_field_json(const char *text, const char *field,
							   SagazRecord *record);
extern TimestampTz sagaz_field_time(const char *text, const char *field,
									SagazRecord *record);

/* json_build.c: objects, pair by pair */
extern void sagaz_json_push_key(JsonbParseState **state, const char *key);
extern void sagaz_json_push_string(JsonbParseState **state, const char *key,
								   const char *value);
extern void sagaz_json_push_int(JsonbParseState **state, const char *key,
								int64 value);
extern void sagaz_json_push_time(JsonbParseState **state, const char *key,
								 TimestampTz value);
extern void sagaz_push_json(JsonbParseState **state, const char *key,
							Jsonb *value);
extern void sagaz_json_value_of(Jsonb *json, JsonbValue *value);

#endif							/* SAGAZ_RECORD_H */
