/*
 * id_spool.c
 *		Ids in order, as many as there may be.
 *
 * For a store that yields the ids of its records in any order, and some of
 * them twice.  They are sorted, by a time and then bytewise, in bounded
 * memory, and kept in a temporary file that outlives the transaction and goes
 * with the memory context.
 */
#include "backends/common/id_spool.h"

#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/buffile.h"
#include "utils/memutils.h"
#include "utils/tuplesort.h"
#include "utils/typcache.h"

struct IdSpool
{
	Tuplesortstate *sort;
	TupleTableSlot *slot;		/* what goes into the sort */
	MemoryContext part;
	BufFile    *file;			/* the sorted ids, each after its length */
	int64		count;
	int64		next;
	MemoryContextCallback close;
};

static TupleDesc
spool_columns(void)
{
	TupleDesc	columns = CreateTemplateTupleDesc(2);

	TupleDescInitEntry(columns, 1, "time", INT8OID, -1, 0);
	TupleDescInitEntry(columns, 2, "id", BYTEAOID, -1, 0);
	return columns;
}

static void
close_spool_file(void *arg)
{
	IdSpool    *spool = arg;

	if (spool->file)
		BufFileClose(spool->file);
}

/* In the present memory context, which should not be reset before the end. */
IdSpool *
id_spool_begin(void)
{
	AttrNumber	columns[] = {1, 2};
	Oid			less[] = {
		lookup_type_cache(INT8OID, TYPECACHE_LT_OPR)->lt_opr,
		lookup_type_cache(BYTEAOID, TYPECACHE_LT_OPR)->lt_opr
	};
	Oid			collations[] = {InvalidOid, InvalidOid};
	bool		nulls_first[] = {false, false};
	IdSpool    *spool = palloc0(sizeof(IdSpool));
	TupleDesc	types = spool_columns();

	spool->sort = tuplesort_begin_heap(types, lengthof(columns), columns, less, collations,
									   nulls_first, work_mem, NULL, 0);
	spool->slot = MakeSingleTupleTableSlot(types, &TTSOpsMinimalTuple);
	spool->part = AllocSetContextCreate(CurrentMemoryContext, "sagaz id",
										ALLOCSET_SMALL_SIZES);
	spool->close.func = close_spool_file;
	spool->close.arg = spool;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &spool->close);
	return spool;
}

/* Add an id; of those that are added more than once, one stays. */
void
id_spool_add(IdSpool *spool, TimestampTz time, const char *bytes, size_t length)
{
	MemoryContext outer = MemoryContextSwitchTo(spool->part);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(spool->slot->tts_tupleDescriptor,
													&TTSOpsVirtual);
	bytea	   *id = palloc(VARHDRSZ + length);

	SET_VARSIZE(id, VARHDRSZ + length);
	memcpy(VARDATA(id), bytes, length);
	slot->tts_values[0] = Int64GetDatum(time);
	slot->tts_values[1] = PointerGetDatum(id);
	slot->tts_isnull[0] = slot->tts_isnull[1] = false;
	ExecStoreVirtualTuple(slot);
	tuplesort_puttupleslot(spool->sort, slot);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextSwitchTo(outer);
	MemoryContextReset(spool->part);
}

static void
write_id(IdSpool *spool, bytea *id)
{
	uint32		length = VARSIZE_ANY_EXHDR(id);

	BufFileWrite(spool->file, &length, sizeof(length));
	BufFileWrite(spool->file, VARDATA_ANY(id), length);
	spool->count++;
}

static bool
same_id(bytea *a, bytea *b)
{
	return a != NULL && VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* All are added: put them in order. */
void
id_spool_sort(IdSpool *spool)
{
	MemoryContext last_context = AllocSetContextCreate(CurrentMemoryContext,
													   "sagaz last id", ALLOCSET_SMALL_SIZES);
	bytea	   *last = NULL;

	spool->file = BufFileCreateTemp(true);
	tuplesort_performsort(spool->sort);
	while (tuplesort_gettupleslot(spool->sort, true, false, spool->slot, NULL))
	{
		bytea	   *id;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(spool->slot);
		id = (bytea *) DatumGetPointer(spool->slot->tts_values[1]);
		if (same_id(last, id))
			continue;
		write_id(spool, id);
		MemoryContextReset(last_context);
		last = memcpy(MemoryContextAlloc(last_context, VARSIZE_ANY(id)), id, VARSIZE_ANY(id));
	}
	MemoryContextDelete(last_context);
	ExecDropSingleTupleTableSlot(spool->slot);
	tuplesort_end(spool->sort);
	if (BufFileSeek(spool->file, 0, 0, SEEK_SET) != 0)
		elog(ERROR, "could not rewind a temporary file");
}

static void
read_spool_exactly(BufFile *file, void *place, size_t size)
{
	if (BufFileRead(file, place, size) != size)
		elog(ERROR, "could not read a temporary file");
}

/* The next id, with a zero byte behind it, or NULL at the end. */
char *
id_spool_next(IdSpool *spool, size_t *length)
{
	uint32		stored;
	char	   *id;

	if (spool->next >= spool->count)
		return NULL;
	read_spool_exactly(spool->file, &stored, sizeof(stored));
	id = palloc(stored + 1);
	read_spool_exactly(spool->file, id, stored);
	id[stored] = '\0';
	spool->next++;
	*length = stored;
	return id;
}
