/*
 * cursor.h
 *		How far a consumer group has read a lane: rows of outbox_batch.
 */
#ifndef SAGAZ_CURSOR_H
#define SAGAZ_CURSOR_H

#include "nodes/pg_list.h"

#include "outbox/owed.h"
#include "lib/tuples.h"
#include "outbox/window.h"

typedef struct SagazCursor
{
	bool		found;			/* false: the group has not read the lane yet */
	int64		batch_id;
	TimestampTz claimed_at;
	int64		last_seq;		/* last place handed out in the window */
	SagazWindow window;
	List	   *owed;			/* of SagazOwed */
	int64		stream_ms;		/* only written: of the row's entries in a
								 * stream, 0 for none */
	bytea	   *stream_places;	/* and their events */
} SagazCursor;

extern void sagaz_cursor_read(int16 group_no, int16 lane, Snapshot snapshot,
							  SagazCursor *cursor);
extern SagazScan *sagaz_cursor_scan_batch(int16 group_no, int16 lane,
										  int64 batch_id, Snapshot snapshot);
extern List *sagaz_cursor_row_owed(TupleTableSlot *row);
extern bool sagaz_cursor_window(int16 group_no, int16 lane, int64 batch_id,
								Snapshot snapshot, SagazWindow *window);
extern bool sagaz_cursor_range_has(const SagazOwed *owed, int16 group_no,
								   int16 lane, uint64 pos, int64 seq,
								   const SagazCluster *cluster,
								   Snapshot snapshot);
extern bool sagaz_cursor_open_range(SagazOwed *owed, int16 group_no,
									int16 lane, Snapshot snapshot,
									SagazWindow *window);
extern void sagaz_cursor_write(SagazWriter *writer, int16 group_no, int16 lane,
							   const SagazCursor *row, int64 root, int events,
							   const char *worker_id);
extern void sagaz_cursor_skip_to_now(int16 group_no);
extern int64 sagaz_cursor_next_batch_id(int16 group_no);

#endif							/* SAGAZ_CURSOR_H */
