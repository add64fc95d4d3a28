/*
 * process.h
 *		What the background processes have in common.
 */
#ifndef SAGAZ_PROCESS_H
#define SAGAZ_PROCESS_H

#include "datatype/timestamp.h"

#include "wakeup/shared.h"

extern void sagaz_process_signals(void);
extern void sagaz_process_settings(void);
extern void sagaz_process_begin(void);
extern void sagaz_process_interrupts(int exit_code);
extern bool sagaz_process_sleep(TimestampTz until, bool wake);
extern void sagaz_process_state(SagazWorkerSlot *slot, SagazWorkerState state);
extern void sagaz_process_ended(SagazWorkerSlot *slot);

#endif							/* SAGAZ_PROCESS_H */
