/*
 * fdw_count.h
 *		How many rows a foreign table has, for the planner.
 */
#ifndef SAGAZ_FDW_COUNT_H
#define SAGAZ_FDW_COUNT_H

#include "fdw/fdw.h"

/* What is taken for the number where it is not asked for. */
#define SAGAZ_UNKNOWN_ROWS 1000

extern double sagaz_table_count(const SagazTable *table, Oid user);

#endif							/* SAGAZ_FDW_COUNT_H */
