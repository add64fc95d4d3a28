/*
 * fdw_count.h
 *		How many rows a foreign table has, for the planner.
 */
#ifndef SAGAZ_FDW_COUNT_H
#define SAGAZ_FDW_COUNT_H

#include "fdw.h"

extern double sagaz_table_count(const SagazTable *table, Oid user);

#endif							/* SAGAZ_FDW_COUNT_H */
