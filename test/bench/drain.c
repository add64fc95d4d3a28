/*
 * drain.c
 *		The consumer of the benchmark: claims batches, receives the rows as a
 *		client does, and finishes them, in the manner of one of several queues.
 *
 * All queues are served by the same loop with prepared statements, one round
 * trip to claim a batch and one to finish it (where a queue finishes event by
 * event, one per event).  With -p the finish travels with the next claim.
 * Workers are processes; what they measured meets in shared memory.  One line
 * goes to standard output, tab-separated: events, seconds, median milliseconds
 * of a claim, and the same of the claims in the first and in the last window
 * (-o, default 10 seconds).
 */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define MAX_SAMPLES 300000
#define TEXTOID 25				/* as in pg_type */

/*
 * How a queue is consumed.  A claim may use $1, the worker, and $2, the key
 * of the last row of the claim before; %d stands for the batch size.  Its
 * first column named "key" goes to the finish as $1, the worker as $2.
 */
typedef struct queue_kind
{
	const char *name;
	const char *claim;
	const char *key;			/* column of the claim: event or batch */
	const char *finish;			/* NULL: nothing to finish */
	enum
	{
		BY_BATCH,				/* $1 is the key of the first row */
		BY_LAST,				/* $1 is the key of the last row */
		BY_LIST,				/* $1 is an array of all keys */
		BY_EVENT,				/* once for each row */
		BY_COMMIT				/* the claim stays open; finish is COMMIT */
	}			how;
	const char *empty;			/* key of a batch that came back empty */
} queue_kind;

#define SKIP_CLAIM \
	"WITH due AS (SELECT event_id FROM bench_skip.outbox " \
	"WHERE status = 'pending' ORDER BY created_at LIMIT %d " \
	"FOR UPDATE SKIP LOCKED) " \
	"UPDATE bench_skip.outbox o SET status = 'claimed', " \
	"claimed_at = now(), worker_id = $1 FROM due " \
	"WHERE o.event_id = due.event_id RETURNING o.*"

#define RECORD_CLAIM \
	"SELECT * FROM bench_record.event WHERE id > $2::bigint " \
	"ORDER BY id LIMIT %d"

static const queue_kind kinds[] = {
	{"sagaz",
		"SELECT * FROM sagaz.claim_batch($1, %d)", "batch_id",
	"SELECT sagaz.finish_batch($1::bigint, $2)", BY_BATCH, NULL},
	{"sagaz-group",
		"SELECT * FROM sagaz.claim_batch($1, %d, "
		"consumer_group => current_setting('bench.consumer_group'))", "batch_id",
	"SELECT sagaz.finish_batch($1::bigint, $2)", BY_BATCH, NULL},
	{"plain",
		"SELECT * FROM bench_plain.event WHERE id > $2::bigint ORDER BY id LIMIT %d",
	"id", NULL, BY_LAST, NULL},
	{"record", RECORD_CLAIM, "id", NULL, BY_LAST, NULL},
	{"position", RECORD_CLAIM, "id",
	"UPDATE bench_record.reader SET last_id = $1::bigint", BY_LAST, NULL},
	{"skip-batch", SKIP_CLAIM, "event_id",
		"UPDATE bench_skip.outbox SET status = 'sent', sent_at = now() "
	"WHERE event_id = ANY ($1::uuid[])", BY_LIST, NULL},
	{"skip-event", SKIP_CLAIM, "event_id",
		"UPDATE bench_skip.outbox SET status = 'sent', sent_at = now() "
	"WHERE event_id = $1::uuid", BY_EVENT, NULL},
	{"skip-delete",
		"DELETE FROM bench_delete.outbox WHERE id = ANY (ARRAY("
		"SELECT id FROM bench_delete.outbox ORDER BY id LIMIT %d "
		"FOR UPDATE SKIP LOCKED)) RETURNING *", "id",
	"COMMIT", BY_COMMIT, NULL},
	{"pgq",
		"SELECT b, e.* FROM (SELECT pgq.next_batch('bench', 'bench') AS b "
		"OFFSET 0) n, LATERAL pgq.get_batch_events(n.b) e "
		"WHERE n.b IS NOT NULL", "b",
		"SELECT pgq.finish_batch($1::bigint)", BY_BATCH,
	"SELECT pgq.next_batch('bench', 'bench')"},
};

typedef struct sample
{
	float		at;				/* seconds since the start */
	float		ms;
} sample;

typedef struct result
{
	long		events;
	double		start;
	double		end;
	int			nsamples;
	sample		samples[MAX_SAMPLES];
} result;

typedef struct options
{
	const queue_kind *kind;
	int			batch;
	int			workers;
	long		max_events;		/* of all workers; 0: until a claim is empty */
	double		seconds;		/* > 0: go on for so long, waiting for more */
	double		interval;		/* least seconds from claim to claim */
	bool		pipelined;		/* the finish waits for the next claim */
	double		window;
} options;

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void
pause_until(double when)
{
	double		left = when - now();

	if (left > 0)
		usleep(left * 1e6);
}

static void
fail(PGconn *conn)
{
	fprintf(stderr, "drain: %s", PQerrorMessage(conn));
	exit(1);
}

static PGresult *
checked(PGconn *conn, PGresult *res)
{
	ExecStatusType status = PQresultStatus(res);

	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK &&
		status != PGRES_PIPELINE_SYNC)
		fail(conn);
	return res;
}

static int	unanswered = 0;		/* statements sent */

/* Send a statement, a transaction of its own unless in a block. */
static void
send_statement(PGconn *conn, const char *name, const char *first,
			   const char *second)
{
	const char *params[2] = {first, second};

	if (!PQsendQueryPrepared(conn, name, 2, params, NULL, NULL, 0) ||
		!PQpipelineSync(conn))
		fail(conn);
	unanswered++;
}

/* Wait for all answers; returns that of the last statement, or NULL. */
static PGresult *
collect(PGconn *conn)
{
	PGresult   *last = NULL;

	for (; unanswered > 0; unanswered--)
	{
		PQclear(last);
		last = checked(conn, PQgetResult(conn));
		PQclear(PQgetResult(conn));
		PQclear(checked(conn, PQgetResult(conn)));
	}
	return last;
}

static void
prepare(PGconn *conn, const char *name, const char *sql)
{
	Oid			types[2] = {TEXTOID, TEXTOID};

	PQclear(checked(conn, PQprepare(conn, name, sql, 2, types)));
}

static PGconn *
connect_and_prepare(const options *opt)
{
	PGconn	   *conn = PQconnectdb("");
	char		sql[1000];

	if (PQstatus(conn) != CONNECTION_OK)
		fail(conn);
	snprintf(sql, sizeof(sql), opt->kind->claim, opt->batch);
	prepare(conn, "claim", sql);
	if (opt->kind->finish)
		prepare(conn, "finish", opt->kind->finish);
	if (opt->kind->empty)
		prepare(conn, "empty", opt->kind->empty);
	prepare(conn, "begin", "BEGIN");
	if (!PQenterPipelineMode(conn))
		fail(conn);
	return conn;
}

static PGresult *
claim(PGconn *conn, const options *opt, const char *worker, const char *last)
{
	if (opt->kind->how == BY_COMMIT)
		send_statement(conn, "begin", NULL, NULL);
	send_statement(conn, "claim", worker, last);
	return collect(conn);
}

/* The keys of all rows as an array literal. */
static const char *
key_list(PGresult *rows, int column)
{
	static char list[64 * 10000];
	char	   *end = list;

	for (int i = 0; i < PQntuples(rows); i++)
		end += sprintf(end, "%c%s", i ? ',' : '{', PQgetvalue(rows, i, column));
	strcpy(end, "}");
	return list;
}

static void
finish(PGconn *conn, const options *opt, PGresult *rows, const char *worker)
{
	int			column = PQfnumber(rows, opt->kind->key);

	if (opt->kind->finish == NULL)
		return;
	switch (opt->kind->how)
	{
		case BY_BATCH:
		case BY_COMMIT:
			send_statement(conn, "finish", PQgetvalue(rows, 0, column), worker);
			break;
		case BY_LAST:
			send_statement(conn, "finish",
						   PQgetvalue(rows, PQntuples(rows) - 1, column), worker);
			break;
		case BY_LIST:
			send_statement(conn, "finish", key_list(rows, column), worker);
			break;
		case BY_EVENT:
			for (int i = 0; i < PQntuples(rows); i++)
			{
				send_statement(conn, "finish", PQgetvalue(rows, i, column),
							   worker);
				if (!opt->pipelined)
					PQclear(collect(conn));
			}
			break;
	}
	if (!opt->pipelined)
		PQclear(collect(conn));
}

/* True if the claim without rows still gave a batch, which is finished. */
static bool
finish_empty(PGconn *conn, const options *opt, const char *worker)
{
	PGresult   *res;
	bool		found = false;

	if (opt->kind->how == BY_COMMIT)
	{
		send_statement(conn, "finish", NULL, NULL);
		PQclear(collect(conn));
	}
	if (opt->kind->empty)
	{
		send_statement(conn, "empty", NULL, NULL);
		res = collect(conn);
		found = !PQgetisnull(res, 0, 0);
		if (found)
		{
			send_statement(conn, "finish", PQgetvalue(res, 0, 0), worker);
			PQclear(collect(conn));
		}
		PQclear(res);
	}
	return found;
}

static bool
wanted(const options *opt, const result *r)
{
	if (opt->seconds > 0)
		return now() - r->start < opt->seconds;
	return opt->max_events == 0 || r->events < opt->max_events / opt->workers;
}

static void
work(PGconn *conn, const options *opt, int number, result *r)
{
	char		worker[30];
	char		last[40] = "0";

	snprintf(worker, sizeof(worker), "worker-%d", number);
	r->start = now();
	while (wanted(opt, r))
	{
		double		begin = now();
		PGresult   *rows = claim(conn, opt, worker, last);
		int			n = PQntuples(rows);
		bool		again;

		if (n > 0)
		{
			if (r->nsamples < MAX_SAMPLES)
				r->samples[r->nsamples++] =
					(sample) {begin - r->start, (now() - begin) * 1000};
			snprintf(last, sizeof(last), "%.39s",
					 PQgetvalue(rows, n - 1, PQfnumber(rows, opt->kind->key)));
			finish(conn, opt, rows, worker);
			r->events += n;
			r->end = now();
		}
		again = n > 0 || finish_empty(conn, opt, worker);
		PQclear(rows);
		if (!again && opt->seconds == 0)
			break;
		pause_until(begin + opt->interval);
	}
	PQclear(collect(conn));
	if (r->end == 0)
		r->end = now();
}

static int
by_ms(const void *a, const void *b)
{
	float		x = *(const float *) a;
	float		y = *(const float *) b;

	return (x > y) - (x < y);
}

/* Median of the claims that began between two times. */
static double
median(const options *opt, result *results, double from, double to)
{
	float	   *ms = malloc(sizeof(float) * MAX_SAMPLES * opt->workers);
	long		n = 0;
	double		value;

	for (int w = 0; w < opt->workers; w++)
		for (int i = 0; i < results[w].nsamples; i++)
			if (results[w].samples[i].at >= from && results[w].samples[i].at < to)
				ms[n++] = results[w].samples[i].ms;
	qsort(ms, n, sizeof(float), by_ms);
	value = n ? ms[n / 2] : 0;
	free(ms);
	return value;
}

static void
report(const options *opt, result *results)
{
	long		events = 0;
	double		start = results[0].start;
	double		end = results[0].end;
	double		length;

	for (int w = 0; w < opt->workers; w++)
	{
		events += results[w].events;
		start = results[w].start < start ? results[w].start : start;
		end = results[w].end > end ? results[w].end : end;
	}
	length = opt->seconds > 0 ? opt->seconds : end - start;
	printf("%ld\t%.6f\t%.4f\t%.4f\t%.4f\n", events, end - start,
		   median(opt, results, 0, 1e9),
		   median(opt, results, 0, opt->window),
		   median(opt, results, length - opt->window, 1e9));
}

static const queue_kind *
kind_named(const char *name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (name && strcmp(kinds[i].name, name) == 0)
			return &kinds[i];
	fprintf(stderr, "usage: drain [-n batch] [-w workers] [-m events] "
			"[-t seconds] [-i interval] [-o window] [-p] queue\n");
	exit(2);
}

static options
read_options(int argc, char **argv)
{
	options		opt = {.batch = 100, .workers = 1, .window = 10};
	int			c;

	while ((c = getopt(argc, argv, "n:w:m:t:i:o:p")) != -1)
		switch (c)
		{
			case 'n':
				opt.batch = atoi(optarg);
				break;
			case 'w':
				opt.workers = atoi(optarg);
				break;
			case 'm':
				opt.max_events = atol(optarg);
				break;
			case 't':
				opt.seconds = atof(optarg);
				break;
			case 'i':
				opt.interval = atof(optarg);
				break;
			case 'p':
				opt.pipelined = true;
				break;
			case 'o':
				opt.window = atof(optarg);
				break;
			default:
				kind_named(NULL);
		}
	opt.kind = kind_named(argv[optind]);
	return opt;
}

int
main(int argc, char **argv)
{
	options		opt = read_options(argc, argv);
	result	   *results;
	int			ready[2];		/* a byte from each worker that is connected */
	int			go[2];			/* closed to start them all */
	char		byte;
	int			status;
	bool		failed = false;

	results = mmap(NULL, sizeof(result) * opt.workers, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (results == MAP_FAILED || pipe(ready) != 0 || pipe(go) != 0)
	{
		perror("drain");
		return 1;
	}
	for (int w = 0; w < opt.workers; w++)
		if (fork() == 0)
		{
			PGconn	   *conn = connect_and_prepare(&opt);

			close(go[1]);
			if (write(ready[1], "", 1) != 1 || read(go[0], &byte, 1) != 0)
				return 1;
			work(conn, &opt, w, &results[w]);
			PQfinish(conn);
			return 0;
		}
	close(ready[1]);
	for (int w = 0; w < opt.workers; w++)
		failed |= read(ready[0], &byte, 1) != 1;
	close(go[1]);
	while (wait(&status) > 0)
		failed |= status != 0;
	if (failed)
		return 1;
	report(&opt, results);
	return 0;
}
