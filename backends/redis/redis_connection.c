/*
 * redis_connection.c
 *		A connection to a Redis server: commands out, replies in.
 *
 * hiredis writes commands as the server wants them and reads what it answers;
 * the bytes between are moved by redis_socket.c.  From the first command queued
 * to the last reply read the store counts as broken, so that whatever ends an
 * exchange early closes the connection.
 *
 * hiredis builds replies through functions of ours, in the memory of the
 * exchange, so an error leaks none of them; they return NULL where memory
 * lacks or the server announces what cannot be true, and then hiredis gives
 * up.  Nothing may be raised inside of them.
 */
#include "backends/redis/redis.h"

#include <hiredis/hiredis.h>

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "backends/redis/redis_connection.h"

#if HIREDIS_MAJOR >= 1
#define ElementCount size_t
#else
#define ElementCount int
#endif

#define READ_BYTES (64 * 1024)
/* No reply to us has more. */
#define MAX_ELEMENTS (16 * 1024 * 1024)
#define MAX_REPLY_BYTES ((size_t) sagaz_max_reply * 1024)

struct RedisConnection
{
	RedisStore *store;
	RedisSocket socket;
	redisReader *reader;
	char	   *read;			/* where bytes come to first */
	int			queued;			/* commands whose replies are to be read */
	const char **spares;		/* the errors that each of them may answer */
	int			spares_size;
	int			ahead;			/* the first so many: only whether they fail */
	uint64		requested;		/* whose replies are still to come, 0: none */
	bool		greeting;		/* not yet connected, for whoever asks */
	MemoryContext replies;		/* of the exchange */
	size_t		reply_bytes;	/* of the exchange */
	MemoryContextCallback close;
};

/* ---------------------------------------------------------------------- */
/* Replies */

static RedisReply *
make_redis_reply(const redisReadTask *task, RedisType type, size_t extra)
{
	RedisConnection *connection = task->privdata;
	RedisReply *reply;

	connection->reply_bytes += sizeof(RedisReply) + extra;
	if (connection->reply_bytes > MAX_REPLY_BYTES)
		return NULL;
	reply = MemoryContextAllocExtended(connection->replies,
									   sizeof(RedisReply) + extra,
									   MCXT_ALLOC_NO_OOM | MCXT_ALLOC_HUGE);
	if (reply == NULL)
		return NULL;
	memset(reply, 0, sizeof(RedisReply));
	reply->type = type;
	if (task->parent)
	{
		RedisReply *parent = task->parent->obj;

		parent->elements[task->idx] = reply;
	}
	return reply;
}

static void *
make_redis_string(const redisReadTask *task, char *bytes, size_t length)
{
	RedisType	type = task->type == REDIS_REPLY_ERROR ? REDIS_ERROR :
		task->type == REDIS_REPLY_STATUS ? REDIS_STATUS : REDIS_STRING;
	RedisReply *reply = make_redis_reply(task, type, length + 1);

	if (reply == NULL)
		return NULL;
	reply->str = (char *) (reply + 1);
	memcpy(reply->str, bytes, length);
	reply->str[length] = '\0';
	reply->length = length;
	return reply;
}

static void *
make_redis_array(const redisReadTask *task, ElementCount count)
{
	RedisReply *reply;

	if ((int64) count < 0 || (int64) count > MAX_ELEMENTS)
		return NULL;
	reply = make_redis_reply(task, REDIS_ARRAY, count * sizeof(RedisReply *));
	if (reply == NULL)
		return NULL;
	reply->elements = (RedisReply **) (reply + 1);
	reply->count = (int) count;
	return reply;
}

static void *
make_redis_integer(const redisReadTask *task, long long value)
{
	RedisReply *reply = make_redis_reply(task, REDIS_INTEGER, 0);

	if (reply)
		reply->integer = value;
	return reply;
}

static void *
make_redis_nil(const redisReadTask *task)
{
	return make_redis_reply(task, REDIS_NIL, 0);
}

#if HIREDIS_MAJOR >= 1
/* We never ask for the protocol that has these. */
static void *
make_redis_double(const redisReadTask *task, double value, char *bytes, size_t length)
{
	return NULL;
}

static void *
make_redis_bool(const redisReadTask *task, int value)
{
	return NULL;
}
#endif

/* Memory of replies goes with its context. */
static void
free_no_redis_reply(void *reply)
{
}

static redisReplyObjectFunctions reply_functions = {
	.createString = make_redis_string,
	.createArray = make_redis_array,
	.createInteger = make_redis_integer,
	.createNil = make_redis_nil,
#if HIREDIS_MAJOR >= 1
	.createDouble = make_redis_double,
	.createBool = make_redis_bool,
#endif
	.freeObject = free_no_redis_reply
};

/* ---------------------------------------------------------------------- */
/* Errors and waits */

const char *
redis_client_version(void)
{
	return psprintf("%d.%d.%d", HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH);
}

/* Raise that the server cannot be reached, or went away. */
static void
lost_connection(RedisStore *store, const char *why)
{
	char	   *detail = pstrdup(why);

	store->base.broken = true;
	if (store->connection->greeting)
		redis_socket_refused(&store->base, detail);
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CONNECTION),
			 errmsg("lost the connection to storage \"%s\"", store->base.name),
			 errdetail_internal("%s.", detail)));
}

/* ---------------------------------------------------------------------- */
/* Connecting */

static void
disconnect_redis(RedisConnection *connection)
{
	redis_socket_close(&connection->socket);
	if (connection->reader)
		redisReaderFree(connection->reader);
	connection->reader = NULL;
	connection->queued = connection->ahead = 0;
	connection->requested = 0;
	connection->greeting = false;
}

static void
close_redis_connection(void *arg)
{
	disconnect_redis(arg);
}

static void
make_redis_reader(RedisConnection *connection)
{
	connection->reader = redisReaderCreateWithFunctions(&reply_functions);
	if (connection->reader == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	connection->reader->privdata = connection;
}

/*
 * Open it, or open it anew.  The store is broken until that has worked; what
 * goes wrong from then on is a matter of connecting, until redis_connection_greeted.
 */
void
redis_connection_open(RedisStore *store, const RedisPeer *place)
{
	RedisConnection *connection = store->connection;

	disconnect_redis(connection);
	memset(store->digests, 0, sizeof(store->digests));
	store->base.broken = true;
	redis_socket_open(&connection->socket, &store->base, place);
	make_redis_reader(connection);
	store->base.broken = false;
	connection->greeting = true;
}

/* From here on what goes wrong is a connection lost, not one refused. */
void
redis_connection_greeted(RedisStore *store)
{
	store->connection->greeting = false;
}

/* The connection of a new store; it is not opened yet. */
void
redis_connection_make(RedisStore *store)
{
	RedisConnection *connection = palloc0(sizeof(RedisConnection));

	connection->store = store;
	redis_socket_init(&connection->socket, store->base.context);
	connection->close.func = close_redis_connection;
	connection->close.arg = connection;
	MemoryContextRegisterResetCallback(store->base.context, &connection->close);
	store->connection = connection;
	connection->read = palloc(READ_BYTES);
}

/*
 * Can it be used?  Not so where the server has closed it while it was idle, or
 * says what nobody asked for.
 */
bool
redis_connection_is_usable(RedisStore *store)
{
	RedisConnection *connection = store->connection;

	return !store->base.broken &&
		redis_socket_is_quiet(&connection->socket, connection->requested != 0);
}

/* ---------------------------------------------------------------------- */
/* Exchanges */

/* The next reply that has come whole, or NULL. */
static RedisReply *
next_redis_reply(RedisConnection *connection)
{
	void	   *reply = NULL;

	if (redisReaderGetReply(connection->reader, &reply) != REDIS_OK)
		lost_connection(connection->store, connection->reader->errstr);
	if (reply == NULL && connection->reader->len > MAX_REPLY_BYTES)
		lost_connection(connection->store, "The server's reply is larger than sagaz.max_reply");
	return reply;
}

/* Move bytes, waiting until the server takes or has some. */
static void
move_redis_bytes(RedisConnection *connection, TimestampTz deadline)
{
	RedisSocket *socket = &connection->socket;
	ssize_t		got;

	redis_socket_flush(socket);
	if (!redis_socket_wait(socket, deadline))
		lost_connection(connection->store, "It did not answer within sagaz.command_timeout");
	got = redis_socket_read(socket, connection->read, READ_BYTES);
	if (got < 0)
		lost_connection(connection->store, socket->error);
	if (got > 0 && redisReaderFeed(connection->reader, connection->read, got) != REDIS_OK)
		lost_connection(connection->store, connection->reader->errstr);
}

/*
 * Send what is queued and read a reply to each command.  The server may take
 * sagaz.command_timeout for each.
 */
static RedisReply **
read_redis_replies(RedisStore *store)
{
	RedisConnection *connection = store->connection;
	RedisReply **replies = palloc0((connection->queued + 1) * sizeof(RedisReply *));
	TimestampTz deadline = sagaz_wait_deadline(sagaz_command_timeout);
	int			read = 0;

	store->base.broken = true;
	connection->requested = 0;
	connection->reply_bytes = 0;
	connection->replies = CurrentMemoryContext;
	while (read < connection->queued)
	{
		replies[read] = next_redis_reply(connection);
		if (replies[read] == NULL)
			move_redis_bytes(connection, deadline);
		else
		{
			read++;
			deadline = sagaz_wait_deadline(sagaz_command_timeout);
		}
	}
	connection->queued = connection->ahead = 0;
	store->base.broken = false;
	return replies;
}

/*
 * Read the replies to a request that has to make way, and forget them.  They
 * are not judged: who wants them asks again.
 */
static void
drop_redis_request(RedisStore *store)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "sagaz redis request",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(context);

	(void) read_redis_replies(store);
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(context);
}

/* Keep which error the command that is queued last may answer. */
static void
keep_redis_spares(RedisConnection *connection, const char *spares)
{
	if (connection->queued == connection->spares_size)
	{
		int			size = Max(connection->spares_size * 2, 64);

		if (connection->spares)
			connection->spares = repalloc(connection->spares, size * sizeof(char *));
		else
			connection->spares = MemoryContextAlloc(connection->store->base.context,
													size * sizeof(char *));
		connection->spares_size = size;
	}
	connection->spares[connection->queued++] = spares;
}

/*
 * Queue a command for the next exchange; it is copied.  Until that exchange
 * the store counts as broken, so that an error in between leaves no command
 * behind.  A request that is open makes way, for whose replies is waited.
 */
void
redis_queue(RedisStore *store, RedisCommand *command)
{
	RedisConnection *connection = store->connection;
	sds			text = NULL;
	bool		is_queued;

	if (connection->requested)
		drop_redis_request(store);
	store->base.broken = true;
	/* the length that it returns is an int in old releases */
	(void) redisFormatSdsCommandArgv(&text, command->count, command->words,
									 command->lengths);
	is_queued = text && redis_socket_queue(&connection->socket, text, sdslen(text));
	redisFreeSdsCommand(text);
	if (!is_queued)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	keep_redis_spares(connection, command->spares);
}

/*
 * Queue a command that goes before those of the next exchange, and whose
 * reply that does not return; but an error is raised.
 */
void
redis_queue_ahead(RedisStore *store, RedisCommand *command)
{
	Assert(store->connection->requested ||
		   store->connection->queued == store->connection->ahead);
	redis_queue(store, command);
	store->connection->ahead++;
}

/* Let the server begin with what is queued, as far as it takes it at once. */
void
redis_send_ahead(RedisStore *store)
{
	redis_socket_flush(&store->connection->socket);
}

/*
 * Send what is queued and read a reply to each command, in the present
 * memory context; an error is raised unless its command spares it.  After an
 * error that a reply has the connection is as good as before; after a
 * timeout or a cancel the store is broken.
 */
RedisReply **
redis_exchange(RedisStore *store, int *count)
{
	RedisConnection *connection = store->connection;
	int			queued = connection->queued;
	int			ahead = connection->ahead;
	RedisReply **replies = read_redis_replies(store);

	for (int i = 0; i < queued; i++)
		redis_judge(store, replies[i], connection->spares[i]);
	*count = queued - ahead;
	return replies + ahead;
}

/*
 * Have the server begin with what is queued, to read the replies later.
 * Returns the number to ask for them.
 */
uint64
redis_request(RedisStore *store)
{
	static uint64 requests = 0;

	redis_send_ahead(store);
	store->connection->requested = ++requests;
	store->base.broken = false;
	return requests;
}

/*
 * Read the replies to a request; NULL if something else was exchanged
 * meanwhile, for which they had to make way.
 */
RedisReply **
redis_collect(RedisStore *store, uint64 request, int *count)
{
	if (request == 0 || store->connection->requested != request)
		return NULL;
	return redis_exchange(store, count);
}

/* Send a command, after those that are queued, and return its reply. */
RedisReply *
redis_call(RedisStore *store, RedisCommand *command)
{
	RedisReply **replies;
	int			count;

	redis_queue(store, command);
	replies = redis_exchange(store, &count);
	return replies[0];
}

/* Somebody else writes the same records all the time. */
void
redis_check_patience(RedisStore *store, TimestampTz since)
{
	CHECK_FOR_INTERRUPTS();
	if (TimestampDifferenceExceeds(since, GetCurrentTimestamp(), sagaz_command_timeout))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CONCURRENCY),
				 errmsg("storage \"%s\" is busy", store->base.name),
				 errdetail("Others changed the same records all the time, for longer than sagaz.command_timeout."),
				 errhint("Try again.")));
}
