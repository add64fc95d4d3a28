/*
 * redis_saga.c
 *		Sagas in Redis, as the Python library keeps them.
 *
 * A saga is a hash <prefix><saga_id> whose field "data" is JSON; the sets
 * <prefix>index:status:<status> and <prefix>index:name:<name> hold the ids.
 * The library only adds to them, here they are kept exact.  The version is a
 * second field of the hash, which the library passes over, so that it goes
 * and expires with the saga; with it is the time of the save it counts, which
 * tells a save by the library.
 *
 * Who changes sagas watches their keys, reads them and writes in one
 * MULTI/EXEC, which the server refuses if somebody was faster; then all is
 * done again.
 */
#include "backends/redis/redis.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "backends/record/record.h"
#include "lib/times.h"
#include "lib/words.h"

#define VERSION_FIELD "sagaz:version"
#define SAGA_WORDS 8			/* statuses of sagas */
/* A set is looked for among so many commands. */
#define LATEST_COMMANDS 16
/* So many sagas are sent while the next are put into words. */
#define PART_SAGAS 100
/* So many are written at once: the server looks at each watched key for each. */
#define MAX_WATCHED 1000

static const char *const count_saga[] = {"HEXISTS", "data", NULL};
static const char *const fetch_saga[] = {"HMGET", "data", VERSION_FIELD, NULL};

/* A saga's place in the indexes, in UTF-8; of none, NULL. */
typedef struct RedisPlace
{
	const char *status;
	const char *name;
} RedisPlace;

/*
 * Changes of the indexes, in as few commands as there are sets: a saga is
 * taken out of each status that it does not have.
 */
typedef struct RedisIndexing
{
	RedisCommand *removals[SAGA_WORDS];
	List	   *others;			/* RedisCommand */
} RedisIndexing;

/* What is to be written; without a saga it is removed. */
typedef struct RedisSave
{
	const char *saga_id;
	const SagazSaga *saga;
	RedisPlace	before;
} RedisSave;

static char *
saga_key(const RedisStore *store, const char *utf8_id)
{
	return psprintf("%s%s", store->saga_prefix, utf8_id);
}

/* ---------------------------------------------------------------------- */
/* Reading */

static RedisScan *
redis_saga_scan(RedisStore *store, const SagazFilter *filter)
{
	RedisScan  *scan = redis_scan_begin(store, store->saga_prefix, fetch_saga);

	if (filter->key)
		redis_scan_add_text(scan, filter->key);
	else if (filter->nkeys > 0)
		for (int i = 0; i < filter->nkeys; i++)
			redis_scan_add_text(scan, filter->keys[i]);
	else if (filter->nstatuses > 0)
		for (int i = 0; i < filter->nstatuses; i++)
			redis_scan_members(scan, psprintf("%sindex:status:%s", store->saga_prefix,
											  redis_utf8(filter->statuses[i])));
	else
		redis_scan_all(scan, NULL);
	if (filter->order == SAGAZ_BY_KEY)
		redis_scan_sort(scan);
	return scan;
}

/* The version that was counted, one more if the library saved since. */
static int64
read_saga_version(const RedisReply *field, TimestampTz updated_at)
{
	char		updated[SAGAZ_TIME_SIZE];
	char	   *end;
	int64		version;

	if (field->type != REDIS_STRING)
		return 1;
	version = Max(strtoll(field->str, &end, 10), 1);
	(void) sagaz_format_time(sagaz_real_time(updated_at), updated);
	return *end == ' ' && strcmp(end + 1, updated) == 0 ? version : version + 1;
}

static void
read_saga_data(const RedisReply *data, SagazRecord *record)
{
	char	   *text = sagaz_field_text(data->str, data->length, "data", record);
	Jsonb	   *json = sagaz_field_json(text, "data", record);

	if (json)
		sagaz_record_from_json(SAGAZ_SAGA, json, record);
}

static bool
redis_saga_read(const RedisId *id, const RedisReply *reply, RedisFound *found)
{
	SagazRecord *record = &found->record;
	SagazRecord key = {.kind = SAGAZ_SAGA};

	/* no such key, or no hash of ours */
	if (reply->count != 2 || reply->elements[0]->type == REDIS_NIL)
		return false;
	if (reply->elements[0]->type == REDIS_STRING)
		read_saga_data(reply->elements[0], record);
	else
		sagaz_field_complain(record, "data is not text");
	record->saga.saga_id = sagaz_field_text(id->bytes, id->length, "saga_id", &key);
	if (key.problem && record->problem == NULL)
		record->problem = key.problem;
	if (record->problem == NULL)
		record->saga.version = read_saga_version(reply->elements[1],
												 record->saga.updated_at);
	return true;
}

/* ---------------------------------------------------------------------- */
/* Writing */

static char *
saga_data(const SagazSaga *saga)
{
	StringInfoData data;

	initStringInfo(&data);
	appendStringInfoString(&data, "{\"saga_id\": ");
	redis_append_json_string(&data, saga->saga_id);
	appendStringInfoString(&data, ", \"saga_name\": ");
	redis_append_json_string(&data, saga->saga_name);
	appendStringInfoString(&data, ", \"status\": ");
	redis_append_json_string(&data, saga->status);
	appendStringInfoString(&data, ", \"steps\": ");
	redis_append_json(&data, saga->steps);
	appendStringInfoString(&data, ", \"context\": ");
	redis_append_json(&data, saga->context);
	appendStringInfoString(&data, ", \"metadata\": ");
	redis_append_json(&data, saga->metadata);
	appendStringInfoString(&data, ", \"created_at\": ");
	redis_append_json_time(&data, saga->created_at);
	appendStringInfoString(&data, ", \"updated_at\": ");
	redis_append_json_time(&data, saga->updated_at);
	appendStringInfoChar(&data, '}');
	return data.data;
}

static char *
saga_version(const SagazSaga *saga)
{
	char		updated[SAGAZ_TIME_SIZE];

	(void) sagaz_format_time(sagaz_real_time(saga->updated_at), updated);
	return psprintf(INT64_FORMAT " %s", Max(saga->version, 1), updated);
}

static char *
saga_status_index(const RedisStore *store, const char *status)
{
	return psprintf("%sindex:status:%s", store->saga_prefix, status);
}

static char *
saga_name_index(const RedisStore *store, const char *name)
{
	return psprintf("%sindex:name:%s", store->saga_prefix, name);
}

/* Add an id to a command on a set. */
static void
add_saga_indexing(RedisIndexing *indexing, const char *name, char *set, const char *id)
{
	int			count = list_length(indexing->others);
	RedisCommand *command;

	for (int i = count - 1; i >= Max(count - LATEST_COMMANDS, 0); i--)
	{
		command = list_nth(indexing->others, i);
		if (strcmp(command->words[0], name) == 0 && strcmp(command->words[1], set) == 0)
		{
			redis_add(command, id);
			return;
		}
	}
	command = redis_command(name);
	redis_add(command, set);
	redis_add(command, id);
	indexing->others = lappend(indexing->others, command);
}

/* Take the id out of every index where it is or may have been left. */
static void
unindex_saga(RedisStore *store, RedisIndexing *indexing, const RedisSave *save,
			 const char *id, const char *status, const char *name)
{
	for (int i = 0; sagaz_saga_words[i]; i++)
	{
		if (status && strcmp(sagaz_saga_words[i], status) == 0)
			continue;
		Assert(i < SAGA_WORDS);
		if (indexing->removals[i] == NULL)
		{
			indexing->removals[i] = redis_command("SREM");
			redis_add(indexing->removals[i], saga_status_index(store, sagaz_saga_words[i]));
		}
		redis_add(indexing->removals[i], id);
	}
	if (save->before.status && (status == NULL || strcmp(save->before.status, status) != 0))
		add_saga_indexing(indexing, "SREM", saga_status_index(store, save->before.status), id);
	if (save->before.name && (name == NULL || strcmp(save->before.name, name) != 0))
		add_saga_indexing(indexing, "SREM", saga_name_index(store, save->before.name), id);
}

static void
queue_saga_indexing(RedisStore *store, RedisIndexing *indexing)
{
	ListCell   *cell;

	for (int i = 0; i < SAGA_WORDS; i++)
		if (indexing->removals[i])
			redis_queue(store, indexing->removals[i]);
	foreach(cell, indexing->others)
		redis_queue(store, lfirst(cell));
	memset(indexing, 0, sizeof(RedisIndexing));
}

static void
queue_saga_removal(RedisStore *store, RedisIndexing *indexing, const RedisSave *save)
{
	char	   *id = redis_utf8(save->saga_id);

	redis_queue_words(store, "DEL", saga_key(store, id), NULL);
	unindex_saga(store, indexing, save, id, NULL, NULL);
}

static bool
saga_is_finished(const char *status)
{
	return strcmp(status, "completed") == 0 || strcmp(status, "rolled_back") == 0;
}

static void
queue_saga_save(RedisStore *store, RedisIndexing *indexing, const RedisSave *save)
{
	const SagazSaga *saga = save->saga;
	char	   *id = redis_utf8(saga->saga_id);
	char	   *key = saga_key(store, id);
	char	   *status = redis_utf8(saga->status);
	char	   *name = redis_utf8(saga->saga_name);

	redis_queue_words(store, "HSET", key, "data", saga_data(saga),
					  VERSION_FIELD, saga_version(saga), NULL);
	unindex_saga(store, indexing, save, id, status, name);
	add_saga_indexing(indexing, "SADD", saga_status_index(store, status), id);
	add_saga_indexing(indexing, "SADD", saga_name_index(store, name), id);
	if (!saga_is_finished(saga->status))
		redis_queue_words(store, "PERSIST", key, NULL);
	else if (store->saga_ttl > 0)
		redis_queue_words(store, "EXPIRE", key,
						  psprintf(INT64_FORMAT, store->saga_ttl), NULL);
}

static RedisCommand *
make_set_check(char *set)
{
	RedisCommand *command = redis_command("SCARD");

	redis_add(command, set);
	return command;
}

/*
 * Watch them from the next exchange on, and nothing else any more.  With it the
 * sets of statuses are looked at: a transaction of the server that meets a key
 * of another type is not undone, so that must come out before.
 */
static void
watch_sagas(RedisStore *store, RedisCommand *keys)
{
	redis_queue_ahead(store, redis_command("UNWATCH"));
	if (keys->count == 1)
		return;
	redis_queue_ahead(store, keys);
	for (int i = 0; sagaz_saga_words[i]; i++)
		redis_queue_ahead(store, make_set_check(saga_status_index(store, sagaz_saga_words[i])));
}

/* The same for the sets of the names that sagas get. */
static void
queue_name_checks(RedisStore *store, List *saves)
{
	const char *last = NULL;
	ListCell   *cell;

	foreach(cell, saves)
	{
		RedisSave  *save = lfirst(cell);
		char	   *name = save->saga ? redis_utf8(save->saga->saga_name) : NULL;

		if (name == NULL || (last && strcmp(last, name) == 0) ||
			(save->before.name && strcmp(save->before.name, name) == 0))
			continue;
		last = name;
		redis_queue(store, make_set_check(saga_name_index(store, name)));
	}
}

/*
 * From here on the server keeps what it is told, until EXEC.  It has said so
 * before it is told anything: who is refused MULTI would have each command
 * done at once.
 */
static void
begin_saga_transaction(RedisStore *store, List *saves)
{
	int			ignored;

	queue_name_checks(store, saves);
	redis_queue_words(store, "MULTI", NULL);
	(void) redis_exchange(store, &ignored);
	store->base.broken = true;
}

/* False if a key that was watched has changed. */
static bool
execute_saga_transaction(RedisStore *store, List *saves, bool repeated)
{
	RedisIndexing indexing = {0};
	RedisReply **replies;
	RedisReply *exec;
	ListCell   *cell;
	int			count;

	foreach(cell, saves)
	{
		RedisSave  *save = lfirst(cell);

		if (foreach_current_index(cell) % PART_SAGAS == PART_SAGAS - 1)
			redis_send_ahead(store);

		if (save->saga)
			queue_saga_save(store, &indexing, save);
		else
			queue_saga_removal(store, &indexing, save);
		if (repeated)
			queue_saga_indexing(store, &indexing);
	}
	queue_saga_indexing(store, &indexing);
	redis_queue_words(store, "EXEC", NULL);
	replies = redis_exchange(store, &count);
	exec = replies[count - 1];
	if (exec->type == REDIS_NIL)
		return false;
	redis_expect(store, exec, REDIS_ARRAY);
	return true;
}

/*
 * Write all in one transaction of the server, or let go of what was watched;
 * false if that has changed.  Those that are repeated are written one after the
 * other.  After an error the connection may be within the transaction, and is
 * of no use.
 */
static bool
write_redis_sagas(RedisStore *store, List *saves, bool repeated)
{
	volatile bool written = true;

	if (saves == NIL)
	{
		(void) redis_call(store, redis_command("UNWATCH"));
		return true;
	}
	PG_TRY();
	{
		begin_saga_transaction(store, saves);
		written = execute_saga_transaction(store, saves, repeated);
	}
	PG_CATCH();
	{
		store->base.broken = true;
		PG_RE_THROW();
	}
	PG_END_TRY();
	return written;
}

/* The index sets lie among the sagas; an id must not be the name of one. */
static void
check_redis_saga_id(const RedisStore *store, const char *saga_id)
{
	if (strncmp(saga_id, "index:status:", 13) == 0 ||
		strncmp(saga_id, "index:name:", 11) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("saga_id \"%s\" cannot be kept in storage \"%s\"",
						saga_id, store->base.name),
				 errdetail("Redis has an index of that name.")));
}

static RedisSave *
make_saga_save(const char *saga_id, const SagazSaga *saga, const SagazRecord *before)
{
	RedisSave  *save = palloc0(sizeof(RedisSave));

	save->saga_id = saga_id;
	save->saga = saga;
	if (before && before->saga.status)
		save->before.status = redis_utf8(before->saga.status);
	if (before && before->saga.saga_name)
		save->before.name = redis_utf8(before->saga.saga_name);
	return save;
}

/* One of those found that has the key, or NULL. */
static RedisFound *
found_saga_of(List *found, const char *key)
{
	ListCell   *cell;

	foreach(cell, found)
		if (strcmp(sagaz_record_key(&((RedisFound *) lfirst(cell))->record), key) == 0)
			return lfirst(cell);
	return NULL;
}

static int
compare_saga_keys(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* Is a key among them more than once? */
static bool
has_repeated_saga(const SagazRecord *records, int count)
{
	const char **keys = palloc(count * sizeof(char *));

	for (int i = 0; i < count; i++)
		keys[i] = records[i].saga.saga_id;
	qsort(keys, count, sizeof(char *), compare_saga_keys);
	for (int i = 1; i < count; i++)
		if (strcmp(keys[i - 1], keys[i]) == 0)
			return true;
	return false;
}

/* Is a record of that key among those before this one? */
static bool
saga_is_repeated(const SagazRecord *records, int count, const char *key)
{
	for (int i = 0; i < count; i++)
		if (strcmp(records[i].saga.saga_id, key) == 0)
			return true;
	return false;
}

static List *
saga_saves_for_put(RedisStore *store, SagazRecord *records, int count,
				   SagazPutMode mode, bool repeated)
{
	SagazFilter filter = {.nkeys = count};
	const char **keys = palloc(count * sizeof(char *));
	RedisCommand *watched = redis_command("WATCH");
	List	   *found;
	List	   *saves = NIL;

	for (int i = 0; i < count; i++)
	{
		keys[i] = records[i].saga.saga_id;
		check_redis_saga_id(store, keys[i]);
		redis_add(watched, saga_key(store, redis_utf8(keys[i])));
	}
	filter.keys = keys;
	watch_sagas(store, watched);
	found = redis_find(store, &redis_sagas, &filter);
	for (int i = 0; i < count; i++)
	{
		RedisFound *before = found_saga_of(found, keys[i]);
		bool		exists = before != NULL ||
			(mode != SAGAZ_PUT_ALWAYS && repeated && saga_is_repeated(records, i, keys[i]));

		if (exists && mode == SAGAZ_PUT_NEW)
			ereport(ERROR,
					(errcode(ERRCODE_UNIQUE_VIOLATION),
					 errmsg("record \"%s\" exists already in storage \"%s\"",
							keys[i], store->base.name)));
		if (!exists || mode == SAGAZ_PUT_ALWAYS)
			saves = lappend(saves, make_saga_save(keys[i], &records[i].saga,
												  before ? &before->record : NULL));
	}
	return saves;
}

static int64
put_saga_part(RedisStore *store, SagazRecord *records, int count, SagazPutMode mode)
{
	TimestampTz since = GetCurrentTimestamp();
	bool		repeated = has_repeated_saga(records, count);

	for (;;)
	{
		List	   *saves = saga_saves_for_put(store, records, count, mode, repeated);

		if (write_redis_sagas(store, saves, repeated))
			return list_length(saves);
		redis_check_patience(store, since);
	}
}

/* Those that may not be there yet are put at once, others in parts. */
static int64
redis_saga_put(RedisStore *store, SagazRecord *records, int count,
			   SagazPutMode mode)
{
	int64		written = 0;
	int			part = mode == SAGAZ_PUT_NEW ? count : MAX_WATCHED;

	for (int i = 0; i < count; i += part)
		written += put_saga_part(store, records + i, Min(part, count - i), mode);
	return written;
}

/* What the callback makes of one record, or NULL. */
static RedisSave *
edit_redis_saga(RedisStore *store, SagazRecord *record, bool exists, SagazEdit edit,
				void *arg)
{
	SagazRecord before = *record;

	if (record->problem)
		return NULL;
	switch (edit(record, exists, arg))
	{
		case SAGAZ_CHANGE:
			check_redis_saga_id(store, record->saga.saga_id);
			return make_saga_save(before.saga.saga_id, &record->saga, exists ? &before : NULL);
		case SAGAZ_REMOVE:
			return make_saga_save(before.saga.saga_id, NULL, &before);
		case SAGAZ_KEEP:
			break;
	}
	return NULL;
}

/* Watch what the filter finds, and read it again as it is then. */
static List *
find_watched_sagas(RedisStore *store, const SagazFilter *filter)
{
	RedisCommand *watched = redis_command("WATCH");
	SagazFilter again = *filter;
	List	   *found;
	const char **keys;
	ListCell   *cell;

	if (filter->key)
		redis_add(watched, saga_key(store, redis_utf8(filter->key)));
	else
	{
		found = redis_find(store, &redis_sagas, filter);
		keys = palloc((list_length(found) + 1) * sizeof(char *));
		again.nkeys = 0;
		foreach(cell, found)
		{
			const char *id = ((RedisFound *) lfirst(cell))->record.saga.saga_id;

			keys[again.nkeys++] = id;
			redis_add(watched, saga_key(store, redis_utf8(id)));
		}
		again.keys = keys;
		if (again.nkeys == 0)
			return NIL;
	}
	watch_sagas(store, watched);
	return redis_find(store, &redis_sagas, &again);
}

static int64
redis_saga_edit(RedisStore *store, const SagazFilter *filter, bool create,
				SagazEdit edit, void *arg)
{
	TimestampTz since = GetCurrentTimestamp();

	for (;;)
	{
		List	   *found = find_watched_sagas(store, filter);
		List	   *saves = NIL;
		ListCell   *cell;
		RedisSave  *save;

		foreach(cell, found)
		{
			save = edit_redis_saga(store, &((RedisFound *) lfirst(cell))->record, true,
								   edit, arg);
			if (save)
				saves = lappend(saves, save);
		}
		if (create && found == NIL)
		{
			SagazRecord *fresh = palloc0(sizeof(SagazRecord));

			fresh->kind = SAGAZ_SAGA;
			fresh->saga.saga_id = pstrdup(filter->key);
			save = edit_redis_saga(store, fresh, false, edit, arg);
			if (save)
				saves = lappend(saves, save);
		}
		if (write_redis_sagas(store, saves, false))
			return list_length(saves);
		redis_check_patience(store, since);
	}
}

const RedisKind redis_sagas = {
	.kind = SAGAZ_SAGA,
	.count = count_saga,
	.scan = redis_saga_scan,
	.read = redis_saga_read,
	.put = redis_saga_put,
	.edit = redis_saga_edit
};
