/*
 * foreign_row.h
 *		Events of other storages as rows.
 */
#ifndef SAGAZ_FOREIGN_ROW_H
#define SAGAZ_FOREIGN_ROW_H

#include "fmgr.h"

#include "backends/common/backend.h"

extern void sagaz_foreign_put_row(FunctionCallInfo fcinfo,
								  const SagazStore *store,
								  const SagazRecord *record);

#endif							/* SAGAZ_FOREIGN_ROW_H */
