/*
 * redis_script.c
 *		Scripts on the server, which knows them by their digests.
 */
#include "backends/redis/redis.h"

#define NOT_LOADED "NOSCRIPT"

static void
load_script(RedisStore *store, const RedisScript *script)
{
	RedisCommand *command = redis_command("SCRIPT");
	RedisReply *reply;

	redis_add(command, "LOAD");
	redis_add(command, script->text);
	reply = redis_call(store, command);
	redis_expect(store, reply, REDIS_STRING);
	store->digests[script->no] = MemoryContextStrdup(store->base.context, reply->str);
}

/*
 * Queue a script for the next exchange; the words of the command, its name
 * included, are its arguments.  The server may answer that it does not know
 * the script.
 */
void
redis_queue_script(RedisStore *store, const RedisScript *script,
				   const RedisCommand *arguments)
{
	RedisCommand *command;

	if (store->digests[script->no] == NULL)
		load_script(store, script);
	command = redis_command("EVALSHA");
	redis_add(command, store->digests[script->no]);
	redis_add(command, "0");
	for (int i = 0; i < arguments->count; i++)
		redis_add_bytes(command, arguments->words[i], arguments->lengths[i]);
	command->spares = NOT_LOADED;
	redis_queue(store, command);
}

/* Run a script that the server may have forgotten, as when it is restarted. */
RedisReply *
redis_run_script(RedisStore *store, const RedisScript *script,
				 const RedisCommand *arguments)
{
	RedisReply **replies;
	int			count;

	redis_queue_script(store, script, arguments);
	replies = redis_exchange(store, &count);
	if (redis_is_error(replies[0], NOT_LOADED))
	{
		load_script(store, script);
		redis_queue_script(store, script, arguments);
		replies = redis_exchange(store, &count);
	}
	redis_judge(store, replies[0], NULL);
	return replies[0];
}
