/*
 * sequences.h
 *		Sequences that must not fall behind the tables.
 */
#ifndef SAGAZ_SEQUENCES_H
#define SAGAZ_SEQUENCES_H

#include "utils/snapshot.h"

extern void sagaz_sequences_catch_up(Snapshot snapshot);
extern void sagaz_sequences_leave_copies(void);

#endif							/* SAGAZ_SEQUENCES_H */
