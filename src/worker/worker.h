/*
 * worker.h
 *		What is set up for the worker while the module is loaded.
 *
 * The folder has the background processes: a launcher, short looks into
 * databases, and a worker for each delivery, with its three kinds of targets:
 * handler.c, forward.c, stream.c.  It calls src/outbox to claim and finish,
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
