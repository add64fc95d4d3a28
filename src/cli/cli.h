/*
 * cli.h
 *		What the files of the client program "sagaz" share.
 *
 * The program is a thin shell around SQL: a command makes one or a few calls
 * and prints what they return, as psql does or as JSON.  Only a transfer is
 * more, since it runs for long: see transfer.c.
 *
 * What goes wrong ends the program where it is noticed; nothing needs undoing
 * here, the server undoes what was not committed.
 *
 * The folder stands apart: it is linked with libpq and the server's frontend
 * libraries, and includes nothing of the extension.
 */
#ifndef SAGAZ_CLI_H
#define SAGAZ_CLI_H

#include "postgres_fe.h"

#include "fe_utils/simple_list.h"
#include "libpq-fe.h"

#if PG_VERSION_NUM >= 180000
#define CLI_NORETURN pg_noreturn
#else
#define CLI_NORETURN pg_attribute_noreturn()
#endif

/* Exit status. */
#define CLI_OK				0	/* for a transfer: every record arrived */
#define CLI_FAILED			1	/* the server refused or failed, or was told to stop */
#define CLI_USAGE			2
#define CLI_NO_CONNECTION	3

/* Bits, so that an option can say which commands take it. */
#define CLI_TRANSFER		0x000001
#define CLI_MIGRATE			0x000002
#define CLI_LIST_STORAGES	0x000004
#define CLI_ADD				0x000008
#define CLI_DROP			0x000010
#define CLI_HEALTH			0x000020
#define CLI_STATS			0x000040
#define CLI_VALIDATE		0x000080
#define CLI_LIST_SAGAS		0x000100
#define CLI_SHOW			0x000200
#define CLI_STUCK			0x000400
#define CLI_STATUS			0x000800
#define CLI_TAIL			0x001000
#define CLI_DEAD_LETTERS	0x002000
#define CLI_REQUEUE			0x004000
#define CLI_EXPLAIN			0x008000
#define CLI_LIST_DELIVERIES	0x010000
#define CLI_PAUSE			0x020000
#define CLI_RESUME			0x040000
#define CLI_SHOW_DELIVERY	0x080000
#define CLI_ALL				0x0FFFFF

typedef struct CliCommand
{
	int			bit;
	const char *group;
	const char *name;
	const char *arguments;		/* as the usage line shows them */
	int			min_arguments;
	int			max_arguments;	/* -1: any number */
	/*
	 * Given the arguments behind the command's name, as many as it takes, when
	 * the options are in cli; returns the exit status.
	 */
	int			(*run) (int argc, char **argv);
	const char *summary;
} CliCommand;

/* A storage as the command line names it: one of the three. */
typedef struct CliPlace
{
	char	   *text;			/* a name or a URL */
	char	   *variable;		/* the environment variable that has it */
	char	   *file;			/* the file whose first line it is */
} CliPlace;

/* Values of all options; what is not given is NULL, 0 or false. */
typedef struct CliOptions
{
	/* connection */
	char	   *dbname;
	char	   *host;
	char	   *port;
	char	   *user;
	bool		never_prompt;
	bool		prompt;

	/* output */
	bool		json;
	bool		quiet;
	double		interval;

	/* transfers */
	CliPlace	source;
	CliPlace	target;
	char	   *type;
	char	   *batch_size;
	char	   *on_error;
	char	   *max_tries;
	char	   *delay;
	bool		accept_removals;
	bool		no_validate;
	bool		dry_run;
	bool		switch_over;
	char	   *resume;
	char	   *retry_errors;

	/* the others */
	CliPlace	url;
	bool		for_public;
	SimpleStringList settings;
	char	   *storage;
	char	   *group;
	char	   *status;
	char	   *name;
	char	   *limit;
	char	   *skip;
	char	   *older_than;
	char	   *event_type;
	char	   *saga;
	char	   *spread;
	char	   *reason;
	bool		all;

	const CliCommand *command;	/* the one that runs */
	int			encoding;		/* of the connection */
} CliOptions;

extern CliOptions cli;

/* commands.c */
extern const CliCommand cli_commands[];

/* parse.c */
extern int	cli_parse_options(const CliCommand *command, const char *group, int argc,
							  char **argv, bool permute);

/* help.c */
CLI_NORETURN extern void cli_help(const CliCommand *command, const char *group);

/* place.c */
extern char *cli_place(const CliPlace *place, const char *option);
extern char *cli_place_keep_secret(char *argument);
extern bool cli_place_has_secret(const char *url);
extern char *cli_place_without_secret(const char *url);

/* connect.c */
extern PGconn *cli_connect(void);
extern PGconn *cli_connect_again(void);

/* query.c */
extern PGresult *cli_query(PGconn *conn, const char *sql, int nvalues,
						   const char *const *values);
extern PGresult *cli_query_try(PGconn *conn, const char *sql, int nvalues,
							   const char *const *values);
extern PGresult *cli_query_collect(PGconn *conn);
CLI_NORETURN extern void cli_query_failed(PGconn *conn, PGresult *result);

/* signals.c */
extern int	cli_signal_interrupts(void);
extern int	cli_signal_socket(void);
extern void cli_catch_signals(void);
extern void cli_signal_cancel(PGconn *conn);

/* output.c */
extern void cli_print(const PGresult *result, const char *title, bool expanded);
extern void cli_show(PGconn *conn, const char *sql, int nvalues,
					 const char *const *values);
extern void cli_show_one(PGconn *conn, const char *sql, int nvalues,
						 const char *const *values);
extern void cli_done(const char *what, int n, char **names, const char *done);

/* harmless.c */
extern PGresult *cli_harmless_result(PGresult *result);
extern void cli_print_safely(FILE *to, const char *text);
extern void cli_print_message(FILE *to, const char *text);

/* fail.c */
extern void cli_server_error(const PGresult *result, PGconn *conn);
extern void cli_json_error(const PGresult *result, PGconn *conn);
extern void cli_notice(void *unused, const char *message);
extern void cli_warn(const char *format,...) pg_attribute_printf(1, 2);
CLI_NORETURN extern void cli_fail(int status, const char *format,...)
			pg_attribute_printf(2, 3);
extern void cli_print_json(const char *text);
extern void cli_usage_of(const CliCommand *command, const char *group);
CLI_NORETURN extern void cli_usage_error(const char *format,...)
			pg_attribute_printf(1, 2);

/* progress.c */
extern void cli_progress_begin(void);
extern void cli_progress_show(const PGresult *row);
extern void cli_progress_clear(void);
extern int	cli_progress_interval(void);
extern void cli_progress_duration(char *text, size_t size, double seconds);

/* commands */
extern int	cli_storage_transfer(int argc, char **argv);
extern int	cli_storage_migrate(int argc, char **argv);
extern int	cli_storage_validate(int argc, char **argv);
extern int	cli_check_transfer(PGconn *conn, const char *source,
							   const char *target, const char *type, bool count);
extern int	cli_storage_list(int argc, char **argv);
extern int	cli_storage_add(int argc, char **argv);
extern int	cli_storage_drop(int argc, char **argv);
extern int	cli_storage_health(int argc, char **argv);
extern int	cli_storage_stats(int argc, char **argv);
extern int	cli_saga_list(int argc, char **argv);
extern int	cli_saga_show(int argc, char **argv);
extern int	cli_saga_stuck(int argc, char **argv);
extern int	cli_outbox_status(int argc, char **argv);
extern int	cli_outbox_tail(int argc, char **argv);
extern int	cli_outbox_dead_letters(int argc, char **argv);
extern int	cli_outbox_requeue(int argc, char **argv);
extern int	cli_outbox_explain(int argc, char **argv);
extern int	cli_delivery_list(int argc, char **argv);
extern int	cli_delivery_show(int argc, char **argv);
extern int	cli_delivery_pause(int argc, char **argv);
extern int	cli_delivery_resume(int argc, char **argv);

#endif
