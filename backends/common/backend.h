/*
 * backend.h
 *		The one interface of all storages.
 *
 * A storage is a place where sagas and events live: the native tables, this
 * session's memory, a SQLite file.  A backend is the code for one kind of
 * storage; it fills one constant table, SagazBackend, and is the only place
 * that knows its client library.  Whoever uses storages knows this file and
 * no backend.
 *
 * A store is an opened storage.  It lies, with all that the backend needs,
 * in a memory context of its own: deleting the context closes it, so a
 * backend ties each foreign handle to the context with a reset callback the
 * moment it has it.  Close callbacks throw no error.
 *
 * A backend may raise errors anywhere except in close callbacks and in
 * functions that its library calls, but it first lets go of what is not tied
 * to a context.  After an error the store is either usable or marked as
 * broken, and then opened anew.  Where an operation says that it is atomic,
 * an error leaves the storage as it was.
 *
 * The folder has this interface and what more than one backend needs: claims
 * and merges over edit, waiting for sockets, spools of ids.  It knows no
 * backend.
 */
#ifndef SAGAZ_BACKEND_H
#define SAGAZ_BACKEND_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

#include "backends/record/filter.h"
#include "backends/record/record.h"
#include "lib/sagaz.h"

typedef struct SagazStore SagazStore;
typedef struct SagazReader SagazReader;

/* What is to become of a record that is being edited. */
typedef enum SagazVerdict
{
	SAGAZ_KEEP,
	SAGAZ_CHANGE,				/* write it as the callback left it */
	SAGAZ_REMOVE
} SagazVerdict;

/*
 * Called for each record, which it may change in place; what it points
 * to need not outlive the edit.  exists is false only where the caller asked
 * for that.  It may raise errors and must not touch the store.  Where somebody
 * else was faster, all is read and edited again, so a callback must not count.
 */
typedef SagazVerdict (*SagazEdit) (SagazRecord *record, bool exists, void *arg);

typedef enum SagazPutMode
{
	SAGAZ_PUT_NEW,				/* a key that is there already is an error,
								 * unique_violation */
	SAGAZ_PUT_MISSING,			/* and here it is left as it is */
	SAGAZ_PUT_ALWAYS			/* and here it is replaced */
} SagazPutMode;

/* What became of records that were merged. */
typedef struct SagazMerged
{
	int64		added;
	int64		changed;
	int64		unchanged;		/* were there like that */
	int64		kept;			/* events further there than ours */
} SagazMerged;

/* Something that is wrong with a storage that answers. */
typedef struct SagazFault
{
	bool		stops_writes;
	char	   *text;			/* for people, lower case, without a full stop */
} SagazFault;

/* Capabilities. */
#define SAGAZ_KEEPS_SAGAS		0x01
#define SAGAZ_KEEPS_EVENTS		0x02
#define SAGAZ_KEEPS_VERSIONS	0x04
#define SAGAZ_OUTLIVES_SESSION	0x08	/* what it holds does */
#define SAGAZ_KEY_ORDER			0x10	/* reads by key without sorting */
#define SAGAZ_HAS_STREAMS		0x20	/* publishes to streams of a broker */
#define SAGAZ_TAKES_EDITS		0x40	/* see edit; else whose records they are
										 * changes them itself */
#define SAGAZ_RECORDS_EXPIRE	0x80	/* what is missing may have expired */
#define SAGAZ_LIBRARY_READS		0x100	/* the Python library does, too */

/* An option of a foreign server or, if it is secret, of a user mapping. */
typedef struct SagazOption
{
	const char *name;			/* NULL ends the list */
	bool		secret;
	void		(*check) (const char *value);	/* raises an error */
} SagazOption;

/* What every backend takes, and the end of the list. */
#define SAGAZ_COMMON_OPTIONS \
	{.name = "consumer_group"}, {.name = "storage_type"}, {.name = "closed"}, \
	{.name = NULL}

/* What a claim wants; the batch's number is the caller's choice. */
typedef struct SagazClaimOrder
{
	const char *worker_id;
	int64		batch_id;
	int			limit;
	TimestampTz now;
	TimestampTz created_before; /* events created later stay */
	int64		lease_us;
} SagazClaimOrder;

/*
 * A function of sagaz to be run by the sagaz at the other end, arguments and
 * results as text, NULL for null.
 */
typedef struct SagazCall
{
	const char *schema;			/* the function's, the same at both ends */
	const char *function;
	int			nargs;
	const Oid  *types;			/* of the arguments; built in ones only */
	const char *const *values;
	void		(*row) (void *arg, char **columns, int ncolumns);
	void	   *arg;
} SagazCall;

/* Where an entry lies in a stream, as Redis has it: ms-seq. */
typedef struct SagazStreamId
{
	uint64		ms;
	uint64		seq;
} SagazStreamId;

typedef struct SagazStreamEntry
{
	SagazStreamId id;
	char	   *event_id;
} SagazStreamEntry;

typedef struct SagazBackend
{
	const char *name;			/* as in sagaz_<name> */
	int			capabilities;	/* of any of its storages; see store_can */
	Size		store_size;		/* of the struct that begins with SagazStore */
	Size		reader_size;	/* of the struct that begins with SagazReader */
	const SagazOption *options;

	/* Version of the client library, for people. */
	const char *(*version) (void);

	/* What its URLs begin with; NULL ends the list. */
	const char *const *schemes;

	/*
	 * Take a URL's part behind "scheme://" apart, into DefElems of the
	 * options.  Raises an error that does not quote a secret.
	 */
	List	   *(*read_url) (const char *scheme, const char *rest);

	/*
	 * Would storages with these options take each other's records for their
	 * own?  Of two names for one place that is meant.
	 */
	bool		(*overlap) (List *options, List *others);

	/*
	 * Connect.  The store is zeroed but for its base; the present memory
	 * context is the store's.  There may be no transaction, here and in what
	 * follows.
	 */
	void		(*open) (SagazStore *store);

	/* Is the storage there?  An error if not. */
	void		(*ping) (SagazStore *store);

	/*
	 * What is wrong with it for records of a kind, though it answers: a list of
	 * SagazFault, looked for where reading and trying to write do not tell.
	 * Nothing is changed.
	 */
	List	   *(*examine) (SagazStore *store, SagazKind kind);

	/*
	 * How many events may wait in it, and how many do; 0: any number.  NULL
	 * where there is no such limit.
	 */
	int64		(*room) (SagazStore *store, int64 *waiting);

	/*
	 * As ping, for a storage that will be written to: what can be made is made,
	 * or, with only_looks, would be.
	 */
	void		(*make_ready) (SagazStore *store);

	/*
	 * What of the backend's capabilities this store has.  Where that depends
	 * on what is there, it is asked once, in a round trip.
	 */
	int			(*store_can) (SagazStore *store);

	/* Add what there is to say about it to an object; NULL: nothing. */
	void		(*describe) (SagazStore *store, JsonbParseState **state);

	/*
	 * Text that two stores have in common only if their records of the kind
	 * are in the same place.
	 */
	char	   *(*identity) (SagazStore *store, SagazKind kind);

	/*
	 * Text that stays the same as long as the store is the one that it was, over
	 * restarts too, and differs where another has come to its place, as far as
	 * that can be told.  known is what it was before; where it is NULL, something
	 * may be left in the store to know it by.
	 */
	char	   *(*origin) (SagazStore *store, const char *known);

	/* Why the store cannot hold a record; NULL if it is known of no reason. */
	char	   *(*unfit) (SagazStore *store, const SagazRecord *record);

	/*
	 * Put records, all or none; but of those that are missing, and of a
	 * thousand or more that are replaced, some may be there after an error.
	 * None of them has a problem.
	 */
	int64		(*put) (SagazStore *store, SagazRecord *records, int count,
						SagazPutMode mode);

	/*
	 * Call edit for each record that matches, and write what it says, all or
	 * nothing, and so that nobody else changes these records meanwhile.  Asked
	 * only of a store that takes edits.  With
	 * create, and a filter that has a key which is not there, edit is called
	 * with a record that has the key and nothing else.  Records that have a
	 * problem are passed over.  Returns how many were changed or removed.
	 */
	int64		(*edit) (SagazStore *store, SagazKind kind,
						 const SagazFilter *filter, bool create,
						 SagazEdit edit, void *arg);

	/*
	 * Make these records like ours; their keys differ.  New ones are put.  An
	 * event that is sent there stays, and so does one that somebody there has
	 * claimed, unless ours is sent or over_claims says so; everything else is
	 * replaced.  After an error some may be as ours, each of them whole.
	 */
	void		(*merge) (SagazStore *store, SagazRecord *records, int count,
						  bool over_claims, SagazMerged *merged);

	/*
	 * Let records go, so that the events among them are never handed out any
	 * more: removed, or finished where they cannot be.  Returns how many were
	 * there.
	 */
	int64		(*remove) (SagazStore *store, SagazKind kind,
						   const char *const *keys, int nkeys);

	/*
	 * Read what matches; the reader is zeroed but for its base.  next fills
	 * the record in the present memory context and returns false at the end.
	 * end is called on every path except after an error; what must not wait
	 * is tied to the reader's context.
	 */
	void		(*read_begin) (SagazReader *reader);
	bool		(*read_next) (SagazReader *reader, SagazRecord *record);
	void		(*read_end) (SagazReader *reader);

	/*
	 * Where the last record lies, for a reader that goes on from there.  NULL
	 * where there is no such thing.  Readers outlive transactions, but those
	 * of the native tables.
	 */
	char	   *(*read_position) (SagazReader *reader);

	/* How many match; exact. */
	int64		(*count) (SagazStore *store, SagazKind kind,
						  const SagazFilter *filter);

	/*
	 * Hand out events that may be claimed, oldest first, as claimed in that
	 * batch: a list of SagazRecord.  Two claims never get the same event.
	 */
	List	   *(*claim) (SagazStore *store, const SagazClaimOrder *order);

	/*
	 * The worker's batch is sent.  Returns how many events; 0 if no event is
	 * in it.  An error if another worker's are, and then nothing is changed.
	 */
	int			(*finish) (SagazStore *store, int64 batch_id,
						   const char *worker_id, TimestampTz now);

	/* Run a function at the other end; false if there is no sagaz. */
	bool		(*call) (SagazStore *store, const SagazCall *call);

	/* Add an entry for each event to the storage's stream, in this order. */
	void		(*publish) (SagazStore *store, SagazRecord *records, int count);

	/* The highest id that an entry of the stream ever had; 0-0 for none. */
	SagazStreamId (*stream_end) (SagazStore *store);

	/*
	 * Add entries with these ids, which only rise, if the stream's end is
	 * still "end"; false, and nothing is added, if it is not.  After an error
	 * the first so many may be there.
	 */
	bool		(*stream_append) (SagazStore *store, SagazStreamId end,
								  SagazRecord *records,
								  const SagazStreamId *ids, int count);

	/* Entries from one id to another, in order: a list of SagazStreamEntry. */
	List	   *(*stream_read) (SagazStore *store, SagazStreamId from,
								SagazStreamId to);
} SagazBackend;

/* each at the end of its own file; those that were left out are not there */
extern const SagazBackend sagaz_native_backend;
extern const SagazBackend sagaz_memory_backend;
extern const SagazBackend sagaz_sqlite_backend;
extern const SagazBackend sagaz_redis_backend;
extern const SagazBackend sagaz_postgresql_backend;

/* claim_by_edit.c: claims over edit, for backends that have no quicker way */
extern List *sagaz_claim_by_edit(SagazStore *store,
								 const SagazClaimOrder *order);
extern int	sagaz_finish_by_edit(SagazStore *store, int64 batch_id,
								 const char *worker_id, TimestampTz now);
extern void sagaz_claim_mark_claimed(SagazEvent *event, const SagazClaimOrder *order);
extern void sagaz_claim_mark_sent(SagazEvent *event, TimestampTz now);
extern void sagaz_check_claimed_by(const SagazEvent *event, int64 batch_id,
								   const char *worker_id);

/* merge.c: merging and removing over put and edit, for backends that have no
 * quicker way */
extern void sagaz_merge_by_edit(SagazStore *store, SagazRecord *records,
								int count, bool over_claims,
								SagazMerged *merged);
extern int64 sagaz_remove_matching(SagazStore *store, SagazKind kind,
								   const SagazFilter *filter);
extern int64 sagaz_remove_by_edit(SagazStore *store, SagazKind kind,
								  const char *const *keys, int nkeys);
extern bool sagaz_merge_keeps(const SagazRecord *there, const SagazRecord *ours,
							  bool over_claims);

#define SAGAZ_MERGES_BY_EDIT \
	.merge = sagaz_merge_by_edit, .remove = sagaz_remove_by_edit

/* store.c: what a backend has that has none of it */
extern bool sagaz_store_no_overlap(List *options, List *others);
extern const char *sagaz_store_find_option(const List *options, const char *name);
extern List *sagaz_store_no_faults(SagazStore *store, SagazKind kind);
extern char *sagaz_store_fits_all(SagazStore *store, const SagazRecord *record);
extern char *sagaz_store_fits_library(SagazStore *store, const SagazRecord *record);
extern int	sagaz_store_can_all(SagazStore *store);
extern int64 sagaz_store_no_edit(SagazStore *store, SagazKind kind,
								 const SagazFilter *filter, bool create,
								 SagazEdit edit, void *arg);
extern char *sagaz_store_origin_by_identity(SagazStore *store, const char *known);
extern char *sagaz_store_no_position(SagazReader *reader);
extern bool sagaz_store_no_call(SagazStore *store, const SagazCall *call);
extern void sagaz_store_no_publish(SagazStore *store, SagazRecord *records, int count);
extern SagazStreamId sagaz_store_no_stream_end(SagazStore *store);
extern bool sagaz_store_no_stream_append(SagazStore *store, SagazStreamId end,
										 SagazRecord *records,
										 const SagazStreamId *ids, int count);
extern List *sagaz_store_no_stream_read(SagazStore *store, SagazStreamId from,
										SagazStreamId to);

#define SAGAZ_CLAIMS_BY_EDIT \
	.claim = sagaz_claim_by_edit, .finish = sagaz_finish_by_edit
#define SAGAZ_WITHOUT_STREAMS \
	.publish = sagaz_store_no_publish, .stream_end = sagaz_store_no_stream_end, \
	.stream_append = sagaz_store_no_stream_append, .stream_read = sagaz_store_no_stream_read

struct SagazStore
{
	const SagazBackend *backend;
	MemoryContext context;
	char	   *name;			/* for messages: a storage's name, or its kind */
	Oid			owner;			/* role whose rights decide */
	bool		is_superusers;	/* who owns it, who uses it and whose session it is */
	bool		reads_files;	/* may its owner name files of this server? */
	bool		writes_files;
	char	   *user;			/* who uses it */
	List	   *options;		/* DefElem, checked */
	char	   *consumer_group; /* the group that its events are for */
	bool		broken;			/* close it; open it anew */
	bool		only_looks;		/* for now: what is written is undone, so make
								 * nothing that stays */
	int			readers;		/* that are open */
	bool		is_left;		/* goes with the last of them */
};

struct SagazReader
{
	SagazStore *store;
	MemoryContext context;		/* goes when the reader ends */
	SagazKind	kind;
	SagazFilter filter;
};

/* store.c: calls that check their arguments */
extern const char *sagaz_store_option(const SagazStore *store, const char *name);
extern void sagaz_store_close(SagazStore *store);
extern SagazReader *sagaz_store_read_begin(SagazStore *store, SagazKind kind,
										   const SagazFilter *filter);
extern void sagaz_store_read_end(SagazReader *reader);
extern void sagaz_store_check_library(SagazStore *store, const SagazRecord *records, int count);
extern int64 sagaz_store_edit(SagazStore *store, SagazKind kind, const SagazFilter *filter,
							  bool create, SagazEdit edit, void *arg);
extern int64 sagaz_store_count_by_reading(SagazStore *store, SagazKind kind,
										  const SagazFilter *filter);

/* socket_wait.c: for backends whose library has sockets */
extern TimestampTz sagaz_wait_deadline(int ms);
extern void sagaz_do_while_waiting(void (*work) (void *arg), void *arg);
extern int	sagaz_wait_for_socket(int socket, int events, TimestampTz deadline);

/* Fills the record in the present memory context; false at the end. */
static inline bool
sagaz_store_read_next(SagazReader *reader, SagazRecord *record)
{
	memset(record, 0, sizeof(SagazRecord));
	record->kind = reader->kind;
	return reader->store->backend->read_next(reader, record);
}

/* May be a round trip, the first time; see store_can. */
static inline bool
sagaz_store_can(SagazStore *store, int capability)
{
	return (store->backend->store_can(store) & capability) != 0;
}

/* All of a kind, and none with a problem; none at all asks nobody. */
static inline int64
sagaz_put(SagazStore *store, SagazRecord *records, int count, SagazPutMode mode)
{
	for (int i = 0; i < count; i++)
		Assert(records[i].problem == NULL && records[i].kind == records[0].kind);
	if (count == 0)
		return 0;
	if (sagaz_store_can(store, SAGAZ_LIBRARY_READS))
		sagaz_store_check_library(store, records, count);
	return store->backend->put(store, records, count, mode);
}

/* Only of a store that takes edits; create needs a key. */
static inline int64
sagaz_edit(SagazStore *store, SagazKind kind, const SagazFilter *filter,
		   bool create, SagazEdit edit, void *arg)
{
	Assert(!create || filter->key != NULL);
	return sagaz_store_can(store, SAGAZ_LIBRARY_READS) ?
		sagaz_store_edit(store, kind, filter, create, edit, arg) :
		store->backend->edit(store, kind, filter, create, edit, arg);
}

static inline int64
sagaz_count(SagazStore *store, SagazKind kind, const SagazFilter *filter)
{
	return store->backend->count(store, kind, filter);
}

#endif							/* SAGAZ_BACKEND_H */
