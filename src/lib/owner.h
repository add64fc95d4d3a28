/*
 * owner.h
 *		Acting as the extension's owner for a while.
 */
#ifndef SAGAZ_OWNER_H
#define SAGAZ_OWNER_H

typedef struct SagazUser
{
	Oid			id;
	int			context;
} SagazUser;

extern void sagaz_become_owner(SagazUser *before);
extern void sagaz_owner_restore(const SagazUser *user);

#endif							/* SAGAZ_OWNER_H */
