/*
 * seq.c
 *		Places in the outbox log: lane and sequence number of an event.
 *
 * Every claim relies on one rule: a transaction has its xid before it draws
 * a sequence number.  Then whoever reads the last number drawn, and after it
 * the next xid, knows that the owner of each number up to the first lies
 * below the second.
 */
#include "lib/sagaz.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_sequence.h"
#include "commands/sequence.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "outbox/cluster.h"
#include "outbox/place_number.h"
#include "wakeup/wake.h"

#define SEQUENCE_NAME "outbox_seq"

PG_FUNCTION_INFO_V1(sagaz_next_seq);
PG_FUNCTION_INFO_V1(sagaz_lane);

/* Draw the next number for an event that this transaction inserts. */
int64
sagaz_draw_seq(void)
{
	int64		seq;

	(void) GetTopTransactionId();
	sagaz_note_first_use();
	seq = nextval_internal(sagaz_relation_id(SEQUENCE_NAME), false);
	sagaz_wake_at_commit();
	return seq;
}

Datum
sagaz_next_seq(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(sagaz_draw_seq());
}


/*
 * The last number drawn, 0 if none was.  The share lock on the page keeps
 * out the moment in which nextval shows the value it logs ahead.
 */
int64
sagaz_last_seq(void)
{
	Relation	rel = relation_open(sagaz_relation_id(SEQUENCE_NAME),
									AccessShareLock);
	Buffer		buffer;
	Page		page;
	ItemId		item;
	HeapTupleHeader header;
	Form_pg_sequence_data data;
	int64		last;

	buffer = ReadBuffer(rel, 0);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	item = PageGetItemId(page, FirstOffsetNumber);
	header = (HeapTupleHeader) PageGetItem(page, item);
	data = (Form_pg_sequence_data) ((char *) header + header->t_hoff);
	last = data->is_called ? data->last_value : 0;
	UnlockReleaseBuffer(buffer);
	relation_close(rel, AccessShareLock);
	return last;
}

/* A cached sequence would hand out numbers that were drawn long before. */
void
sagaz_check_sequence_cache(void)
{
	HeapTuple	tuple = SearchSysCache1(SEQRELID,
										ObjectIdGetDatum(sagaz_relation_id(SEQUENCE_NAME)));
	int64		cache;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for sequence %s", SEQUENCE_NAME);
	cache = ((Form_pg_sequence) GETSTRUCT(tuple))->seqcache;
	ReleaseSysCache(tuple);
	if (cache != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_TRANSACTION),
				 errmsg("sequence \"%s.%s\" has a cache", SAGAZ_SCHEMA, SEQUENCE_NAME),
				 errhint("Run ALTER SEQUENCE %s.%s CACHE 1.",
						 SAGAZ_SCHEMA, SEQUENCE_NAME)));
}

/*
 * FNV-1a, folded: it is part of the stored data, so it must never change,
 * not with the server's version nor with the platform.
 */
int16
sagaz_lane_of(const char *saga_id, int length)
{
	uint32		hash = 2166136261u;

	for (int i = 0; i < length; i++)
		hash = (hash ^ (unsigned char) saga_id[i]) * 16777619u;
	hash ^= hash >> 16;
	return (int16) (hash % SAGAZ_LANES);
}

Datum
sagaz_lane(PG_FUNCTION_ARGS)
{
	text	   *saga_id;

	if (PG_ARGISNULL(0) ||
		VARSIZE_ANY_EXHDR(saga_id = PG_GETARG_TEXT_PP(0)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("saga_id must not be %s",
						PG_ARGISNULL(0) ? "null" : "empty")));
	PG_RETURN_INT16(sagaz_lane_of(VARDATA_ANY(saga_id),
								  VARSIZE_ANY_EXHDR(saga_id)));
}
