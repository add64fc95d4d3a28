/*
 * worker.h
 *		What is set up for the worker while the module is loaded.
 *
 * The folder has the background processes: a launcher, short looks into
 * databases, and a worker for each delivery, which hands what it claims to a target:
 * target.h says what that is, target.c which there are.  It calls src/outbox to claim and finish,
 * src/storage to reach a target, src/upkeep for house-keeping; what sessions
 * and processes share is in src/wakeup.
 */
#ifndef SAGAZ_WORKER_H
#define SAGAZ_WORKER_H

/* launcher.c */
extern void sagaz_launcher_install(void);

/* database_commands.c */
extern void sagaz_commands_install(void);

#endif							/* SAGAZ_WORKER_H */
