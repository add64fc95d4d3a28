/*
 * redis_connect.c
 *		Connecting to a Redis server: who we are, and what it is.
 *
 * All that is asked goes in one round trip, and the replies are judged when
 * all of them are there.
 *
 * Where sentinels know the primary, they are asked each time, one after the
 * other until one leads to a server that says itself that it is no replica.
 * During a failover they may all lead elsewhere; that is an error like others
 * that passes, and is not waited for here.
 */
#include "backends/redis/redis.h"


#include "backends/redis/redis_connection.h"
#include "backends/redis/redis_sentinel.h"

/* The oldest server that has all the commands. */
#define OLDEST_MAJOR 6
#define OLDEST_MINOR 2
#define DEFAULT_PORT "6379"

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

/* The value of a field of the reply to HELLO; of none, "". */
static const char *
hello_field(const RedisReply *hello, const char *name)
{
	for (int i = 0; i + 1 < hello->count; i += 2)
		if (hello->elements[i]->type == REDIS_STRING &&
			hello->elements[i + 1]->type == REDIS_STRING &&
			strcmp(hello->elements[i]->str, name) == 0)
			return hello->elements[i + 1]->str;
	return "";
}

static bool
is_older_redis(const char *version)
{
	int			major = 0;
	int			minor = 0;

	(void) sscanf(version, "%d.%d", &major, &minor);
	return major < OLDEST_MAJOR || (major == OLDEST_MAJOR && minor < OLDEST_MINOR);
}

static void
refuse_redis_server(RedisStore *store, const char *what, const char *hint)
{
	store->base.broken = true;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_STORAGE),
			 errmsg("storage \"%s\" cannot be used", store->base.name),
			 errdetail_internal("%s.", what),
			 errhint("%s", hint)));
}

/*
 * What the server says it is.  A node of a cluster answers for a part of the
 * keys only, and a SCAN of it does not say so, hence none is talked to.
 */
static void
check_redis_server(RedisStore *store, const RedisReply *hello)
{
	const char *mode;

	if (redis_is_error(hello, "ERR unknown command"))
		refuse_redis_server(store, "The server is older than Redis 6.2",
							"Use Redis 6.2 or newer.");
	redis_judge(store, hello, NULL);
	redis_expect(store, hello, REDIS_ARRAY);
	mode = hello_field(hello, "mode");
	if (strcmp(mode, "cluster") == 0)
		refuse_redis_server(store, "The server is a node of a Redis Cluster",
							"A storage needs a server of its own, not a cluster: what one node holds is a part.");
	if (strcmp(mode, "sentinel") == 0)
		refuse_redis_server(store, "The server is a Sentinel, which holds no data",
							"Write redis+sentinel://, with the name of its service.");
	if (strcmp(mode, "standalone") != 0)
		redis_refuse_reply(store);
	if (is_older_redis(hello_field(hello, "version")))
		refuse_redis_server(store, "The server is older than Redis 6.2",
							"Use Redis 6.2 or newer.");
	store->is_replica = strcmp(hello_field(hello, "role"), "master") != 0;
}

/* Queue a command whose reply is judged when all of the greeting are there. */
static void
queue_greeting(RedisStore *store, RedisCommand *command)
{
	command->spares = REDIS_SPARE_ALL;
	redis_queue(store, command);
}

/* Queue a login, if there is one; true if so. */
static bool
queue_redis_login(RedisStore *store, const char *user_option, const char *password_option)
{
	const char *user = sagaz_store_option(&store->base, user_option);
	const char *password = sagaz_store_option(&store->base, password_option);
	RedisCommand *command;

	if (user == NULL && password == NULL)
		return false;
	command = redis_command("AUTH");
	if (user)
		redis_add_text(command, user);
	redis_add_text(command, password ? password : "");
	command->spares = REDIS_SPARE_ALL;
	redis_queue(store, command);
	return true;
}

/* Log in, ask what the server is, and select the database, in one round trip. */
static void
greet_redis(RedisStore *store)
{
	const char *database = sagaz_store_option(&store->base, "database");
	bool		login = queue_redis_login(store, "user", "password");
	RedisReply **replies;
	int			count;

	/* for those who look at the server */
	queue_greeting(store, redis_words("CLIENT", "SETNAME", "sagaz", NULL));
	queue_greeting(store, redis_words("HELLO", NULL));
	queue_greeting(store, redis_words("SELECT", database ? database : "0", NULL));
	replies = redis_exchange(store, &count);
	if (login)
		check_redis_login(store, *replies++);
	check_redis_server(store, replies[1]);
	redis_judge(store, replies[2], NULL);
}

static void
connect_to_redis(RedisStore *store, const RedisPeer *place)
{
	redis_connection_open(store, place);
	greet_redis(store);
	redis_connection_greeted(store);
}

/* ---------------------------------------------------------------------- */
/* Sentinels */

static RedisPeer *
ask_sentinel(RedisStore *store, const RedisPeer *sentinel)
{
	RedisPeer *primary;
	RedisReply **replies;
	bool		login;
	int			count;

	redis_connection_open(store, sentinel);
	login = queue_redis_login(store, "sentinel_user", "sentinel_password");
	redis_queue(store, redis_sentinel_question(&store->base));
	replies = redis_exchange(store, &count);
	if (login)
		check_redis_login(store, *replies++);
	if (redis_is_error(replies[0], "NOAUTH"))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CONNECTION),
				 errmsg("could not log in to storage \"%s\"", store->base.name),
				 errdetail("It wants a password."),
				 errhint("That of the sentinels is the option sentinel_password of the user mapping.")));
	redis_judge(store, replies[0], NULL);
	primary = redis_sentinel_answer(store, replies[0]);
	primary->timeout = sagaz_connect_timeout;
	return primary;
}

/*
 * Connect to the primary that a sentinel names; returns the error if that
 * fails in a way in which another sentinel may help.
 */
static ErrorData *
connect_by_sentinel(RedisStore *store, const RedisPeer *sentinel, bool *is_named)
{
	MemoryContext context = CurrentMemoryContext;
	const RedisPeer *volatile place = sentinel;
	ErrorData  *volatile error = NULL;

	*is_named = false;
	PG_TRY();
	{
		place = ask_sentinel(store, sentinel);
		*is_named = true;
		connect_to_redis(store, place);
		if (store->is_replica)
			redis_socket_refused(&store->base, "It is a replica by now");
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_SAGAZ_CONNECTION &&
			(*is_named || error->sqlerrcode != ERRCODE_SAGAZ_STORAGE))
			PG_RE_THROW();
		FlushErrorState();
		error->detail = psprintf("%s %s, port %s: %s", *is_named ? "The primary" : "The sentinel",
								 place->host, place->port, error->detail ? error->detail : "");
	}
	PG_END_TRY();
	return error;
}

/* Begin with the sentinel that knew it last time. */
static void
connect_by_sentinels(RedisStore *store)
{
	List	   *sentinels = redis_sentinel_places(&store->base);
	ErrorData  *telling = NULL;	/* an error of a primary tells more */
	bool		telling_named = false;

	for (int i = 0; i < list_length(sentinels); i++)
	{
		int			which = (store->sentinel + i) % list_length(sentinels);
		bool		is_named;
		ErrorData  *error = connect_by_sentinel(store, list_nth(sentinels, which), &is_named);

		if (error == NULL)
		{
			store->sentinel = which;
			return;
		}
		if (telling == NULL || (is_named && !telling_named))
		{
			telling = error;
			telling_named = is_named;
		}
	}
	store->base.broken = true;
	ReThrowError(telling);
}

/* ---------------------------------------------------------------------- */

/* Connect to where the options say, or connect anew. */
static void
connect_redis_anew(RedisStore *store)
{
	const char *host = sagaz_store_option(&store->base, "host");
	const char *port = sagaz_store_option(&store->base, "port");
	RedisPeer	place = {
		.path = sagaz_store_option(&store->base, "path"),
		.host = host ? host : "localhost",
		.port = port ? port : DEFAULT_PORT,
		.timeout = sagaz_connect_timeout
	};

	if (redis_sentinel_knows_primary(&store->base))
		connect_by_sentinels(store);
	else
		connect_to_redis(store, &place);
}

/* For a new store. */
void
redis_connect(RedisStore *store)
{
	redis_connection_make(store);
	connect_redis_anew(store);
}

/* Before each operation: connect anew where the connection is of no use any more. */
void
redis_ready(RedisStore *store)
{
	if (!redis_connection_is_usable(store))
		connect_redis_anew(store);
}
