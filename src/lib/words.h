/*
 * words.h
 *		Words of the status types of sagas, steps and events.
 */
#ifndef SAGAZ_WORDS_H
#define SAGAZ_WORDS_H

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

#endif							/* SAGAZ_WORDS_H */
