/*
 * backend.h
 *		The storage interface: what a kind of storage (a backend) does, and how
 *		its callers ask for it.
 *
 * A *backend* is a constant table of functions, SagazBackend, one for each
 * kind of storage.  A *store* is one opened storage.  A backend embeds
 * SagazStore as the first member of a struct of its own:
 *
 *		typedef struct SqliteStore { SagazStore base; sqlite3 *db; } ...
 *
 * What a backend does is small: it begins and ends a transaction, gets, puts,
 * deletes, counts and scans records.  What makes an outbox of that (leases,
 * retries, dead letters, who may finish what) is the same for all of them and
 * lives in outbox.c, which a backend names in its table as sagaz_outbox_claim
 * and so on, unless its store has a better way of its own.
 *
 * Callers use the inline functions below and never the table.  Each function
 * may raise an error, by ereport with the SQLSTATEs of sagaz.h, unless its
 * contract says otherwise.  An error message names the storage (store->name)
 * and never holds a password.  A foreign library's object is released before
 * the error is raised, and no error is raised through the library's frames.
 * Whatever can take long checks for interrupts.
 *
 * Results are palloc'd in the caller's memory context.
 */
#ifndef SAGAZ_BACKEND_H
#define SAGAZ_BACKEND_H

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"

#include "record.h"

typedef struct SagazBackend SagazBackend;
typedef struct SagazStore SagazStore;
typedef struct SagazReader SagazReader;

/* Capabilities: what a store of this kind has beyond the least. */
#define SAGAZ_CAN_SAGA		0x01	/* keeps sagas */
#define SAGAZ_CAN_OUTBOX	0x02	/* keeps events */
#define SAGAZ_CAN_ATOMIC	0x04	/* a transaction is undone as a whole */
#define SAGAZ_CAN_DURABLE	0x08	/* outlives the session */
#define SAGAZ_CAN_SHARED	0x10	/* sessions see the same records */
#define SAGAZ_CAN_ORDER		0x20	/* a scan can be ordered by key */

/*
 * Where a storage is.  It lives in the store's memory context; options is a
 * list of DefElem with string values, those of the server and the user
 * mapping together.
 */
typedef struct SagazLocation
{
	const char *name;			/* of the server, or the masked URL */
	const char *identity;		/* tells storages apart, within the session */
	List	   *options;
} SagazLocation;

/*
 * An opened storage.  "context" is its memory: the backend allocates what
 * lives as long as the store there, and closes the foreign handle in a reset
 * callback of it, so that it is closed on every path, errors included.  Such a
 * callback must not raise an error.  A handle that keeps a descriptor open is
 * accounted for with AcquireExternalFD() and ReleaseExternalFD().
 */
struct SagazStore
{
	const SagazBackend *backend;
	const char *name;
	MemoryContext context;
	const SagazLocation *location;
	bool		in_transaction; /* kept by the inline functions */
	bool		broken;			/* set by the backend: do not use again */
};

typedef enum SagazOrder
{
	SAGAZ_ANY_ORDER,
	SAGAZ_BY_KEY,				/* saga_id, event_id; by bytes */
	SAGAZ_BY_INSERTION			/* first put first; of events */
} SagazOrder;

/*
 * Which records a scan gives.  All conditions hold together; what is zero, or
 * for times SAGAZ_NO_TIME (see sagaz_filter_init()), does not restrict.
 * sagaz_filter_matches() says the same in C.
 */
typedef struct SagazFilter
{
	uint32		statuses;		/* bits 1 << sagaz_status_number() */
	const char *saga_id;		/* of events */
	const char *event_type;		/* of events */
	int64		batch_id;		/* of events */
	TimestampTz updated_before; /* sagas: updated_at before this */
	TimestampTz created_until;	/* created_at not after this */
	TimestampTz claimed_until;	/* events: claimed_at not after this */
	TimestampTz sent_until;		/* events: sent_at not after this */

	/*
	 * Events that may be claimed at this time: pending or failed with no
	 * next_attempt_at after it, or claimed with a lease_until not after it.
	 */
	TimestampTz claimable_at;
	const char *after_key;		/* with SAGAZ_BY_KEY: keys behind this */
	SagazOrder	order;
	int64		limit;
} SagazFilter;

/*
 * A scan under way: an object of the backend's that embeds this.  "context" is
 * its memory, a child of the store's; foreign statements are closed in a reset
 * callback of it.  sagaz_reader_end() deletes the context.
 */
struct SagazReader
{
	SagazStore *store;
	SagazKind	kind;
	MemoryContext context;
};

/* What a claim asks for; outbox.c. */
typedef struct SagazClaim
{
	const char *worker_id;
	int			batch_size;
	TimestampTz now;
	TimestampTz created_until;	/* SAGAZ_NO_TIME: any */
	int64		lease;			/* microseconds */
} SagazClaim;

/* How failures are treated; the shared policy. */
typedef struct SagazPolicy
{
	int			max_retries;
	int64		backoff;		/* microseconds before the first retry */
} SagazPolicy;

struct SagazBackend
{
	Size		size;			/* sizeof(SagazBackend), to tell mixed builds */
	const char *name;			/* "sqlite" */
	const char *wrapper;		/* "sagaz_sqlite", the foreign data wrapper */
	const char *scheme;			/* "sqlite", of URLs */
	uint32		capabilities;

	/* Options of a server and of a user mapping, each list ending in NULL. */
	const char *const *server_options;
	const char *const *user_options;

	/* Version of the client library at run time, or NULL.  Raises nothing. */
	const char *(*library_version) (void);

	/*
	 * Read what follows "scheme://" of a URL into options (DefElem) of a
	 * server and of a user mapping.  The rest of the URL is what it may be:
	 * ereport SZ009 without the URL itself, since it may hold a secret.
	 */
	void		(*parse_url) (const char *rest, List **server_options,
							  List **user_options);

	/*
	 * Check option values; raises SZ009.  Called for CREATE and ALTER SERVER
	 * and USER MAPPING with names that are known to be right, and before
	 * open.  What depends on the user (files it may reach) is for open.
	 */
	void		(*check_option) (const char *name, const char *value);

	/*
	 * Open the storage.  Allocates the store with palloc0 in the current
	 * memory context, which is the store's own and is deleted if this raises.
	 * Base fields are filled in by the caller afterwards, except that
	 * location is passed and stays valid.  Should not wait for a peer longer
	 * than its timeout options say.  The privilege to use the server has been
	 * checked; privileges on files have not, they are the user's in
	 * GetUserId().
	 */
	SagazStore *(*open) (const SagazLocation *location);

	/* Make sure that the storage answers; within a second or so.  SZ001. */
	void		(*ping) (SagazStore *store);

	/* Facts for health_check(): pairs pushed into an open JSON object. */
	void		(*describe) (SagazStore *store, JsonbParseState **state);

	/*
	 * A transaction of the store's own.  With "write" nobody else writes
	 * until its end, and what is read is what is there: what is decided from
	 * it stays true until commit.  rollback raises nothing; it is also called
	 * when commit raised.  All calls below except count and scans happen
	 * within a transaction.
	 */
	void		(*begin) (SagazStore *store, bool write);
	void		(*commit) (SagazStore *store);
	void		(*rollback) (SagazStore *store);

	/* Read one record; false if there is none with that key. */
	bool		(*get) (SagazStore *store, SagazKind kind, const char *key,
						SagazRecord *record);

	/*
	 * Write records, each whole, fields beside the record included, in place
	 * of what has that key.  They have been checked (sagaz_record_check).  A
	 * record that the store cannot hold raises SZ003, a full store SZ007.
	 */
	void		(*put) (SagazStore *store, SagazKind kind,
						const SagazRecord *records, int count);

	/* Delete records by key; returns how many there were. */
	int64		(*remove) (SagazStore *store, SagazKind kind,
						   const char *const *keys, int count);

	/* How many records there are that the filter lets through. */
	int64		(*count) (SagazStore *store, SagazKind kind,
						  const SagazFilter *filter);

	/*
	 * Read records.  The scan sees its own transaction's writes; records that
	 * are put while it runs may or may not come.  read_next fills in a record
	 * in the current memory context; one that cannot be held has a complaint
	 * and a key.  false at the end.  read_end (optional to reach) frees what
	 * the reset callback of reader->context does not.
	 */
	SagazReader *(*scan) (SagazStore *store, SagazKind kind,
						  const SagazFilter *filter);
	bool		(*read_next) (SagazReader *reader, SagazRecord *record);
	void		(*read_end) (SagazReader *reader);

	/*
	 * The outbox.  Each of these is a transaction of its own.  A claim hands
	 * out events that are claimable, oldest first, as one batch, none twice;
	 * returns how many are in *events.  The others change nothing and raise
	 * SZ006 where the worker does not hold the batch (any more).
	 */
	int			(*claim) (SagazStore *store, const SagazClaim *claim,
						  SagazEventRecord **events);
	int			(*finish) (SagazStore *store, int64 batch_id,
						   const char *worker_id, TimestampTz now);
	int			(*release) (SagazStore *store, int64 batch_id,
							const char *worker_id, const char *error,
							TimestampTz not_before, TimestampTz now);
	void		(*extend) (SagazStore *store, int64 batch_id,
						   const char *worker_id, TimestampTz until,
						   TimestampTz now);
	int			(*expire) (SagazStore *store, TimestampTz claimed_until);
};

/* registry.c: the backends that were compiled in, ending with NULL */
extern const SagazBackend *const sagaz_backends[];
extern const SagazBackend *sagaz_backend_by_scheme(const char *scheme,
												   int length);
extern const SagazBackend *sagaz_backend_by_wrapper(const char *wrapper);

/* backends, each in the file of its name */
extern const SagazBackend sagaz_memory_backend;
extern const SagazBackend sagaz_sqlite_backend;

/* filter.c */
extern void sagaz_filter_init(SagazFilter *filter);
extern bool sagaz_filter_matches(const SagazFilter *filter, SagazKind kind,
								 const SagazRecord *record);
extern const char *sagaz_option(const List *options, const char *name);

/* outbox.c: the outbox of a store that has no better way */
extern int	sagaz_outbox_claim(SagazStore *store, const SagazClaim *claim,
							   SagazEventRecord **events);
extern int	sagaz_outbox_finish(SagazStore *store, int64 batch_id,
								const char *worker_id, TimestampTz now);
extern int	sagaz_outbox_release(SagazStore *store, int64 batch_id,
								 const char *worker_id, const char *error,
								 TimestampTz not_before, TimestampTz now);
extern void sagaz_outbox_extend(SagazStore *store, int64 batch_id,
								const char *worker_id, TimestampTz until,
								TimestampTz now);
extern int	sagaz_outbox_expire(SagazStore *store, TimestampTz claimed_until);
extern void sagaz_event_failed(SagazEventRecord *event, const char *error,
							   const SagazPolicy *policy, TimestampTz now);

/* Run work() in a transaction of the store's, undone if it raises. */
extern void sagaz_atomically(SagazStore *store,
							 void (*work) (SagazStore *store, void *arg),
							 void *arg);

static inline void
sagaz_begin(SagazStore *store, bool write)
{
	Assert(!store->in_transaction && !store->broken);
	store->backend->begin(store, write);
	store->in_transaction = true;
}

static inline void
sagaz_commit(SagazStore *store)
{
	Assert(store->in_transaction);
	store->backend->commit(store);
	store->in_transaction = false;
}

static inline void
sagaz_rollback(SagazStore *store)
{
	if (store->in_transaction)
		store->backend->rollback(store);
	store->in_transaction = false;
}

static inline bool
sagaz_get(SagazStore *store, SagazKind kind, const char *key,
		  SagazRecord *record)
{
	Assert(store->in_transaction);
	return store->backend->get(store, kind, key, record);
}

static inline void
sagaz_put(SagazStore *store, SagazKind kind, const SagazRecord *records,
		  int count)
{
	Assert(store->in_transaction);
	store->backend->put(store, kind, records, count);
}

static inline int64
sagaz_remove(SagazStore *store, SagazKind kind, const char *const *keys,
			 int count)
{
	Assert(store->in_transaction);
	return store->backend->remove(store, kind, keys, count);
}

static inline int64
sagaz_count(SagazStore *store, SagazKind kind, const SagazFilter *filter)
{
	return store->backend->count(store, kind, filter);
}

static inline SagazReader *
sagaz_scan(SagazStore *store, SagazKind kind, const SagazFilter *filter)
{
	SagazReader *reader = store->backend->scan(store, kind, filter);

	Assert(reader->store == store && reader->context != NULL);
	return reader;
}

static inline bool
sagaz_read_next(SagazReader *reader, SagazRecord *record)
{
	return reader->store->backend->read_next(reader, record);
}

static inline void
sagaz_read_end(SagazReader *reader)
{
	MemoryContext context = reader->context;

	reader->store->backend->read_end(reader);
	MemoryContextDelete(context);
}

#endif							/* SAGAZ_BACKEND_H */
