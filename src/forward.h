/*
 * forward.h
 *		Handing a claimed batch to another storage.
 */
#ifndef SAGAZ_FORWARD_H
#define SAGAZ_FORWARD_H

#include "handler.h"

extern SagazRecord *sagaz_forward_read(SagazBatch *batch);
extern void sagaz_forward_put(SagazStore *store, SagazRecord *records,
							  int count, int timeout_ms);
extern void sagaz_forward_release_left_over(const char *consumer_group,
											const char *worker_id);

#endif							/* SAGAZ_FORWARD_H */
