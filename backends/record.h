/*
 * record.h
 *		Sagas and events as they cross the storage interface, the same for all
 *		backends, and their conversion to and from JSON (record.c).
 *
 * Texts, JSON and times hang off the structs; whoever fills one decides the
 * memory context.  A text or JSON value that is absent is NULL, a time that is
 * absent SAGAZ_NO_TIME.  JSON's null and an absent value are one and the same.
 */
#ifndef SAGAZ_RECORD_H
#define SAGAZ_RECORD_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

/* 'infinity' is refused wherever a time comes in, so it is free for this */
#define SAGAZ_NO_TIME	DT_NOBEGIN

typedef enum SagazKind
{
	SAGAZ_SAGA,
	SAGAZ_EVENT
} SagazKind;

/*
 * A record that a store holds and that we cannot hold has a complaint; of its
 * other fields then only the key is certain to be there.
 */
typedef struct SagazSagaRecord
{
	char	   *saga_id;
	char	   *saga_name;
	char	   *status;
	Jsonb	   *steps;			/* an array of objects */
	Jsonb	   *context;
	Jsonb	   *metadata;
	TimestampTz created_at;
	TimestampTz updated_at;
	char	   *complaint;

	/* kept beside the record, 1 where a store has no place for it */
	int64		version;
} SagazSagaRecord;

typedef struct SagazEventRecord
{
	char	   *event_id;		/* any text; a UUID only where one is needed */
	char	   *saga_id;
	char	   *aggregate_type;
	char	   *aggregate_id;
	char	   *event_type;
	Jsonb	   *payload;
	Jsonb	   *headers;		/* an object */
	char	   *status;
	TimestampTz created_at;
	TimestampTz claimed_at;
	TimestampTz sent_at;
	int32		retry_count;
	char	   *last_error;
	char	   *worker_id;
	char	   *routing_key;
	char	   *partition_key;
	char	   *complaint;

	/* kept beside the record; 0 and SAGAZ_NO_TIME where there is none */
	int64		batch_id;		/* while claimed, and of the last claim then */
	TimestampTz lease_until;	/* while claimed: when others may take it */
	TimestampTz next_attempt_at;	/* not to be claimed before */
} SagazEventRecord;

/* Either kind, for code that goes by SagazKind. */
typedef union SagazRecord
{
	SagazSagaRecord saga;
	SagazEventRecord event;
} SagazRecord;

/* Sagas and events are the same number of words by kind (record.c). */
extern const char *const sagaz_saga_words[];
extern const char *const sagaz_event_words[];
#define SAGAZ_SAGA_WORDS	8
#define SAGAZ_EVENT_WORDS	5

enum sagaz_event_status
{
	SAGAZ_PENDING,
	SAGAZ_CLAIMED,
	SAGAZ_SENT,
	SAGAZ_FAILED,
	SAGAZ_DEAD_LETTER
};

/* Place of a word among those of its kind, or -1. */
extern int	sagaz_status_number(SagazKind kind, const char *word);

extern void sagaz_record_init(SagazKind kind, SagazRecord *record);
extern void sagaz_record_copy(SagazKind kind, SagazRecord *to,
							  const SagazRecord *from);
extern void sagaz_record_free(SagazKind kind, SagazRecord *record);
extern const char *sagaz_record_key(SagazKind kind, const SagazRecord *record);
extern const char *sagaz_record_complaint(SagazKind kind,
										  const SagazRecord *record);

/*
 * The first complaint about a record counts; the message names the field, as
 * in "payload: Unicode character \u0000 cannot be held".
 */
extern void sagaz_complain(char **complaint, const char *field,
						   const char *reason);

/*
 * JSON text, in UTF-8, as a store holds it.  What jsonb cannot hold becomes a
 * complaint and NULL.  No text (NULL) is NULL.
 */
extern Jsonb *sagaz_json_from_text(const char *text, int length,
								   const char *field, char **complaint);

/* A text in UTF-8, as a store holds it, in the database's encoding. */
extern char *sagaz_text_from_utf8(const char *text, int length,
								  const char *field, char **complaint);

/* A time as text, or typed object; no text is SAGAZ_NO_TIME. */
extern TimestampTz sagaz_time_from_text(const char *text, int length,
										const char *field, char **complaint);

/*
 * JSON as text in UTF-8 with separators ", " and ": ", as the library writes
 * it; NULL is NULL.  The result ends with a zero byte.
 */
extern char *sagaz_json_to_text(const Jsonb *json);

/* The steps of a saga in normal form, or NULL and a complaint. */
extern Jsonb *sagaz_normal_steps(Jsonb *steps, char **complaint);

/* Complain of what no store of ours may hold: unknown statuses, empty ids. */
extern void sagaz_record_check(SagazKind kind, SagazRecord *record);

/* The normal form of a record, and back; a bad one gets a complaint. */
extern Jsonb *sagaz_record_to_json(SagazKind kind, const SagazRecord *record);
extern void sagaz_record_from_json(SagazKind kind, SagazRecord *record,
								   Jsonb *json);

#endif							/* SAGAZ_RECORD_H */
