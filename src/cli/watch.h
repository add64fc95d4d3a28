/*
 * watch.h
 *		A CALL that runs for long, and what can be seen of it meanwhile.
 */
#ifndef SAGAZ_CLI_WATCH_H
#define SAGAZ_CLI_WATCH_H

#define WATCH_COLUMNS \
	"transfer_id, state, phase, current_type, pass, total," \
	" transferred + unchanged + kept + skipped + failed AS done, percent," \
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
	char	   *pid;			/* the server's process */
	char	   *since;			/* the server's time before it began */
	char	   *transfer_id;	/* NULL as long as it is unknown */
	bool		stopped;		/* the user has stopped it */
} CliCall;

extern PGresult *cli_watch_call(PGconn *conn, CliCall *call);

#endif
