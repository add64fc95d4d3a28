/*
 * redis_command.c
 *		Commands for Redis, and what its replies may be.
 *
 * Commands are vectors of words with their lengths, never text that is taken
 * apart again.  Every reply is judged here, on its way out of the exchange:
 * who reads it can mistake no error for "there is no such thing".
 */
#include "backends/redis/redis.h"

#include <stdarg.h>

#include "mb/pg_wchar.h"

#include "lib/encoding.h"

/* So many bytes of an error of the server are shown. */
#define MAX_WORDS 500

/* Text of the database as UTF-8. */
char *
redis_utf8(const char *text)
{
	return sagaz_to_utf8(text);
}

/* Lies in the present memory context; the name is UTF-8, and not copied. */
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

/* The word is UTF-8, and must last as long as the command. */
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

/* A command of words in UTF-8; NULL ends them. */
RedisCommand *
redis_words(const char *name,...)
{
	RedisCommand *command = redis_command(name);
	const char *word;
	va_list		words;

	va_start(words, name);
	while ((word = va_arg(words, const char *)) != NULL)
		redis_add(command, word);
	va_end(words);
	return command;
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
	bool		closes;			/* only another connection cures it */
	const char *hint;
}			known_errors[] =
{
	{"MOVED", ERRCODE_SAGAZ_STORAGE, true, "The server is part of a cluster, and the key is on another node. A storage needs a server of its own, not a cluster."},
	{"ASK", ERRCODE_SAGAZ_STORAGE, true, "The server is part of a cluster that moves the key just now. A storage needs a server of its own, not a cluster."},
	{"CROSSSLOT", ERRCODE_SAGAZ_STORAGE, true, "The server is part of a cluster. A storage needs a server of its own, not a cluster."},
	{"CLUSTERDOWN", ERRCODE_SAGAZ_CONNECTION, true, "The server is part of a cluster that is down. A storage needs a server of its own, not a cluster."},
	{"READONLY", ERRCODE_SAGAZ_CONNECTION, true, "The server is a replica. Set the options host and port to the primary."},
	{"MASTERDOWN", ERRCODE_SAGAZ_CONNECTION, true, "The server is a replica without its primary. Set the options host and port to a primary."},
	{"OOM", ERRCODE_SAGAZ_CAPACITY, false, "The server is full. Raise its maxmemory, or remove keys; nothing was written."},
	{"MISCONF", ERRCODE_SAGAZ_CAPACITY, false, "The server cannot save its data to disk and refuses writes. See its log."},
	{"NOREPLICAS", ERRCODE_SAGAZ_CAPACITY, true, "The server has too few replicas to take writes. See its setting min-replicas-to-write."},
	{"NOAUTH", ERRCODE_SAGAZ_CONNECTION, true, "The server wants a password: give the user mapping of the storage the option password."},
	{"WRONGPASS", ERRCODE_SAGAZ_CONNECTION, true, "Correct the options user and password of the user mapping."},
	{"NOPERM", ERRCODE_SAGAZ_STORAGE, false, "The server's ACL does not let this user do that. See ACL SETUSER there."},
	{"LOADING", ERRCODE_SAGAZ_CONNECTION, true, "The server is still loading its data. Try again."},
	{"BUSY", ERRCODE_SAGAZ_CONCURRENCY, false, "A script runs on the server for very long. Try again, or end it with SCRIPT KILL there."},
	{"TRYAGAIN", ERRCODE_SAGAZ_CONCURRENCY, false, "Try again."},
	{"WRONGTYPE", ERRCODE_SAGAZ_STORAGE, false, "Another program uses a key of that name for something else. Choose other prefixes for the storage."},
};

/*
 * The server's own words, if they are fit to be shown; without the full stop
 * that only some of them have.
 */
char *
redis_words_of(const RedisReply *reply)
{
	char	   *words;
	int			length;

	if (strlen(reply->str) != reply->length ||
		!pg_verify_mbstr(PG_UTF8, reply->str, reply->length, true))
		return "something that is not text";
	length = pg_encoding_mbcliplen(PG_UTF8, reply->str, reply->length, MAX_WORDS);
	if (length > 0 && reply->str[length - 1] == '.')
		length--;
	words = sagaz_from_utf8(reply->str, length);
	return words ? words : "something that the database has no characters for";
}

/*
 * Where the code of an error begins: Redis before 7.0 puts that of a command
 * that failed in a script behind the place in the script.
 */
static const char *
redis_code_of(const RedisReply *reply)
{
	static const char *const place = "user_script:";
	const char *code = reply->str;
	const char *found;

	if (strncmp(code, "ERR Error running script", 24) != 0)
		return code;
	while ((found = strstr(code, place)) != NULL)
	{
		code = found + strlen(place);
		code += strspn(code, " 0123456789:");
	}
	return *code == '-' ? code + 1 : code;
}

static void
raise_redis_error(RedisStore *store, const RedisReply *reply)
{
	RedisReply	code = *reply;
	int			sqlstate = ERRCODE_SAGAZ_STORAGE;
	const char *hint = NULL;

	code.str = unconstify(char *, redis_code_of(reply));
	for (int i = 0; i < (int) lengthof(known_errors); i++)
		if (redis_is_error(&code, known_errors[i].code))
		{
			sqlstate = known_errors[i].sqlstate;
			hint = known_errors[i].hint;
			store->base.broken |= known_errors[i].closes;
		}
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("storage \"%s\" failed", store->base.name),
			 errdetail("Redis says: %s.", redis_words_of(reply)),
			 hint ? errhint("%s", hint) : 0));
}

/*
 * Raise the reply if it is an error, or has one in it, but for one that begins
 * with the words that are spared.  The one place where replies are judged:
 * what comes through it is data, or certainly not there.
 */
void
redis_judge(RedisStore *store, const RedisReply *reply, const char *spares)
{
	if (reply->type == REDIS_ERROR &&
		(spares == NULL ||
		 (strcmp(spares, REDIS_SPARE_ALL) != 0 && !redis_is_error(reply, spares))))
		raise_redis_error(store, reply);
	if (reply->type == REDIS_ARRAY)
		for (int i = 0; i < reply->count; i++)
			redis_judge(store, reply->elements[i], NULL);
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

/* A reply of another type leaves the store broken. */
void
redis_expect(RedisStore *store, const RedisReply *reply, RedisType type)
{
	if (reply->type != type)
		redis_refuse_reply(store);
}
