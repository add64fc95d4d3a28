/*
 * rows.h
 *		Functions that return a set of rows.
 */
#ifndef SAGAZ_ROWS_H
#define SAGAZ_ROWS_H

#include "fmgr.h"

extern void sagaz_rows_begin(FunctionCallInfo fcinfo);

#endif							/* SAGAZ_ROWS_H */
