/*
 * tuples.h
 *		Reading and writing rows of the extension's own tables without SPI.
 *
 * A writer keeps a table and its indexes open for any number of rows; a scan
 * walks one index of one table.  Both are closed by their end calls, or by
 * the end of the transaction.
 */
#ifndef SAGAZ_TUPLES_H
#define SAGAZ_TUPLES_H

#include "access/genam.h"
#include "access/relscan.h"
#include "access/skey.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/builtins.h"
#include "utils/snapshot.h"

/* So many rows fit into the queue of a writer. */
#define SAGAZ_WRITER_QUEUE 200

typedef struct SagazWriter
{
	Relation	rel;
	TupleTableSlot *slot;		/* the next row, see sagaz_writer_row() */
	EState	   *estate;
	ResultRelInfo *result_rel;
	MemoryContext context;		/* of the queue's slots */
	int			queued;			/* rows in the queue */
	TupleTableSlot *queue[SAGAZ_WRITER_QUEUE];
} SagazWriter;

/* writer.c */
extern SagazWriter *sagaz_writer_begin(const char *table);
extern void sagaz_writer_row(SagazWriter *writer);
extern void sagaz_writer_set(SagazWriter *writer, int attnum, Datum value);
extern void sagaz_writer_clear(SagazWriter *writer, int attnum);
extern void sagaz_writer_copy(SagazWriter *writer, TupleTableSlot *old);
extern void sagaz_writer_insert(SagazWriter *writer);
extern void sagaz_writer_queue(SagazWriter *writer);
extern void sagaz_writer_flush(SagazWriter *writer);
extern void sagaz_writer_update(SagazWriter *writer, TupleTableSlot *old,
								Snapshot snapshot);
extern bool sagaz_writer_try_insert(SagazWriter *writer);
extern TM_Result sagaz_writer_try_update(SagazWriter *writer, ItemPointer tid,
										 Snapshot snapshot);
extern TM_Result sagaz_writer_try_delete(SagazWriter *writer, ItemPointer tid,
										 Snapshot snapshot);
extern void sagaz_writer_end(SagazWriter *writer);

typedef struct SagazScan
{
	Relation	rel;
	Relation	index;
	IndexScanDesc scan;
	ScanDirection direction;
	TupleTableSlot *slot;		/* the present row, all columns deformed */
} SagazScan;

/* scan.c */
extern SagazScan *sagaz_scan_begin(const char *table, const char *index,
								   Snapshot snapshot, ScanKey keys, int nkeys,
								   ScanDirection direction);
extern void sagaz_scan_again(SagazScan *scan, ScanKey keys, int nkeys);
extern bool sagaz_scan_next(SagazScan *scan);
extern TupleTableSlot *sagaz_scan_probe(SagazScan **scan, const char *table,
										const char *index, Snapshot snapshot,
										ScanKey keys, int nkeys);
extern void sagaz_scan_end(SagazScan *scan);

/* A column of a deformed row; attnum counts from 1. */
static inline Datum
sagaz_column(TupleTableSlot *slot, int attnum)
{
	return slot->tts_values[attnum - 1];
}

static inline bool
sagaz_column_is_null(TupleTableSlot *slot, int attnum)
{
	return slot->tts_isnull[attnum - 1];
}

/* A text column as a C string, or NULL. */
static inline char *
sagaz_column_text(TupleTableSlot *slot, int attnum)
{
	return sagaz_column_is_null(slot, attnum) ? NULL :
		TextDatumGetCString(sagaz_column(slot, attnum));
}

/* key.c */
extern void sagaz_key_int2(ScanKey key, int attnum, int strategy, int16 value);
extern void sagaz_key_int8(ScanKey key, int attnum, int strategy, int64 value);
extern void sagaz_key_xid8(ScanKey key, int attnum, int strategy, uint64 value);
extern void sagaz_key_time(ScanKey key, int attnum, int strategy, int64 value);
extern void sagaz_key_uuid(ScanKey key, int attnum, Datum value);
extern void sagaz_key_text(ScanKey key, int attnum, Datum value);

#endif							/* SAGAZ_TUPLES_H */
