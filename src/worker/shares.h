/*
 * shares.h
 *		Who gets a process.
 */
#ifndef SAGAZ_SHARES_H
#define SAGAZ_SHARES_H

#include "wakeup/shared.h"

extern int	sagaz_shares_next(void);
extern bool sagaz_shares_wait(void);
extern void sagaz_shares_even_out(void);
extern int	sagaz_shares_of_database(void);
extern SagazWorkerSlot sagaz_shares_read(const char *delivery);
extern char *sagaz_shares_reason(const SagazWorkerSlot *slot);

#endif							/* SAGAZ_SHARES_H */
