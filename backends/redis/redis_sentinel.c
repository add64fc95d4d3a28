/*
 * redis_sentinel.c
 *		What sentinels are asked, and what they may answer.
 *
 * The option "sentinels" is a list, host[:port] with commas between, an IPv6
 * address in brackets; "service" is what they call the primary and its
 * replicas.  redis_connect.c asks.
 */
#include "backends/redis/redis_sentinel.h"

#include "backends/redis/redis_url.h"

#define SENTINEL_PORT "26379"

/* One of the list, up to the end given; NULL where it is not like that. */
static RedisPeer *
read_sentinel(const char *text, const char *end)
{
	RedisPeer *place = palloc0(sizeof(RedisPeer));
	bool		in_brackets = text < end && *text == '[';
	const char *host = in_brackets ? text + 1 : text;
	const char *host_end = memchr(host, in_brackets ? ']' : ':', end - host);
	const char *port = host_end && in_brackets ? host_end + 1 : host_end;

	if (host_end == NULL && !in_brackets)
		host_end = port = end;
	if (host_end == NULL || host_end == host || (port < end && *port != ':'))
		return NULL;
	place->host = pnstrdup(host, host_end - host);
	place->port = port < end ? pnstrdup(port + 1, end - port - 1) : SENTINEL_PORT;
	return redis_url_is_number(place->port, 1, 65535) ? place : NULL;
}

/* A list of RedisPeer that share the time; NIL where it is not one of hosts. */
static List *
read_sentinels(const char *text)
{
	List	   *places = NIL;
	ListCell   *cell;

	for (;; text++)
	{
		size_t		length = strcspn(text, ",");
		RedisPeer *place = read_sentinel(text, text + length);

		if (place == NULL)
			return NIL;
		places = lappend(places, place);
		text += length;
		if (*text == '\0')
			break;
	}
	foreach(cell, places)
		((RedisPeer *) lfirst(cell))->timeout = sagaz_connect_timeout / list_length(places);
	return places;
}

/* The option "sentinels" */
void
redis_sentinel_check_list(const char *value)
{
	if (read_sentinels(value) == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("sentinels is not valid"),
				 errhint("Name hosts with commas between, each with or without a port: host1:26379,host2.")));
}

/* Is it the sentinels who know where the server is? */
bool
redis_sentinel_knows_primary(const SagazStore *store)
{
	return sagaz_store_option(store, "sentinels") || sagaz_store_option(store, "service");
}

/* Where the sentinels are; an error where the options do not fit together. */
List *
redis_sentinel_places(const SagazStore *store)
{
	const char *sentinels = sagaz_store_option(store, "sentinels");

	if (sentinels == NULL || sagaz_store_option(store, "service") == NULL ||
		sagaz_store_option(store, "host") || sagaz_store_option(store, "port") ||
		sagaz_store_option(store, "path"))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("the options of storage \"%s\" do not fit together", store->name),
				 errdetail("Sentinels tell where a service is, so there are both, and neither host, port nor path.")));
	redis_sentinel_check_list(sentinels);
	return read_sentinels(sentinels);
}

/* Its reply is to be judged by who asks. */
RedisCommand *
redis_sentinel_question(const SagazStore *store)
{
	RedisCommand *command = redis_command("SENTINEL");

	redis_add(command, "GET-MASTER-ADDR-BY-NAME");
	redis_add_text(command, sagaz_store_option(store, "service"));
	command->spares = REDIS_SPARE_ALL;
	return command;
}

/* Is it made of what names and addresses are made of?  Errors show it. */
static bool
is_sentinel_word(const RedisReply *word)
{
	return word->type == REDIS_STRING && word->length > 0 &&
		strspn(word->str, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			   "0123456789.:-_%") == word->length;
}

/* Where the primary is, as the sentinel says. */
RedisPeer *
redis_sentinel_answer(RedisStore *store, const RedisReply *reply)
{
	RedisPeer *place = palloc0(sizeof(RedisPeer));

	if (reply->type == REDIS_NIL)
		redis_socket_refused(&store->base, "It knows no primary of that service");
	redis_expect(store, reply, REDIS_ARRAY);
	if (reply->count != 2 || !is_sentinel_word(reply->elements[0]) ||
		!is_sentinel_word(reply->elements[1]))
		redis_refuse_reply(store);
	place->host = reply->elements[0]->str;
	place->port = reply->elements[1]->str;
	if (!redis_url_is_number(place->port, 1, 65535))
		redis_refuse_reply(store);
	return place;
}
