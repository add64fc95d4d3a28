/*
 * transfer.h
 *		What the files of transfer() and migrate() share.
 *
 * A transfer is a row of sagaz.transfer and, while it runs, a SagazTransfer.
 * It works in steps, each in a subtransaction of its own, and commits after
 * each, unless it runs in the caller's transaction.
 *
 * The folder moves records from any storage to any other, and follows a
 * source that changes meanwhile.  Words: a batch is read, sorted out, written
 * and noted; a record that cannot go is refused; a pass reads the whole
 * source once.  It calls src/storage and the interface of storages, and knows
 * no backend.
 */
#ifndef SAGAZ_TRANSFER_H
#define SAGAZ_TRANSFER_H

#include "backends/common/backend.h"
#include "backends/record/digest.h"
#include "storage/storage.h"

/*
 * Of contexts that are reset for each batch: the first block stays, as the
 * system is slow to give memory and to take it back.
 */
#define SAGAZ_BATCH_SIZES 0, 4 * 1024 * 1024, 8 * 1024 * 1024

typedef enum SagazOnError
{
	ON_ERROR_FAIL,
	ON_ERROR_SKIP,
	ON_ERROR_RETRY
} SagazOnError;

typedef enum SagazPhase
{
	PHASE_PREPARE,
	PHASE_COPY,
	PHASE_PASS,
	PHASE_VERIFY,
	PHASE_SWITCH,
	PHASE_DONE
} SagazPhase;

/* One of the two ends. */
typedef struct SagazSide
{
	const char *role;			/* "source" or "target" */
	char	   *name;			/* as given; may hold a secret */
	char	   *shown;			/* what may be seen of it */
	bool		is_native;
	SagazStorage storage;		/* of one that is not */
	char	   *layout;
} SagazSide;

/* A record that cannot be moved. */
typedef struct SagazRefusal
{
	const SagazRecord *record;
	char	   *message;
	int			sqlerrcode;
} SagazRefusal;

/* The records that come next. */
typedef struct SagazReadAhead
{
	MemoryContext context;
	SagazRecord *records;
	int			nread;
	bool		is_wanted;		/* while the present ones are written */
	bool		is_read;		/* these are waiting to be written */
	bool		failed;			/* to be read; the reader is of no use any more */
	bool		at_end;			/* there are no more */
	char	   *position;		/* up to where it is read; NULL: begin, or the
								 * reader knows */
	char	   *last_key;
} SagazReadAhead;

/* What sagaz.transfer counts. */
typedef struct SagazCounts
{
	int64		total;
	int64		processed;		/* of the source's records, in this pass */
	int64		transferred;
	int64		unchanged;
	int64		kept;
	int64		failed;
	int64		skipped;
	int64		removed;
} SagazCounts;

typedef struct SagazTransfer
{
	int64		id;
	bool		is_migration;
	SagazSide	source;
	SagazSide	target;
	char	   *type;			/* saga, outbox or both */
	int			batch_size;
	SagazOnError on_error;
	int			max_tries;		/* of one step, where that is to try again */
	int64		first_delay;	/* before the second of them, in us */
	bool		validate;
	bool		switches;
	bool		accepts_removals;	/* though most is gone from the source */
	char	   *origin;			/* what the source was when it began */

	bool		atomic;			/* in the caller's transaction */
	bool		runs;			/* and others see that in its row */
	bool		retries;		/* in retry_transfer_errors(): afterwards it has
								 * its state and error again */
	const char *state;			/* when it was loaded */
	char	   *error;
	bool		holds_commit;	/* for now, all is to be one transaction */
	SagazPhase	phase;
	SagazKind	kind;			/* what is being moved */
	bool		done[SAGAZ_EVENT + 1];	/* copied in the present pass */
	int			pass;
	SagazCounts counts;
	char	   *last_key;
	char	   *position;		/* up to where all is written; NULL: nothing is */
	char	   *next_position;	/* where the batch ends */
	char	   *verification;	/* JSON */
	char	   *complaint;		/* what it waits for */
	TimestampTz began_at;
	int64		elapsed_us;		/* of earlier runs */
	TimestampTz reported_at;
	int			attempts;		/* of what did not work, one after the other */
	int			delay;			/* until the next, in ms */
	bool		cancelled;
	int64		changes;		/* in the present pass */
	int64		known;			/* copied records of the kind, and those of them */
	int64		gone;			/* that the source has no more */
	int64		seen;			/* fit records of the kind, in the present pass */
	uint64		seen_keys;		/* hashes of their keys, by exclusive or */
	List	   *differing[SAGAZ_EVENT + 1]; /* keys, found by comparing */

	int64		totals[SAGAZ_EVENT + 1];
	SagazSide   *checked;		/* the one that validate_transfer() looks at */
	struct Findings *findings;	/* what it has found so far */
	MemoryContext context;

	/* transfer_copy.c: the records between two commits */
	MemoryContext batch;
	MemoryContext part;			/* while they are written */
	SagazReader *reader;		/* NULL: none, as between batches of the native tables */
	SagazStore *read_store;		/* of which it is a reader */
	SagazReadAhead	ahead;
	bool		at_end;			/* these are the last */
	SagazRecord *records;
	int			nrecords;
	int			nread;			/* with those that turned out to need nothing */
	int			from;			/* a range of them */
	int			to;
	SagazDigest *digests;		/* of a migration's records */
	List	   *refusals;		/* SagazRefusal */
} SagazTransfer;

extern const char *const sagaz_phase_words[];
extern const char *const sagaz_type_words[];

/* Is the transfer about records of that kind? */
static inline bool
sagaz_transfer_has(const SagazTransfer *transfer, SagazKind kind)
{
	return strcmp(transfer->type, "both") == 0 ||
		strcmp(transfer->type, sagaz_type_words[kind]) == 0;
}

/*
 * transfer.c.  The first allocates in the transfer's context; the others are
 * for sagaz_transfer_run(), and come back with the context of a step.
 */
extern void sagaz_transfer_look(SagazTransfer *transfer);
extern void sagaz_transfer_to_end(SagazTransfer *transfer);
extern void sagaz_transfer_retry(SagazTransfer *transfer);

/* transfer_end.c: the two storages */
extern void sagaz_end_find(SagazSide *end, const char *role, const char *name);
extern SagazStore *sagaz_end_open(SagazSide *end, SagazKind kind);
extern void sagaz_end_look(SagazSide *end, SagazKind kind);
extern bool sagaz_ends_are_same(SagazTransfer *transfer);
extern char *sagaz_end_origin(SagazTransfer *transfer);
extern void sagaz_end_check_origin(SagazTransfer *transfer);
extern void sagaz_end_check_held(SagazTransfer *transfer, int64 held, int64 holds);

/* transfer_row.c: the row in sagaz.transfer, and refused records */
extern void sagaz_transfer_insert(SagazTransfer *transfer);
extern SagazTransfer *sagaz_transfer_load(int64 id, MemoryContext context);
extern void sagaz_transfer_take(SagazTransfer *transfer);
extern void sagaz_transfer_save(SagazTransfer *transfer);
extern void sagaz_transfer_close(SagazTransfer *transfer, const char *state,
								 const char *error);
extern void sagaz_transfer_note_refused(SagazTransfer *transfer,
										const SagazRecord *record,
										const char *message, int sqlerrcode);
extern int64 sagaz_transfer_forget_refused(SagazTransfer *transfer,
										   SagazKind kind,
										   const char *const *keys, int nkeys);
extern List *sagaz_transfer_refused(SagazTransfer *transfer, SagazKind kind);
extern void sagaz_transfer_as_owner(const char *sql, int nargs, Oid *types,
									Datum *values, const char *nulls, int expected);

/* transfer_step.c: steps, commits, errors and waiting */
typedef void (*SagazStep) (SagazTransfer *transfer);
extern ErrorData *sagaz_transfer_attempt(SagazTransfer *transfer, SagazStep step);
extern void sagaz_transfer_insist(SagazTransfer *transfer, SagazStep step);
extern void sagaz_transfer_commit(SagazTransfer *transfer);
extern bool sagaz_transfer_is_about_record(const ErrorData *error);
extern void sagaz_transfer_wait(SagazTransfer *transfer, ErrorData *error);
extern void sagaz_transfer_give_up(SagazTransfer *transfer, ErrorData *error);
extern void sagaz_transfer_run(SagazTransfer *transfer, SagazStep run);

/* transfer_copy.c: batches from the source to the target */
extern void sagaz_copy_kind(SagazTransfer *transfer, SagazKind kind);
extern void sagaz_copy_batch(SagazTransfer *transfer);

/* transfer_verify.c: comparing both sides */
extern bool sagaz_transfer_verify(SagazTransfer *transfer);

/* switch_rights.c */
extern char *sagaz_switch_problem(const SagazTransfer *transfer);

/* migrate.c: a source that changes meanwhile */
extern void sagaz_copied_choose(SagazTransfer *transfer);
extern void sagaz_copied_forget(SagazTransfer *transfer, SagazKind kind,
								const char *const *keys, int nkeys);
extern void sagaz_copied_note(SagazTransfer *transfer);
extern void sagaz_migrate_run(SagazTransfer *transfer);

#endif							/* SAGAZ_TRANSFER_H */
