/*
 * redis_read.c
 *		Reading records, the same for sagas and events.
 *
 * Redis has no order by time: where one is asked for, all that match are
 * read, and no more are kept than are wanted.
 */
#include "backends/redis/redis.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "backends/record/record.h"

/* The next record that matches, in the present memory context. */
static bool
read_next_match(RedisScan *scan, const RedisKind *kind, const SagazFilter *filter,
				bool stamped, RedisFound *found)
{
	RedisReply *reply;
	const RedisId *id;

	while ((id = redis_scan_next(scan, &reply)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		memset(found, 0, sizeof(RedisFound));
		found->record.kind = kind->kind;
		found->stamped = stamped;
		if (!kind->read(id, reply, found))
			continue;
		sagaz_record_check(&found->record);
		if (sagaz_filter_matches(filter, &found->record))
			return true;
	}
	return false;
}

static int
redis_oldest_first(const ListCell *a, const ListCell *b)
{
	return sagaz_filter_compare(&((RedisFound *) lfirst(a))->record,
								&((RedisFound *) lfirst(b))->record,
								SAGAZ_OLDEST_FIRST);
}

static int
redis_newest_first(const ListCell *a, const ListCell *b)
{
	return sagaz_filter_compare(&((RedisFound *) lfirst(a))->record,
								&((RedisFound *) lfirst(b))->record,
								SAGAZ_NEWEST_FIRST);
}

static RedisFound *
copy_redis_found(const RedisFound *found)
{
	RedisFound *copy = palloc(sizeof(RedisFound));

	sagaz_record_copy(&found->record, &copy->record);
	copy->stamp = found->stamp ? pstrdup(found->stamp) : NULL;
	return copy;
}

/* Sort them, and drop those beyond the limit with their memory. */
static List *
sort_and_cut_redis(List *list, const SagazFilter *filter, MemoryContext *kept)
{
	MemoryContext old = *kept;
	MemoryContext outer;
	List	   *cut = NIL;

	list_sort(list, filter->order == SAGAZ_NEWEST_FIRST ? redis_newest_first : redis_oldest_first);
	if (filter->limit == 0 || list_length(list) <= filter->limit)
		return list;
	*kept = AllocSetContextCreate(MemoryContextGetParent(old),
								  "sagaz redis records", ALLOCSET_DEFAULT_SIZES);
	outer = MemoryContextSwitchTo(*kept);
	for (int i = 0; i < filter->limit; i++)
		cut = lappend(cut, copy_redis_found(list_nth(list, i)));
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(old);
	return cut;
}

static List *
find_redis_sorted(RedisStore *store, const RedisKind *kind, const SagazFilter *filter,
				  bool stamped, MemoryContext *kept)
{
	RedisScan  *scan = kind->scan(store, filter);
	MemoryContext part = AllocSetContextCreate(CurrentMemoryContext,
											   "sagaz redis record", ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(part);
	RedisFound	found;
	List	   *list = NIL;

	while (read_next_match(scan, kind, filter, stamped, &found))
	{
		MemoryContextSwitchTo(*kept);
		list = lappend(list, copy_redis_found(&found));
		if (filter->limit > 0 && list_length(list) >= 2 * filter->limit + 1000)
			list = sort_and_cut_redis(list, filter, kept);
		MemoryContextSwitchTo(part);
		MemoryContextReset(part);
	}
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(part);
	return sort_and_cut_redis(list, filter, kept);
}

static bool
redis_reads_by_time(const SagazFilter *filter)
{
	return filter->order == SAGAZ_OLDEST_FIRST || filter->order == SAGAZ_NEWEST_FIRST;
}

/* All that matches, to be edited: a list of RedisFound. */
List *
redis_find(RedisStore *store, const RedisKind *kind, const SagazFilter *filter)
{
	MemoryContext kept = AllocSetContextCreate(CurrentMemoryContext,
											   "sagaz redis records", ALLOCSET_DEFAULT_SIZES);
	RedisScan  *scan;
	RedisFound	found;
	List	   *list = NIL;

	if (redis_reads_by_time(filter))
		return find_redis_sorted(store, kind, filter, true, &kept);
	scan = kind->scan(store, filter);
	while ((filter->limit == 0 || list_length(list) < filter->limit) &&
		   read_next_match(scan, kind, filter, true, &found))
		list = lappend(list, memcpy(palloc(sizeof(RedisFound)), &found,
									sizeof(RedisFound)));
	return list;
}

/*
 * Where an order by time is asked for, all that matches is read now, into
 * memory of the reader; else a page at a time, from ids that are in a spool
 * of theirs.
 */
void
redis_read_begin(SagazReader *base, const RedisKind *kind)
{
	RedisReader *reader = (RedisReader *) base;
	RedisStore *store = (RedisStore *) base->store;

	reader->kind = kind;
	redis_ready(store);
	if (redis_reads_by_time(&base->filter))
	{
		reader->kept = AllocSetContextCreate(base->context, "sagaz redis records",
											 ALLOCSET_DEFAULT_SIZES);
		reader->sorted = find_redis_sorted(store, kind, &base->filter, false,
										   &reader->kept);
	}
	else
		reader->scan = kind->scan(store, &base->filter);
	if (base->filter.order == SAGAZ_FOR_COPY)
		redis_scan_read_ahead(reader->scan);
}

bool
redis_read_next(SagazReader *base, SagazRecord *record)
{
	RedisReader *reader = (RedisReader *) base;
	RedisFound	found;

	if (base->filter.limit > 0 && reader->count >= base->filter.limit)
		return false;
	if (reader->scan)
	{
		if (!read_next_match(reader->scan, reader->kind, &base->filter, false, &found))
			return false;
		*record = found.record;
	}
	else
	{
		if (reader->count >= list_length(reader->sorted))
			return false;
		sagaz_record_copy(&((RedisFound *) list_nth(reader->sorted, reader->count))->record,
						  record);
	}
	reader->count++;
	return true;
}

void
redis_read_end(SagazReader *base)
{
}
