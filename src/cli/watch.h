/*
 * watch.h
 *		A CALL that runs for long, and what can be seen of it meanwhile.
 */
#ifndef SAGAZ_CLI_WATCH_H
#define SAGAZ_CLI_WATCH_H

/* After going on, what a batch had done before it was stopped is counted twice. */
#define WATCH_DONE_OF_TOTAL \
	"least(transferred + unchanged + kept + skipped + failed, total) AS done"

#define WATCH_COLUMNS \
	"transfer_id, state, phase, current_type, pass, total," \
	" " WATCH_DONE_OF_TOTAL ", percent," \
	" records_per_second, seconds_left"

enum
{
	WATCH_ID, WATCH_STATE, WATCH_PHASE, WATCH_TYPE, WATCH_PASS, WATCH_TOTAL,
	WATCH_DONE, WATCH_PERCENT, WATCH_RATE, WATCH_LEFT
};

typedef struct CliCall
{
	const char *sql;
	int			nvalues;
	const char *values[8];
	const char *source;			/* as the user gave them, or NULL */
	const char *target;
	char	   *pid;			/* the server's process */
	char	   *since;			/* the server's time before it began */
	char	   *transfer_id;	/* NULL as long as it is unknown */
	bool		stopped;		/* the user has stopped it */
} CliCall;

extern PGresult *cli_watch_call(PGconn *conn, CliCall *call);

#endif
