/*
 * redis_command.c
 *		Commands for Redis, and what its replies may be.
 *
 * Commands are vectors of words with their lengths, never text that is taken
 * apart again.
 */
#include "backends/redis/redis.h"

#include "mb/pg_wchar.h"

/* So many bytes of an error of the server are shown. */
#define MAX_WORDS 500

/* Text of the database as UTF-8. */
char *
redis_utf8(const char *text)
{
	return pg_server_to_any(text, strlen(text), PG_UTF8);
}

RedisCommand *
redis_command(const char *name)
{
	RedisCommand *command = palloc0(sizeof(RedisCommand));

	command->size = 16;
	command->words = palloc(command->size * sizeof(char *));
	command->lengths = palloc(command->size * sizeof(size_t));
	redis_add(command, name);
	return command;
}

/* Add a word, which must last as long as the command. */
void
redis_add_bytes(RedisCommand *command, const char *bytes, size_t length)
{
	if (command->count == command->size)
	{
		command->size *= 2;
		command->words = repalloc(command->words, command->size * sizeof(char *));
		command->lengths = repalloc(command->lengths, command->size * sizeof(size_t));
	}
	command->words[command->count] = bytes;
	command->lengths[command->count++] = length;
}

void
redis_add(RedisCommand *command, const char *utf8)
{
	redis_add_bytes(command, utf8, strlen(utf8));
}

/* Add text of the database. */
void
redis_add_text(RedisCommand *command, const char *text)
{
	redis_add(command, redis_utf8(text));
}

void
redis_add_int(RedisCommand *command, int64 value)
{
	redis_add(command, psprintf(INT64_FORMAT, value));
}

/* ---------------------------------------------------------------------- */
/* Replies */

/* Is it an error that begins with that word? */
bool
redis_is_error(const RedisReply *reply, const char *code)
{
	size_t		length = strlen(code);

	return reply->type == REDIS_ERROR &&
		strncmp(reply->str, code, length) == 0 &&
		(reply->str[length] == ' ' || reply->str[length] == '\0');
}

/* What the first word of an error means, and what is to be done. */
static const struct
{
	const char *code;
	int			sqlstate;
	const char *hint;
}			known_errors[] =
{
	{"MOVED", ERRCODE_SAGAZ_STORAGE, "The server is part of a cluster, and the key is on another node. A storage needs a server of its own, not a cluster."},
	{"ASK", ERRCODE_SAGAZ_STORAGE, "The server is part of a cluster that moves the key just now. A storage needs a server of its own, not a cluster."},
	{"CROSSSLOT", ERRCODE_SAGAZ_STORAGE, "The server is part of a cluster. A storage needs a server of its own, not a cluster."},
	{"CLUSTERDOWN", ERRCODE_SAGAZ_CONNECTION, "The server is part of a cluster that is down. A storage needs a server of its own, not a cluster."},
	{"READONLY", ERRCODE_SAGAZ_CONNECTION, "The server is a replica. Set the options host and port to the primary."},
	{"MASTERDOWN", ERRCODE_SAGAZ_CONNECTION, "The server is a replica without its primary. Set the options host and port to a primary."},
	{"OOM", ERRCODE_SAGAZ_CAPACITY, "The server is full. Raise its maxmemory, or remove keys; nothing was written."},
	{"MISCONF", ERRCODE_SAGAZ_CAPACITY, "The server cannot save its data to disk and refuses writes. See its log."},
	{"NOREPLICAS", ERRCODE_SAGAZ_CAPACITY, "The server has too few replicas to take writes. See its setting min-replicas-to-write."},
	{"NOAUTH", ERRCODE_SAGAZ_CONNECTION, "The server wants a password: give the user mapping of the storage the option password."},
	{"WRONGPASS", ERRCODE_SAGAZ_CONNECTION, "Correct the options user and password of the user mapping."},
	{"NOPERM", ERRCODE_SAGAZ_STORAGE, "The server's ACL does not let this user do that. See ACL SETUSER there."},
	{"LOADING", ERRCODE_SAGAZ_CONNECTION, "The server is still loading its data. Try again."},
	{"BUSY", ERRCODE_SAGAZ_CONCURRENCY, "A script runs on the server for very long. Try again, or end it with SCRIPT KILL there."},
	{"TRYAGAIN", ERRCODE_SAGAZ_CONCURRENCY, "Try again."},
	{"WRONGTYPE", ERRCODE_SAGAZ_STORAGE, "Another program uses a key of that name for something else. Choose other prefixes for the storage."},
};

/* The server's own words, if they are fit to be shown. */
static char *
redis_words_of(const RedisReply *reply)
{
	int			length;

	if (strlen(reply->str) != reply->length ||
		!pg_verify_mbstr(PG_UTF8, reply->str, reply->length, true))
		return "something that is not text";
	length = pg_encoding_mbcliplen(PG_UTF8, reply->str, reply->length, MAX_WORDS);
	return pg_any_to_server(pnstrdup(reply->str, length), length, PG_UTF8);
}

/* Raise the reply if it is an error. */
void
redis_check(RedisStore *store, const RedisReply *reply)
{
	int			sqlstate = ERRCODE_SAGAZ_STORAGE;
	const char *hint = NULL;

	if (reply->type != REDIS_ERROR)
		return;
	for (int i = 0; i < (int) lengthof(known_errors); i++)
		if (redis_is_error(reply, known_errors[i].code))
		{
			sqlstate = known_errors[i].sqlstate;
			hint = known_errors[i].hint;
		}
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("storage \"%s\" failed", store->base.name),
			 errdetail("Redis says: %s.", redis_words_of(reply)),
			 hint ? errhint("%s", hint) : 0));
}

/* No Redis answers like this. */
void
redis_refuse_reply(RedisStore *store)
{
	store->base.broken = true;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_STORAGE),
			 errmsg("storage \"%s\" failed", store->base.name),
			 errdetail("The server's reply is not one of Redis."),
			 errhint("See the options host and port of the storage.")));
}

void
redis_expect(RedisStore *store, const RedisReply *reply, RedisType type)
{
	redis_check(store, reply);
	if (reply->type != type)
		redis_refuse_reply(store);
}
