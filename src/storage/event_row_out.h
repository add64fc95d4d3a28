/*
 * event_row_out.h
 *		Events of other storages as rows.
 */
#ifndef SAGAZ_EVENT_ROW_OUT_H
#define SAGAZ_EVENT_ROW_OUT_H

#include "fmgr.h"

#include "backends/common/backend.h"

extern void sagaz_put_asked_row(FunctionCallInfo fcinfo,
								const SagazStore *store,
								const SagazRecord *record);

#endif							/* SAGAZ_EVENT_ROW_OUT_H */
