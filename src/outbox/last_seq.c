/*
 * last_seq.c
 *		The last number that a sequence has drawn, read off its page.
 */
#include "lib/sagaz.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_sequence.h"
#include "commands/sequence.h"
#include "storage/bufmgr.h"
#include "utils/syscache.h"

#include "outbox/place_number.h"

/*
 * The last number that a sequence of sagaz has drawn, 0 if none was.  The share
 * lock on the page keeps out the moment in which nextval shows the value it
 * logs ahead.
 */
int64
sagaz_sequence_last(const char *sequence)
{
	Relation	rel = relation_open(sagaz_relation_id(sequence), AccessShareLock);
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

/*
 * The last place drawn.  Read it before the next xid and before the snapshot,
 * never after.
 */
int64
sagaz_last_seq(void)
{
	return sagaz_sequence_last(SAGAZ_SEQUENCE);
}

/* A cached sequence would hand out numbers that were drawn long before. */
void
sagaz_check_seq_cache(void)
{
	HeapTuple	tuple = SearchSysCache1(SEQRELID,
										ObjectIdGetDatum(sagaz_relation_id(SAGAZ_SEQUENCE)));
	int64		cache;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for sequence %s", SAGAZ_SEQUENCE);
	cache = ((Form_pg_sequence) GETSTRUCT(tuple))->seqcache;
	ReleaseSysCache(tuple);
	if (cache != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_TRANSACTION),
				 errmsg("sequence \"%s.%s\" has a cache", SAGAZ_SCHEMA, SAGAZ_SEQUENCE),
				 errhint("Run ALTER SEQUENCE %s.%s CACHE 1.",
						 SAGAZ_SCHEMA, SAGAZ_SEQUENCE)));
}
