/*
 * redis_socket.c
 *		A socket to a Redis server: connecting, and moving bytes, plain or TLS.
 *
 * It never blocks.  Every wait is on the latch, too, has a deadline and can be
 * cancelled; only the name of a host is resolved without one.  Of the
 * addresses that a name has, each gets its share of the time, so that one which
 * nobody answers at does not hide the next.
 *
 * What is to be sent waits here until the other end takes it.  When that
 * fails nothing is raised: what the other end said before is still to be
 * read, and tells more.
 */
#include "backends/redis/redis_socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "backends/common/server_file.h"

/* Seconds of silence, between questions, and how many go unanswered. */
#define KEEPALIVE_IDLE 15
#define KEEPALIVE_INTERVAL 5
#define KEEPALIVE_COUNT 3
/* More memory than that is given back once all is sent. */
#define KEPT_UNSENT (64 * 1024)

/* One address of a server. */
typedef struct RedisAddress
{
	struct sockaddr_storage place;
	socklen_t	length;
} RedisAddress;

/* Raise that the server cannot be reached. */
void
redis_socket_refused(const SagazStore *store, const char *why)
{
	char	   *detail = pstrdup(why);

	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_CONNECTION),
			 errmsg("could not connect to storage \"%s\"", store->name),
			 errdetail_internal("%s.", detail),
			 errhint("See its options, and whether the server runs there.")));
}

/* ---------------------------------------------------------------------- */
/* Opening and closing */

/* What is unsent will lie in the context; nothing is opened. */
void
redis_socket_init(RedisSocket *socket, MemoryContext context)
{
	socket->context = context;
	socket->fd = PGINVALID_SOCKET;
}

/* It may be called for one that is closed, and by a close callback. */
void
redis_socket_close(RedisSocket *socket)
{
	redis_tls_end(&socket->tls);
	if (socket->fd != PGINVALID_SOCKET)
		(void) close(socket->fd);
	socket->fd = PGINVALID_SOCKET;
	if (socket->has_fd)
		ReleaseExternalFD();
	socket->has_fd = false;
	socket->takes_no_more = false;
	socket->error = NULL;
	socket->unsent.from = socket->unsent.to = 0;
}

static RedisAddress *
address_of_path(const SagazStore *store, const char *path, int *count)
{
	RedisAddress *address = palloc0(sizeof(RedisAddress));
	struct sockaddr_un *place = (struct sockaddr_un *) &address->place;

	sagaz_check_server_file(store, "path", true);
	if (strlen(path) >= sizeof(place->sun_path))
		redis_socket_refused(store, "The path of its socket is too long");
	place->sun_family = AF_UNIX;
	strcpy(place->sun_path, path);
	address->length = sizeof(struct sockaddr_un);
	*count = 1;
	return address;
}

static RedisAddress *
addresses_of_host(const SagazStore *store, const char *host, const char *port, int *count)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC,.ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	RedisAddress *addresses;
	int			room = 16;
	int			failed;

	addresses = palloc(room * sizeof(RedisAddress));
	failed = getaddrinfo(host, port, &hints, &found);
	if (failed != 0)
		redis_socket_refused(store, gai_strerror(failed));
	*count = 0;
	for (struct addrinfo *one = found; one && *count < room; one = one->ai_next)
	{
		addresses[*count].length = one->ai_addrlen;
		memcpy(&addresses[(*count)++].place, one->ai_addr, one->ai_addrlen);
	}
	freeaddrinfo(found);
	return addresses;
}

/* Send at once what is small, and notice an end that is gone. */
static void
set_tcp_options(int fd)
{
	const struct
	{
		int			level;
		int			name;
		int			value;
	}			options[] = {
		{IPPROTO_TCP, TCP_NODELAY, 1},
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE},
		{IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL},
		{IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT}
	};

	for (int i = 0; i < (int) lengthof(options); i++)
		(void) setsockopt(fd, options[i].level, options[i].name,
						  &options[i].value, sizeof(int));
}

/* Connect to an address; an errno, 0 if that worked. */
static int
connect_to_address(RedisSocket *self, const RedisAddress *address, int ms)
{
	int			error = 0;
	socklen_t	size = sizeof(error);

	self->fd = socket(address->place.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (self->fd == PGINVALID_SOCKET)
		return errno;
	if (address->place.ss_family != AF_UNIX)
		set_tcp_options(self->fd);
	if (connect(self->fd, (const struct sockaddr *) &address->place, address->length) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return errno;
	if (sagaz_wait_for_socket(self->fd, WL_SOCKET_CONNECTED, sagaz_wait_deadline(ms)) == 0)
		return ETIMEDOUT;
	if (getsockopt(self->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		return errno;
	return error;
}

/* How much time is left of that for connecting. */
static int
connect_ms_left(const RedisPeer *place, TimestampTz start)
{
	return Max(place->timeout -
			   TimestampDifferenceMilliseconds(start, GetCurrentTimestamp()), 0);
}

/* Connect to the first address that lets us. */
static void
connect_to_any(RedisSocket *socket, const SagazStore *store,
			   const RedisPeer *place, const RedisAddress *addresses, int count,
			   TimestampTz start)
{
	int			error = 0;

	for (int i = 0; i < count; i++)
	{
		error = connect_to_address(socket, &addresses[i],
								   connect_ms_left(place, start) / (count - i));
		if (error == 0)
			return;
		if (socket->fd != PGINVALID_SOCKET)
			(void) close(socket->fd);
		socket->fd = PGINVALID_SOCKET;
	}
	redis_socket_refused(store, error == ETIMEDOUT ?
						 "It did not answer within sagaz.connect_timeout" :
						 pg_strerror(error));
}

/* Have TLS with the host that we are connected to. */
static void
shake_hands(RedisSocket *socket, const SagazStore *store, const char *host,
			TimestampTz deadline)
{
	int			waits_for = -1;

	if (redis_tls_begin(&socket->tls, store, socket->fd, host))
		waits_for = redis_tls_shake_hands(&socket->tls, host);
	while (waits_for > 0)
	{
		if (sagaz_wait_for_socket(socket->fd, waits_for, deadline) == 0)
			redis_socket_refused(store, "It did not answer in TLS within sagaz.connect_timeout");
		waits_for = redis_tls_shake_hands(&socket->tls, host);
	}
	if (waits_for < 0)
		redis_socket_refused(store, socket->tls.error);
}

static void
prepare_tls(RedisSocket *socket, const SagazStore *store)
{
	redis_tls_check_options(store);
	if (!redis_tls_read_files(&socket->tls, store))
		redis_socket_refused(store, socket->tls.error);
}

/* Connect to a server of the storage, as its options say; an error if that fails. */
void
redis_socket_open(RedisSocket *socket, const SagazStore *store, const RedisPeer *place)
{
	bool		has_tls = redis_tls_is_wanted(store);
	RedisAddress *addresses;
	TimestampTz start;
	int			count;

	Assert(socket->fd == PGINVALID_SOCKET);
	if (has_tls)
		prepare_tls(socket, store);
	addresses = place->path ? address_of_path(store, place->path, &count) :
		addresses_of_host(store, place->host, place->port, &count);
	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_CAPACITY),
				 errmsg("too many files are open for another storage")));
	socket->has_fd = true;
	start = GetCurrentTimestamp();
	connect_to_any(socket, store, place, addresses, count, start);
	pfree(addresses);
	if (has_tls)
		shake_hands(socket, store, place->host,
					sagaz_wait_deadline(connect_ms_left(place, start)));
}

/* ---------------------------------------------------------------------- */
/* Moving bytes */

/* Make room for so many bytes more; false where memory lacks. */
static bool
make_room_unsent(RedisSocket *socket, size_t length)
{
	RedisUnsent *unsent = &socket->unsent;
	size_t		size = Max(unsent->size * 2, Max(unsent->to + length, 1024));
	char	   *bytes;

	if (unsent->size - unsent->to >= length)
		return true;
	bytes = MemoryContextAllocExtended(socket->context, size,
									   MCXT_ALLOC_NO_OOM | MCXT_ALLOC_HUGE);
	if (bytes == NULL)
		return false;
	if (unsent->bytes)
	{
		memcpy(bytes, unsent->bytes, unsent->to);
		pfree(unsent->bytes);
	}
	unsent->bytes = bytes;
	unsent->size = size;
	return true;
}

/* Have bytes sent with the next flush; false where memory lacks. */
bool
redis_socket_queue(RedisSocket *socket, const char *bytes, size_t length)
{
	RedisUnsent *unsent = &socket->unsent;

	if (!make_room_unsent(socket, length))
		return false;
	memcpy(unsent->bytes + unsent->to, bytes, length);
	unsent->to += length;
	return true;
}

/* Everything is sent. */
static void
empty_unsent(RedisUnsent *unsent)
{
	unsent->from = unsent->to = 0;
	if (unsent->size <= KEPT_UNSENT)
		return;
	pfree(unsent->bytes);
	unsent->bytes = NULL;
	unsent->size = 0;
}

/* The same three answers for both kinds: see redis_socket_read. */
static ssize_t
send_some(RedisSocket *socket, const char *bytes, size_t length)
{
	ssize_t		sent;

	if (socket->tls.ssl)
		return redis_tls_write(&socket->tls, bytes, length);
	do
		sent = send(socket->fd, bytes, length, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? 0 : sent;
}

/* Send of what is queued what the other end takes at once. */
void
redis_socket_flush(RedisSocket *socket)
{
	RedisUnsent *unsent = &socket->unsent;

	while (unsent->from < unsent->to && !socket->takes_no_more)
	{
		ssize_t		sent = send_some(socket, unsent->bytes + unsent->from,
									 unsent->to - unsent->from);

		if (sent == 0)
			return;
		if (sent < 0)
			socket->takes_no_more = true;
		else
			unsent->from += sent;
	}
	if (unsent->from == unsent->to)
		empty_unsent(unsent);
}

/*
 * Wait until there is something to be read, or room for what is unsent; false
 * when the time is over.
 */
bool
redis_socket_wait(const RedisSocket *socket, TimestampTz deadline)
{
	const RedisTls *tls = &socket->tls;
	int			events = tls->ssl ? tls->reads_after : WL_SOCKET_READABLE;

	if (tls->has_more)
		return true;
	if (socket->unsent.from < socket->unsent.to && !socket->takes_no_more)
		events |= tls->ssl ? tls->writes_after : WL_SOCKET_WRITEABLE;
	return sagaz_wait_for_socket(socket->fd, events, deadline) != 0;
}

/* Read what is there: how many bytes, 0 for none, -1 and an error. */
ssize_t
redis_socket_read(RedisSocket *socket, char *bytes, size_t size)
{
	ssize_t		got;

	if (socket->tls.ssl)
	{
		got = redis_tls_read(&socket->tls, bytes, size);
		if (got < 0)
			socket->error = socket->tls.error;
		return got;
	}
	do
		got = recv(socket->fd, bytes, size, 0);
	while (got < 0 && errno == EINTR);
	if (got > 0)
		return got;
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	socket->error = got == 0 ? "The server closed it" : pg_strerror(errno);
	return -1;
}

/*
 * Can it be used for the next command?  Not so if it was closed, or the other
 * end says what nobody asked for; with answers, something was asked.
 */
bool
redis_socket_is_quiet(RedisSocket *socket, bool answers)
{
	char		byte;
	ssize_t		got = 1;

	if (socket->fd == PGINVALID_SOCKET)
		return false;
	if (!socket->tls.has_more)
		got = recv(socket->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (got > 0)
		return answers || (socket->tls.ssl && redis_tls_is_quiet(&socket->tls));
	return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}
