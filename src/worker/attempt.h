/*
 * attempt.h
 *		Trying a batch on its target until each event has a verdict.
 */
#ifndef SAGAZ_ATTEMPT_H
#define SAGAZ_ATTEMPT_H

#include "worker/target.h"

extern void sagaz_attempt_prepare(SagazBatch *batch);
extern bool sagaz_attempt_deliver(SagazBatch *batch, SagazCare care, int at_once);
extern void sagaz_attempt_events(SagazBatch *batch);
extern SagazCare sagaz_attempt_blame(const SagazBatch *batch, const ErrorData *error);
extern void sagaz_attempt_finish(SagazBatch *batch);
extern void sagaz_attempt_give_back(SagazBatch *batch, const char *error);
extern void sagaz_attempt_time(int timeout_ms);
extern void sagaz_attempt_time_over(void);

#endif							/* SAGAZ_ATTEMPT_H */
