/*
 * worker.h
 *		What is set up for the worker while the module is loaded.
 */
#ifndef SAGAZ_WORKER_H
#define SAGAZ_WORKER_H

/* launcher.c */
extern void sagaz_launcher_install(void);

/* database_commands.c */
extern void sagaz_commands_install(void);

#endif							/* SAGAZ_WORKER_H */
