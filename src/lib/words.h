/*
 * words.h
 *		Words of the status types of sagas, steps and events.
 */
#ifndef SAGAZ_WORDS_H
#define SAGAZ_WORDS_H

/* The statuses of an event, in the order of their enum. */
typedef enum EventStatus
{
	EVENT_PENDING,
	EVENT_CLAIMED,
	EVENT_SENT,
	EVENT_FAILED,
	EVENT_DEAD_LETTER,
	EVENT_STATUSES,				/* how many there are */
	EVENT_NONE = EVENT_STATUSES /* of an event that is none of a group's */
} EventStatus;

/* NULL ends them. */
extern const char *const sagaz_saga_words[];
extern const char *const sagaz_event_words[];

/* Statuses of sagas that have not ended. */
#define SAGAZ_UNFINISHED_WORDS 4
extern const char *const sagaz_unfinished_saga_words[SAGAZ_UNFINISHED_WORDS];

/* One of the enum types of statuses, and its words in their order. */
typedef struct StatusType
{
	const char *name;
	int			count;
	const char *const *words;
} StatusType;

extern const StatusType saga_statuses;
extern const StatusType step_statuses;
extern const StatusType event_statuses;
extern Oid	saga_status_word_oid(const StatusType *type, const char *word);
extern const char *saga_status_word(Oid status);
extern Oid	saga_status_of_word(const StatusType *type, const char *word,
								const char *field);
extern EventStatus sagaz_event_status(const char *word);
extern Datum sagaz_event_status_value(EventStatus status);
extern bool sagaz_event_status_may_follow(EventStatus from, EventStatus to);

#endif							/* SAGAZ_WORDS_H */
