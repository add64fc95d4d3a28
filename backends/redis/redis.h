/*
 * redis.h
 *		What the files of the Redis backend share.
 *
 * hiredis is known to redis_connection.c alone, OpenSSL to redis_tls.c.  All is pipelined: commands
 * are queued, and an exchange sends them and reads the replies to all of
 * them, so that it costs one round trip, however many there are.
 *
 * The folder keeps sagas, events and streams in Redis as the Python library
 * does; what that has no place for goes into keys of our own beside them.
 * The scripts (.lua) run on the server and make an operation one step there.
 * It knows no other backend.
 */
#ifndef SAGAZ_REDIS_H
#define SAGAZ_REDIS_H

#include "backends/common/backend.h"

#include "lib/stringinfo.h"

typedef enum RedisType
{
	REDIS_STRING,
	REDIS_STATUS,
	REDIS_ERROR,
	REDIS_INTEGER,
	REDIS_NIL,
	REDIS_ARRAY
} RedisType;

/* In the memory context of the exchange; str ends with a zero byte, too. */
typedef struct RedisReply
{
	RedisType	type;
	int64		integer;
	char	   *str;
	size_t		length;
	int			count;
	struct RedisReply **elements;
} RedisReply;

/*
 * A command being put together.  Whatever the server answers with an error is
 * raised by the exchange; only an error that begins with the words of "spares"
 * comes to the caller, who knows what it means.
 */
typedef struct RedisCommand
{
	int			count;
	int			size;
	const char **words;
	size_t	   *lengths;
	const char *spares;			/* NULL: none; a constant */
} RedisCommand;

#define REDIS_SPARE_ALL ""

/* A script on the server, known there by its digest. */
typedef struct RedisScript
{
	const char *text;
	int			no;				/* place in RedisStore.digests */
} RedisScript;

#define REDIS_SCRIPTS 5

typedef struct RedisConnection RedisConnection;

typedef struct RedisStore
{
	SagazStore	base;
	RedisConnection *connection;
	char	   *digests[REDIS_SCRIPTS]; /* NULL: not loaded yet */
	bool		is_replica;		/* as it said when we connected */
	int			sentinel;		/* of the list, the one to ask first */

	char	   *saga_prefix;	/* this, and what follows, in UTF-8 */
	char	   *outbox_prefix;
	char	   *group;
	char	   *stream;			/* of the broker */
	int64		max_stream_length;	/* 0: no limit; -1: not said */
	int64		event_ttl;		/* seconds, 0 for ever; of what is sent */
	int64		saga_ttl;		/* and of finished sagas */
} RedisStore;

/* redis_connect.c */
extern void redis_connect(RedisStore *store);
extern void redis_ready(RedisStore *store);

/* redis_connection.c */
extern void redis_queue(RedisStore *store, RedisCommand *command);
extern void redis_queue_ahead(RedisStore *store, RedisCommand *command);
extern void redis_send_ahead(RedisStore *store);
extern RedisReply **redis_exchange(RedisStore *store, int *count);
extern uint64 redis_request(RedisStore *store);
extern RedisReply **redis_collect(RedisStore *store, uint64 request, int *count);
extern const char *redis_client_version(void);
extern RedisReply *redis_call(RedisStore *store, RedisCommand *command);
extern void redis_check_patience(RedisStore *store, TimestampTz since);

/* redis_command.c: commands, and what may be expected of replies */
extern RedisCommand *redis_command(const char *name);
extern RedisCommand *redis_words(const char *name,...);
#define redis_queue_words(store, ...) redis_queue(store, redis_words(__VA_ARGS__))
extern void redis_add_bytes(RedisCommand *command, const char *bytes,
							size_t length);
extern void redis_add(RedisCommand *command, const char *utf8);
extern void redis_add_text(RedisCommand *command, const char *text);
extern void redis_add_int(RedisCommand *command, int64 value);
extern void redis_judge(RedisStore *store, const RedisReply *reply,
						const char *spares);
extern void redis_expect(RedisStore *store, const RedisReply *reply,
						 RedisType type);
extern void redis_refuse_reply(RedisStore *store);
extern bool redis_is_error(const RedisReply *reply, const char *code);
extern char *redis_words_of(const RedisReply *reply);
extern char *redis_utf8(const char *text);

/* redis_script.c */
extern void redis_queue_script(RedisStore *store, const RedisScript *script,
							   const RedisCommand *arguments);
extern RedisReply *redis_run_script(RedisStore *store, const RedisScript *script,
									const RedisCommand *arguments);

/* redis_scan.c: keys, and what is read of them in batches */
typedef struct RedisId
{
	size_t		length;
	char	   *bytes;			/* with a zero byte behind them */
} RedisId;

typedef struct RedisScan RedisScan;

extern RedisScan *redis_scan_begin(RedisStore *store, const char *prefix,
								   const char *const *fetch);
extern void redis_scan_add_text(RedisScan *scan, const char *text);
extern void redis_scan_members(RedisScan *scan, const char *set);
extern void redis_scan_all(RedisScan *scan, const char *time_field);
extern int64 redis_scan_count(RedisScan *scan, const char *const *fetch);
extern void redis_scan_sort(RedisScan *scan);
extern void redis_scan_read_ahead(RedisScan *scan);
extern const RedisId *redis_scan_next(RedisScan *scan, RedisReply **reply);

/* redis_json.c */
extern void redis_append_json(StringInfo out, Jsonb *json);
extern void redis_append_json_string(StringInfo out, const char *text);
extern void redis_append_json_time(StringInfo out, TimestampTz time);

/* redis_saga.c and redis_event.c: the operations on a kind of records */
typedef struct RedisFound
{
	SagazRecord record;
	bool		stamped;		/* an event is wanted with its stamp */
	char	   *stamp;			/* changes with each change of the event */
} RedisFound;

/*
 * One kind of records.  Reading is the same for both, and is handed what
 * differs; read is false where the key is not one of a record.
 */
typedef struct RedisKind
{
	SagazKind	kind;
	const char *const *count;	/* command, and what follows the key: 1 for each */
	RedisScan  *(*scan) (RedisStore *store, const SagazFilter *filter);
	bool		(*read) (const RedisId *id, const RedisReply *reply,
						 RedisFound *found);
	int64		(*put) (RedisStore *store, SagazRecord *records, int count,
						SagazPutMode mode);
	int64		(*edit) (RedisStore *store, const SagazFilter *filter,
						 bool create, SagazEdit edit, void *arg);
} RedisKind;

extern const RedisKind redis_sagas; /* redis_saga.c */
extern const RedisKind redis_events;	/* redis_event.c */
extern bool redis_event_read(const RedisId *id, const RedisReply *reply,
							 RedisFound *found);

/* redis_read.c: reading, the same for both kinds */
typedef struct RedisReader
{
	SagazReader base;
	const RedisKind *kind;
	RedisScan  *scan;
	int64		count;			/* returned */
	List	   *sorted;			/* RedisFound, where an order is asked for */
	MemoryContext kept;
} RedisReader;

extern List *redis_find(RedisStore *store, const RedisKind *kind,
						const SagazFilter *filter);
extern void redis_read_begin(SagazReader *reader, const RedisKind *kind);
extern bool redis_read_next(SagazReader *reader, SagazRecord *record);
extern void redis_read_end(SagazReader *reader);

extern int64 redis_max_entries(const RedisStore *store);

/* redis_mark.c */
extern char *redis_mark(RedisStore *store, bool make);

/* redis_examine.c */
extern List *redis_examine(SagazStore *store, SagazKind kind);
extern int64 redis_room(SagazStore *base, int64 *waiting);

/* redis_claim.c */
extern char *redis_claim_limit_text(TimestampTz time);
extern List *redis_claim(SagazStore *store, const SagazClaimOrder *order);
extern int	redis_finish(SagazStore *store, int64 batch_id,
						 const char *worker_id, TimestampTz now);

/* redis_stream.c: the broker's stream */
extern void redis_publish(SagazStore *store, SagazRecord *records, int count);
extern SagazStreamId redis_stream_end(SagazStore *store);
extern bool redis_stream_append(SagazStore *store, SagazStreamId end,
								SagazRecord *records, const SagazStreamId *ids,
								int count);
extern List *redis_stream_read(SagazStore *store, SagazStreamId from,
							   SagazStreamId to);

/* redis_python.c */
extern char *redis_python_text(JsonbValue *value);

#endif							/* SAGAZ_REDIS_H */
