/*
 * window_scan.h
 *		Walking the events of a window in one lane, in order of their places,
 *		but for those with a row of the group in outbox_retry.
 */
#ifndef SAGAZ_WINDOW_SCAN_H
#define SAGAZ_WINDOW_SCAN_H

#include "lib/tuples.h"
#include "outbox/window.h"

typedef struct SagazWindowScan SagazWindowScan;

extern SagazWindowScan *sagaz_window_scan_begin(const SagazWindow *window,
												const SagazCluster *cluster,
												int16 group_no, int16 lane,
												int64 after, int64 upto,
												int chunk, Snapshot snapshot);
extern TupleTableSlot *sagaz_window_scan_next(SagazWindowScan *scan);
extern int64 sagaz_window_scan_last(const SagazWindowScan *scan);
extern int64 sagaz_window_scan_rows_read(const SagazWindowScan *scan);
extern void sagaz_window_scan_end(SagazWindowScan *scan);

#endif							/* SAGAZ_WINDOW_SCAN_H */
