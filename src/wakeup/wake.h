/*
 * wake.h
 *		A commit that makes events claimable wakes those who wait for them.
 */
#ifndef SAGAZ_WAKE_H
#define SAGAZ_WAKE_H

extern Size sagaz_wake_size(void);
extern void sagaz_wake_attach(void *memory, bool fresh);
extern void sagaz_wake_all(void);
extern void sagaz_wake_at_commit(void);
extern void sagaz_wake_for_deliveries(void);
extern void sagaz_wake_for_databases(void);
extern void sagaz_wake_prepare(void);
extern bool sagaz_wake_sleep(long timeout_ms);
extern void sagaz_wake_end(void);

#endif							/* SAGAZ_WAKE_H */
