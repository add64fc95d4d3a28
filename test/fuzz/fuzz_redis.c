/*
 * fuzz_redis.c
 *		All that the Redis backend does, with the input for the server's
 *		replies.
 *
 * The server is a thread that knows nothing of PostgreSQL: to each connection
 * it sends what a login is answered, and when the first command is there, the
 * input.  Asked to make a corpus, it stands between the backend and a real
 * server, and the replies of that are the inputs.
 */
#include "fuzz.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "backends/record/digest.h"
#include "backends/record/record.h"
#include "storage/storage.h"

/* The replies to what a login says: a name, HELLO, a database. */
#define OK "+OK\r\n"
#define GREETING OK "*6\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n" \
	"$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n" OK
#define MAX_INPUT 65536

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint8 input[MAX_INPUT];
static size_t input_size;
static const char *real_path;	/* of the real server, while a corpus is made */
static uint8 seen[MAX_INPUT];	/* its replies */
static size_t seen_size;
static char url[200];

/* ---------------------------------------------------------------------- */
/* The server */

static int
unix_socket(const char *path, bool listens)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int			fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	if (fd < 0 ||
		(listens ? bind(fd, (struct sockaddr *) &address, sizeof(address)) != 0 ||
		 listen(fd, 10) != 0 :
		 connect(fd, (struct sockaddr *) &address, sizeof(address)) != 0))
	{
		perror(path);
		abort();
	}
	return fd;
}

static bool
send_all(int fd, const uint8 *bytes, size_t size)
{
	while (size > 0)
	{
		ssize_t		sent = send(fd, bytes, size, MSG_NOSIGNAL);

		if (sent <= 0)
			return false;
		bytes += sent;
		size -= sent;
	}
	return true;
}

static void
answer(int client)
{
	static uint8 mine[MAX_INPUT];
	char		buffer[65536];
	size_t		size;

	/* the commands of a login come in one piece */
	if (recv(client, buffer, sizeof(buffer), 0) <= 0 ||
		!send_all(client, (const uint8 *) GREETING, strlen(GREETING)) ||
		recv(client, buffer, sizeof(buffer), 0) <= 0)
		return;
	pthread_mutex_lock(&lock);
	size = input_size;
	memcpy(mine, input, size);
	pthread_mutex_unlock(&lock);
	if (!send_all(client, mine, size))
		return;
	shutdown(client, SHUT_WR);
	while (recv(client, buffer, sizeof(buffer), 0) > 0)
		;
}

static void
pass_on(int client)
{
	int			server = unix_socket(real_path, false);
	struct pollfd fds[] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
	uint8		buffer[65536];

	while (poll(fds, 2, -1) > 0)
	{
		int			from = fds[0].revents ? 0 : 1;
		ssize_t		got = recv(fds[from].fd, buffer, sizeof(buffer), 0);

		if (got <= 0 || !send_all(fds[1 - from].fd, buffer, got))
			break;
		pthread_mutex_lock(&lock);
		if (from == 1 && seen_size + got <= MAX_INPUT)
		{
			memcpy(seen + seen_size, buffer, got);
			seen_size += got;
		}
		pthread_mutex_unlock(&lock);
	}
	close(server);
}

static void *
serve(void *listener)
{
	for (;;)
	{
		int			client = accept(*(int *) listener, NULL, NULL);

		if (client < 0)
			continue;
		if (real_path)
			pass_on(client);
		else
			answer(client);
		close(client);
	}
	return NULL;
}

static void
start_server(const char *path)
{
	static int	listener;
	pthread_t	thread;
	sigset_t	all;
	sigset_t	before;

	listener = unix_socket(path, true);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (pthread_create(&thread, NULL, serve, &listener) != 0)
		abort();
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	snprintf(url, sizeof(url), "unix://%s", path);
}

/* ---------------------------------------------------------------------- */
/* Operations */

static SagazRecord *
some_record(SagazKind kind)
{
	static const char *const texts[] = {
		"{\"saga_id\": \"one\", \"saga_name\": \"Order\", \"status\": \"executing\","
		" \"steps\": [{\"name\": \"a\"}]}",
		"{\"event_id\": \"00000000-0000-4000-8000-000000000001\", \"saga_id\": \"one\","
		" \"event_type\": \"E\", \"payload\": {\"n\": 1}, \"status\": \"pending\"}"
	};
	SagazRecord *record = palloc0(sizeof(SagazRecord));

	record->kind = kind;
	sagaz_record_from_json(kind, DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
																	CStringGetDatum(texts[kind]))),
						   record);
	return record;
}

static SagazVerdict
fuzz_change(SagazRecord *record, bool exists, void *arg)
{
	SagazRecord *ours = some_record(record->kind);

	if (exists && record->problem == NULL)
		return SAGAZ_REMOVE;
	*record = *ours;
	return SAGAZ_CHANGE;
}

static void
read_all(SagazStore *store, SagazKind kind, SagazOrder order, bool by_key)
{
	SagazFilter filter = {.order = order,.chunk = 3};
	SagazReader *reader;
	SagazRecord record;
	SagazDigest digest;

	if (by_key)
		filter.key = sagaz_record_key(some_record(kind));
	reader = sagaz_store_read_begin(store, kind, &filter);
	while (sagaz_store_read_next(reader, &record))
	{
		if (record.problem)
			continue;
		sagaz_digest(&record, &digest);
		(void) sagaz_record_to_json(&record);
	}
	sagaz_store_read_end(reader);
}

static void
claim(SagazStore *store)
{
	SagazClaimOrder order = {.worker_id = "w",.batch_id = 7,.limit = 5,.lease_us = 1000000};

	order.now = order.created_before = GetCurrentTimestamp();
	(void) store->backend->claim(store, &order);
}

static void
work_on_stream(SagazStore *store, int operation)
{
	SagazStreamId end = {1, 1};
	SagazStreamId next = {2, 0};

	switch (operation)
	{
		case 0:
			(void) store->backend->stream_end(store);
			break;
		case 1:
			(void) store->backend->stream_read(store, end, next);
			break;
		case 2:
			(void) store->backend->stream_append(store, end, some_record(SAGAZ_EVENT), &next, 1);
			break;
		default:
			store->backend->publish(store, some_record(SAGAZ_EVENT), 1);
	}
}

#define OPERATIONS 32

static void
operate(SagazStore *store, int operation)
{
	SagazKind	kind = operation % 2 ? SAGAZ_EVENT : SAGAZ_SAGA;
	SagazRecord *record = some_record(kind);
	SagazFilter filter = {.key = sagaz_record_key(record)};
	SagazMerged merged;

	switch (operation / 2)
	{
		case 0:
		case 1:
		case 2:
		case 3:
			read_all(store, kind, (SagazOrder) (operation / 2), false);
			break;
		case 4:
			read_all(store, kind, SAGAZ_FOR_COPY, false);
			break;
		case 5:
			read_all(store, kind, SAGAZ_ANY_ORDER, true);
			break;
		case 6:
			filter.key = NULL;
			(void) sagaz_count(store, kind, &filter);
			break;
		case 7:
			(void) sagaz_put(store, record, 1, SAGAZ_PUT_MISSING);
			break;
		case 8:
			store->backend->merge(store, record, 1, false, &merged);
			break;
		case 9:
			(void) store->backend->remove(store, kind, &filter.key, 1);
			break;
		case 10:
			(void) sagaz_edit(store, kind, &filter, true, fuzz_change, NULL);
			break;
		case 11:
			claim(store);
			break;
		case 12:
			(void) store->backend->finish(store, 7, "w", GetCurrentTimestamp());
			break;
		default:
			work_on_stream(store, operation - 26);
	}
}

/* The first byte says what is done, the others are the server's replies. */
void
fuzz_redis(const uint8 *data, size_t size)
{
	SagazStore *store;

	if (size == 0 || size > MAX_INPUT)
		return;
	pthread_mutex_lock(&lock);
	input_size = size - 1;
	memcpy(input, data + 1, input_size);
	pthread_mutex_unlock(&lock);
	store = sagaz_storage_open_named(url, SAGAZ_EVENT);
	operate(store, data[0] % OPERATIONS);
}

/* ---------------------------------------------------------------------- */
/* The corpus */

/* How long the replies to a login are at the begin of what was seen. */
static size_t
seen_greeting(void)
{
	const uint8 *end = NULL;

	if (seen_size > strlen(OK) && memcmp(seen, OK "*", strlen(OK "*")) == 0)
		end = memmem(seen + strlen(OK), seen_size - strlen(OK), "\r\n" OK, strlen("\r\n" OK));
	return end ? end + strlen("\r\n" OK) - seen : 0;
}

static void
write_seed(const char *corpus, int operation)
{
	char		path[1000];
	FILE	   *file;
	char		first = (char) operation;
	size_t		greeting;

	pthread_mutex_lock(&lock);
	greeting = seen_greeting();
	snprintf(path, sizeof(path), "%s/%d", corpus, operation);
	file = fopen(path, "w");
	if (file == NULL || fwrite(&first, 1, 1, file) != 1 ||
		fwrite(seen + greeting, 1, seen_size - greeting, file) != seen_size - greeting ||
		fclose(file) != 0)
	{
		perror(path);
		abort();
	}
	seen_size = 0;
	pthread_mutex_unlock(&lock);
}

/* Do everything with the real server at hand, and keep what it says. */
void
fuzz_redis_begin(const char *peer, const char *real, const char *corpus)
{
	real_path = real;
	start_server(peer);
	for (int operation = 0; operation < OPERATIONS; operation++)
	{
		SagazStore *store = sagaz_storage_open_named(url, SAGAZ_EVENT);

		operate(store, operation);
		write_seed(corpus, operation);
	}
	/* so that the next use connects anew */
	sagaz_storage_open_named(url, SAGAZ_EVENT)->broken = true;
	real_path = NULL;
}
