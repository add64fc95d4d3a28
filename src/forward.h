/*
 * forward.h
 *		Handing a claimed batch to another storage.
 */
#ifndef SAGAZ_FORWARD_H
#define SAGAZ_FORWARD_H

#include "handler.h"
#include "stream.h"

extern SagazRecord *sagaz_forward_read(SagazBatch *batch);
extern void sagaz_forward_send(SagazStore *store, const SagazBatch *batch,
							   SagazRecord *records, SagazStream *stream);
extern void sagaz_forward_release_left_over(const char *consumer_group,
											const char *worker_id);

#endif							/* SAGAZ_FORWARD_H */
