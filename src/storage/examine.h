/*
 * examine.h
 *		Trying whether a storage is fit.
 */
#ifndef SAGAZ_EXAMINE_H
#define SAGAZ_EXAMINE_H

#include "backends/common/backend.h"

typedef struct SagazExamination
{
	List	   *checked;		/* what was tried and worked, in words */
	List	   *faults;			/* SagazFault */
} SagazExamination;

extern bool sagaz_examine_has_kind(const SagazStore *store, SagazKind kind);
extern void sagaz_storage_examine(SagazStore *store, SagazKind kind,
								  SagazExamination *examination);

#endif							/* SAGAZ_EXAMINE_H */
