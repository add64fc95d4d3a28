/*
 * redis_connection.c
 *		A connection to a Redis server, over hiredis.
 *
 * The socket never blocks: every wait is on the latch, too, has a deadline
 * and can be cancelled.  Only the name of the host is resolved without one.
 * From the first byte sent to the last reply read the store counts as broken,
 * so that whatever ends an exchange early closes the connection.
 *
 * hiredis builds replies through functions of ours, in the memory of the
 * exchange, so an error leaks none of them; they return NULL where memory
 * lacks or the server announces what cannot be true, and then hiredis gives
 * up.  Nothing may be raised inside of them.
 */
#include "backends/redis/redis.h"

#include <stdarg.h>
#include <sys/socket.h>
#include <hiredis/hiredis.h>

#include "commands/defrem.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "backends/common/server_file.h"

#if HIREDIS_MAJOR >= 1
#define ElementCount size_t
#else
#define ElementCount int
#endif

#define DEFAULT_PORT 6379
/* No reply to us has more. */
#define MAX_ELEMENTS (16 * 1024 * 1024)
#define MAX_REPLY_BYTES ((size_t) sagaz_max_reply * 1024)

struct RedisConnection
{
	RedisStore *store;
	redisContext *context;
	bool		has_fd;			/* counted as one of our descriptors */
	int			queued;			/* commands whose replies are to be read */
	int			ahead;			/* the first so many: only whether they fail */
	uint64		requested;		/* whose replies are still to come, 0: none */
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
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CONNECTION),
			 errmsg("lost the connection to storage \"%s\"", store->base.name),
			 errdetail_internal("%s.", detail)));
}

static void
cannot_connect_redis(RedisStore *store, const char *why)
{
	char	   *detail = pstrdup(why);

	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CONNECTION),
			 errmsg("could not connect to storage \"%s\"", store->base.name),
			 errdetail_internal("%s.", detail),
			 errhint("See its options, and whether the server runs there.")));
}

/* ---------------------------------------------------------------------- */
/* Connecting */

static void
disconnect_redis(RedisConnection *connection)
{
	if (connection->context)
		redisFree(connection->context);
	connection->context = NULL;
	connection->queued = connection->ahead = 0;
	connection->requested = 0;
	if (connection->has_fd)
		ReleaseExternalFD();
	connection->has_fd = false;
}

static void
close_redis_connection(void *arg)
{
	disconnect_redis(arg);
}

static void
wait_until_redis_connected(RedisConnection *connection)
{
	int			error = 0;
	socklen_t	size = sizeof(error);

	if (sagaz_wait_for_socket(connection->context->fd, WL_SOCKET_CONNECTED,
						sagaz_wait_deadline(sagaz_connect_timeout)) == 0)
		cannot_connect_redis(connection->store, "It did not answer within sagaz.connect_timeout");
	if (getsockopt(connection->context->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		error = errno;
	if (error != 0)
		cannot_connect_redis(connection->store, pg_strerror(error));
}

static void
open_redis_socket(RedisConnection *connection)
{
	RedisStore *store = connection->store;
	const char *path = sagaz_store_option(&store->base, "path");
	const char *host = sagaz_store_option(&store->base, "host");
	const char *port = sagaz_store_option(&store->base, "port");

	if (path)
		sagaz_check_server_file(&store->base, "path", true);
	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CAPACITY),
				 errmsg("too many files are open for another storage")));
	connection->has_fd = true;
	connection->context = path ? redisConnectUnixNonBlock(path) :
		redisConnectNonBlock(host ? host : "localhost",
							 port ? atoi(port) : DEFAULT_PORT);
	if (connection->context == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	if (connection->context->err)
		cannot_connect_redis(store, connection->context->errstr);
	connection->context->reader->fn = &reply_functions;
	connection->context->reader->privdata = connection;
	wait_until_redis_connected(connection);
	if (path == NULL)
		(void) redisEnableKeepAlive(connection->context);
}

/*
 * What a server says to a login may quote it, so it is not passed on but for
 * its first word.
 */
static void
check_redis_login(RedisStore *store, const RedisReply *reply)
{
	if (reply->type != REDIS_ERROR)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CONNECTION),
			 errmsg("could not log in to storage \"%s\"", store->base.name),
			 redis_is_error(reply, "WRONGPASS") ?
			 errdetail("The server refuses the user or the password.") :
			 errdetail("The server does not take this kind of login."),
			 errhint("User and password are options of the user mapping; a server without ACLs takes a password alone, and one without a password none.")));
}

/* Log in and select the database, in one round trip. */
static void
greet_redis(RedisStore *store)
{
	const char *user = sagaz_store_option(&store->base, "user");
	const char *password = sagaz_store_option(&store->base, "password");
	const char *database = sagaz_store_option(&store->base, "database");
	bool		login = user || password;
	RedisCommand *command;
	RedisReply **replies;
	int			count;

	if (login)
	{
		command = redis_command("AUTH");
		if (user)
			redis_add_text(command, user);
		redis_add_text(command, password ? password : "");
		redis_queue(store, command);
	}
	command = redis_command("SELECT");
	redis_add(command, database ? database : "0");
	redis_queue(store, command);
	/* for those who look at the server; older ones do not know it */
	command = redis_command("CLIENT");
	redis_add(command, "SETNAME");
	redis_add(command, "sagaz");
	redis_queue(store, command);
	replies = redis_exchange(store, &count);
	if (login)
		check_redis_login(store, replies[0]);
	redis_check(store, replies[login ? 1 : 0]);
}

/* Connect, or connect anew; the store is broken until that has worked. */
static void
connect_redis_anew(RedisStore *store)
{
	RedisConnection *connection = store->connection;

	disconnect_redis(connection);
	memset(store->digests, 0, sizeof(store->digests));
	store->base.broken = true;
	open_redis_socket(connection);
	store->base.broken = false;
	greet_redis(store);
}

/* The connection of a new store. */
void
redis_connect(RedisStore *store)
{
	RedisConnection *connection = palloc0(sizeof(RedisConnection));

	connection->store = store;
	connection->close.func = close_redis_connection;
	connection->close.arg = connection;
	MemoryContextRegisterResetCallback(store->base.context, &connection->close);
	store->connection = connection;
	connect_redis_anew(store);
}

/*
 * Before each operation: connect anew where the server has closed the idle
 * connection, or says what nobody asked for.
 */
void
redis_ready(RedisStore *store)
{
	RedisConnection *connection = store->connection;
	char		byte;
	ssize_t		got;

	if (connection->context && !store->base.broken)
	{
		got = recv(connection->context->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
		if (got > 0 && connection->requested)
			return;
		if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
			return;
	}
	connect_redis_anew(store);
}

/* ---------------------------------------------------------------------- */
/* Exchanges */

/* Read the replies to a request that has to make way, and forget them. */
static void
drop_redis_request(RedisStore *store)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "sagaz redis request",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(context);
	int			count;

	(void) redis_exchange(store, &count);
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(context);
}

/* Queue a command for the next exchange. */
void
redis_queue(RedisStore *store, RedisCommand *command)
{
	RedisConnection *connection = store->connection;

	if (connection->requested)
		drop_redis_request(store);
	store->base.broken = true;
	if (redisAppendCommandArgv(connection->context, command->count,
							   command->words, command->lengths) != REDIS_OK)
		lost_connection(store, connection->context->errstr);
	connection->queued++;
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
	redisContext *context = store->connection->context;
	int			done;

	if (redisBufferWrite(context, &done) != REDIS_OK)
		lost_connection(store, context->errstr);
}

/* The next reply that has come whole, or NULL. */
static RedisReply *
next_redis_reply(RedisConnection *connection)
{
	void	   *reply = NULL;

	if (redisGetReplyFromReader(connection->context, &reply) != REDIS_OK)
		lost_connection(connection->store, connection->context->errstr);
	if (reply == NULL && connection->context->reader->len > MAX_REPLY_BYTES)
		lost_connection(connection->store, "The server's reply is larger than sagaz.max_reply");
	return reply;
}

/* Move bytes, waiting until the server takes or has some. */
static void
move_redis_bytes(RedisConnection *connection, bool *written, TimestampTz deadline)
{
	redisContext *context = connection->context;
	int			done = 1;
	int			events;

	if (!*written)
	{
		if (redisBufferWrite(context, &done) != REDIS_OK)
			lost_connection(connection->store, context->errstr);
		*written = done;
	}
	events = sagaz_wait_for_socket(connection->context->fd, WL_SOCKET_READABLE |
							 (*written ? 0 : WL_SOCKET_WRITEABLE), deadline);
	if (events == 0)
		lost_connection(connection->store, "It did not answer within sagaz.command_timeout");
	if ((events & WL_SOCKET_READABLE) && redisBufferRead(context) != REDIS_OK)
		lost_connection(connection->store, context->errstr);
}

/*
 * Send what is queued and read a reply to each command.  The server may take
 * sagaz.command_timeout for each.
 */
RedisReply **
redis_exchange(RedisStore *store, int *count)
{
	RedisConnection *connection = store->connection;
	RedisReply **replies = palloc0((connection->queued + 1) * sizeof(RedisReply *));
	TimestampTz deadline = sagaz_wait_deadline(sagaz_command_timeout);
	bool		written = false;
	int			ahead = connection->ahead;
	int			read = 0;

	store->base.broken = true;
	connection->requested = 0;
	connection->reply_bytes = 0;
	connection->replies = CurrentMemoryContext;
	while (read < connection->queued)
	{
		replies[read] = next_redis_reply(connection);
		if (replies[read] == NULL)
			move_redis_bytes(connection, &written, deadline);
		else
		{
			read++;
			deadline = sagaz_wait_deadline(sagaz_command_timeout);
		}
	}
	connection->queued = connection->ahead = 0;
	store->base.broken = false;
	for (int i = 0; i < ahead; i++)
		redis_check(store, replies[i]);
	*count = read - ahead;
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

/* Queue a command of UTF-8 words; NULL ends them. */
void
redis_queue_words(RedisStore *store, const char *name,...)
{
	RedisCommand *command = redis_command(name);
	const char *word;
	va_list		words;

	va_start(words, name);
	while ((word = va_arg(words, const char *)) != NULL)
		redis_add(command, word);
	va_end(words);
	redis_queue(store, command);
}

/* Send a command alone; an error that the server answers is raised. */
RedisReply *
redis_call(RedisStore *store, RedisCommand *command)
{
	RedisReply **replies;
	int			count;

	redis_queue(store, command);
	replies = redis_exchange(store, &count);
	redis_check(store, replies[0]);
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
