/*
 * shared.h
 *		What the launcher, the workers and the sessions of all databases share.
 *
 * A slot of shared memory stands for one delivery of one database.  A short
 * look into a database fills and frees its slots; the launcher starts a
 * worker for each slot that is wanted; sessions that commit events set the
 * latches of the workers of their database.
 *
 * The folder is all of sagaz that is in shared memory: this, the waking at
 * commit (wake.h), and who was at work when the server crashed (crash.h).  It
 * lies low, as whoever inserts an event wakes, and calls src/lib only.
 * Nothing here decides what is delivered: all of it may be lost.
 */
#ifndef SAGAZ_SHARED_H
#define SAGAZ_SHARED_H

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

/* Text of an error that a slot keeps. */
#define SAGAZ_ERROR_LENGTH 512
/* Databases whose deliveries changed, until the launcher has looked. */
#define SAGAZ_MAX_CHANGED 32
/* Databases that a command wants for itself. */
#define SAGAZ_MAX_CLOSED 16

typedef enum SagazWorkerState
{
	WORKER_NONE,				/* not running */
	WORKER_STARTING,			/* registered with the postmaster */
	WORKER_IDLE,
	WORKER_DELIVERING,
	WORKER_HOUSEKEEPING,
	WORKER_BACKING_OFF			/* after an error */
} SagazWorkerState;

/* What a delivery that is to run waits for, see worker/shares.c. */
typedef enum SagazWait
{
	WAIT_NONE,
	WAIT_PROCESS,				/* there is none */
	WAIT_SPARE,					/* what there is is for others */
	WAIT_SLOT,					/* of shared memory */
	WAIT_DATABASE,				/* its database has too many */
	WAIT_ROLE					/* its owner has */
} SagazWait;

/* What the workers of a delivery have done since the server started. */
typedef struct SagazDone
{
	int64		batches;
	int64		delivered;
	int64		failed;			/* attempts that made an event wait */
	int64		dead;			/* attempts that made it a dead letter */
	int64		archived;		/* house-keeping: events taken from the log */
	int64		inbox_removed;	/* and rows of the inbox */
	TimestampTz last_delivery;	/* times: 0 for never */
	TimestampTz last_housekeeping;
	TimestampTz last_error_at;
	char		last_error[SAGAZ_ERROR_LENGTH];
} SagazDone;

/* Changed under the lock, except for what says otherwise. */
typedef struct SagazWorkerSlot
{
	Oid			database;		/* InvalidOid: the slot is free */
	NameData	name;			/* of the delivery */
	Oid			owner;
	TimestampTz confirmed_at;	/* the delivery, by its owner */
	bool		exists;			/* the delivery does, as of the last look */
	bool		wanted;			/* its worker should run */
	SagazWait	wait;			/* why it does not, though it is to */
	bool		yield;			/* another database needs its process */
	bool		is_awaited;		/* somebody waits for its batch to end */
	SagazWorkerState state;
	TimestampTz state_since;	/* this and the next: while a worker runs */
	TimestampTz resting_until;	/* after an error */
	int			pid;			/* 0 while no worker runs */
	Latch	   *latch;			/* the worker's, NULL while none runs */
	pg_atomic_uint32 nudged;	/* no lock: look at the delivery again */
	TimestampTz started_at;		/* this start, or the last */
	int			quick_ends;		/* starts in a row that soon ended */
	TimestampTz not_before;		/* do not start it earlier */
	bool		look_first;		/* nor without a look at why it ended */
	SagazDone	done;
} SagazWorkerSlot;

typedef struct SagazWorkers
{
	int			nslots;
	pg_atomic_uint32 nused;		/* no slot at or above was ever used */
	int			launcher_pid;	/* 0 while it does not run */
	Latch	   *launcher;
	bool		no_process;		/* max_worker_processes is exhausted */
	bool		no_slot;		/* sagaz.max_deliveries is exhausted */
	bool		all_changed;	/* look into every database */
	int			nchanged;
	Oid			changed[SAGAZ_MAX_CHANGED];
	int			nclosed;
	Oid			closed[SAGAZ_MAX_CLOSED];
	Oid			looking;		/* the database that is looked into */
	int			look_pid;
	bool		look_is_told;	/* since somebody changed something there */
	Oid			looked;			/* the last look that came to its end */
	SagazWorkerSlot slots[FLEXIBLE_ARRAY_MEMBER];
} SagazWorkers;

/* shared.c */
extern SagazWorkers *sagaz_workers; /* NULL without shared_preload_libraries */
extern LWLock *sagaz_workers_lock;
extern Size sagaz_shared_size(void);
extern void sagaz_shared_attach(void *memory, LWLock *lock, bool fresh);
extern void sagaz_shared_wake_launcher(void);
extern void sagaz_shared_wake_workers(Oid database, bool nudge);
extern void sagaz_shared_database_changed(Oid database);
extern void sagaz_shared_all_changed(void);
extern bool sagaz_shared_is_closed(Oid database);
extern SagazWorkerSlot *sagaz_shared_worker_slot(Oid database, const char *name);

/* shmem.c */
extern void sagaz_shmem_install(void);

#endif							/* SAGAZ_SHARED_H */
