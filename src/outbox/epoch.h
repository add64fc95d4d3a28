/*
 * epoch.h
 *		Beginning an epoch of the log.
 */
#ifndef SAGAZ_EPOCH_H
#define SAGAZ_EPOCH_H

extern void sagaz_epoch_note_first_use(void);
extern bool sagaz_epoch_activate(void);

#endif							/* SAGAZ_EPOCH_H */
