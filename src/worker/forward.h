/*
 * forward.h
 *		Handing a claimed batch to another storage.
 */
#ifndef SAGAZ_FORWARD_H
#define SAGAZ_FORWARD_H

#include "worker/handler.h"

extern SagazRecord *sagaz_forward_read(SagazBatch *batch);
extern void sagaz_forward_send(SagazStore *store, const SagazBatch *batch,
							   SagazRecord *records);
extern void sagaz_forward_begin(int timeout_ms);
extern void sagaz_forward_end(void);
extern void sagaz_forward_release_left_over(const char *consumer_group,
											const char *worker_id);

#endif							/* SAGAZ_FORWARD_H */
