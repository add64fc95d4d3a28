/*
 * native_store.h
 *		What the files of the native backend share.
 *
 * The folder makes the native tables one storage among others, for copies.
 * It is the one backend that knows the engine: it reads and writes its rows
 * through src/saga, src/outbox and src/status.  A reader here lasts no longer
 * than its transaction.
 */
#ifndef SAGAZ_NATIVE_STORE_H
#define SAGAZ_NATIVE_STORE_H

#include "lib/stringinfo.h"
#include "utils/uuid.h"

#include "backends/common/backend.h"

#include "status/event_scan.h"
#include "saga/saga.h"

/* What is to be done with records, and what was. */
typedef struct NativePut
{
	SagazStore *store;
	SagazPutMode mode;
	bool		over_claims;
	bool		is_merge;		/* the records are another storage's */
	SagazMerged merged;
} NativePut;

typedef struct NativeReader
{
	SagazReader base;
	Snapshot	snapshot;
	int64		count;

	const char *const *keys;	/* of the sagas to read, if not all in a row */
	int			nkeys;
	int			next_key;
	SagazScan  *sagas;
	SagazScan  *steps;
	bool		has_step;		/* the scan of steps has come to one */

	SagazStates *states;
	SagazEventScan *events;		/* those of some ids, saga or statuses */
	int16		lane;			/* SAGAZ_LANES: the archive */
	SagazScan  *rows;			/* of the lane, or of the archive; by key: of
								 * the whole log */
	SagazScan  *archive;		/* by key: beside it */
	bool		has_row;
	bool		has_archived;

	/* where the last record lies */
	StringInfoData last_key;	/* a saga's */
	int16		last_lane;
	int64		last_seq;
	pg_uuid_t	last_id;		/* in the archive */
} NativeReader;

/* native_read.c */
extern void native_read_begin(SagazReader *reader);
extern bool native_read_next(SagazReader *reader, SagazRecord *record);
extern void native_read_end(SagazReader *reader);
extern char *native_read_position(SagazReader *reader);

/* native_record.c: rows as records */
extern void native_saga_of_row(const SagaRow *row, const SagaSteps *steps,
							   SagazSaga *saga);
extern void native_event_of(const SagazStates *states,
							const SagazFoundEvent *found, SagazEvent *event);
extern bool native_event_same(const SagazEvent *a, const SagazEvent *b);
extern void native_refuse_twin(const SagazRecord *record);

/* native_saga.c */
extern void native_put_sagas(NativePut *put, SagazRecord *records, int count);
extern int64 native_remove_sagas(const char *const *keys, int nkeys);

/* native_event.c: events that are new, and telling which are */
extern void native_put_events(NativePut *put, SagazRecord *records, int count);
extern int64 native_remove_events(SagazStore *store, const char *const *keys,
								  int nkeys);
extern Datum native_uuid(const char *event_id);

/* native_change.c: events of the log */
typedef enum NativeOutcome
{
	NATIVE_CHANGED,
	NATIVE_KEPT,
	NATIVE_GONE					/* from the log, meanwhile */
} NativeOutcome;

extern NativeOutcome native_change_event(NativePut *put,
										 const SagazRecord *record,
										 Datum event_id);
extern void native_finish_event(SagazStore *store, Datum event_id);
extern bool native_is_plain(const SagazEvent *event);
extern void native_set_time(SagazWriter *row, int attnum, TimestampTz time);
extern void native_set_text(SagazWriter *row, int attnum, const char *text);
extern void native_set_content(SagazWriter *row, const SagazEvent *event);
extern void native_set_retry(SagazWriter *row, const SagazEvent *event,
							 TimestampTz now, int64 batch_id);
extern int64 native_make_batch(const SagazGroup *group, const int *events,
							   TimestampTz claimed_at);

#endif							/* SAGAZ_NATIVE_STORE_H */
