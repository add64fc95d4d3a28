/*
 * outbox.c
 *		sagaz outbox status, dead-letters, requeue and explain.
 */
#include "cli.h"

#include "fe_utils/string_utils.h"

/* Is the storage, $2, this database? */
#define IS_HERE \
	"coalesce($2::text, pg_catalog.current_setting('sagaz.outbox_storage')) = 'native'"

/*
 * All groups of this database; of another storage, or where --group says so,
 * one.
 */
int
cli_outbox_status(int argc, char **argv)
{
	const char *values[2] = {cli.group, cli.storage};

	cli_show(cli_connect(),
			 "SELECT s.\"group\", total, pending, claimed, sent, failed, dead_letter,"
			 " archived, oldest_pending, open_batches, paused, estimated"
			 " FROM (SELECT consumer_group FROM sagaz.consumer_group"
			 "   WHERE $1::text IS NULL AND " IS_HERE
			 "  UNION SELECT $1 WHERE $1 IS NOT NULL OR NOT " IS_HERE ") AS g,"
			 " sagaz.get_outbox_statistics(g.consumer_group, $2) AS s"
			 " ORDER BY s.\"group\"", 2, values);
	return CLI_OK;
}

int
cli_outbox_dead_letters(int argc, char **argv)
{
	const char *values[3];

	values[0] = cli.limit ? cli.limit : "100";
	values[1] = cli.group;
	values[2] = cli.storage;
	cli_show(cli_connect(),
			 "SELECT event_id, consumer_group, saga_id, event_type, created_at, retry_count, last_error"
			 " FROM sagaz.get_dead_letter_events($1::integer, $2, $3)", 3, values);
	return CLI_OK;
}

static char *
id_array(int n, char **ids)
{
	PQExpBufferData array;

	initPQExpBuffer(&array);
	appendPQExpBufferChar(&array, '{');
	for (int i = 0; i < n; i++)
		appendPGArray(&array, ids[i]);
	appendPQExpBufferChar(&array, '}');
	return array.data;
}

/* Nobody shall requeue everything by forgetting an argument. */
int
cli_outbox_requeue(int argc, char **argv)
{
	const char *values[8];

	if (cli.all ? argc > 0 || cli.event_type || cli.saga
		: argc == 0 && !cli.event_type && !cli.saga)
		cli_usage_error("say which dead letters: EVENT_ID, --event-type and --saga, or --all");
	values[0] = argc > 0 ? id_array(argc, argv) : NULL;
	values[1] = cli.event_type;
	values[2] = cli.saga;
	values[3] = cli.limit;
	values[4] = cli.spread ? cli.spread : "0";
	values[5] = cli.reason;
	values[6] = cli.group;
	values[7] = cli.storage;
	cli_show_one(cli_connect(),
				 "SELECT sagaz.requeue_dead_letters($1::uuid[], $2, $3, $4::integer,"
				 " $5::interval, $6, $7, $8) AS requeued", 8, values);
	return CLI_OK;
}

int
cli_outbox_explain(int argc, char **argv)
{
	const char *values[1] = {argv[0]};

	cli_show(cli_connect(),
			 "SELECT consumer_group, status, reason, next_attempt_at, retry_count,"
			 " last_error FROM sagaz.explain_event($1::uuid)", 1, values);
	return CLI_OK;
}
