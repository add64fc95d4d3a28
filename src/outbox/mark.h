/*
 * mark.h
 *		What became of single events.
 */
#ifndef SAGAZ_MARK_H
#define SAGAZ_MARK_H

#include "outbox/batch.h"
#include "outbox/retry.h"

extern void sagaz_mark_event_failed(const SagazGroup *group, Datum event_id,
									const char *worker_id, const char *error,
									SagazFailure failure);
extern void sagaz_mark_event_sent(const SagazGroup *group, Datum event_id,
								  const char *worker_id);

/* hold.c */
extern int	sagaz_hold_back(SagazLease *lease, int16 lane, int64 seq,
							TimestampTz now);
extern void sagaz_hold_let_go_of(const SagazGroup *group, int64 seq);

#endif							/* SAGAZ_MARK_H */
