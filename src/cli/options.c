/*
 * options.c
 *		The options of all commands in one table, which reading them and
 *		--help both follow.
 */
#include "cli.h"

#include "options.h"

#define PART(member) offsetof(CliOptions, member)
#define MOVING (CLI_TRANSFER | CLI_MIGRATE)
#define BETWEEN (MOVING | CLI_VALIDATE)
#define OF_STORAGE (CLI_LIST_SAGAS | CLI_SHOW | CLI_STUCK | CLI_STATUS | \
					CLI_DEAD_LETTERS | CLI_REQUEUE)
#define OF_GROUP (CLI_STATUS | CLI_DEAD_LETTERS | CLI_REQUEUE)

const CliOption cli_option_table[] = {
	{"source", 0, OPTION_PLACE, "NAME|URL", PART(source.text), BETWEEN,
	"where the records are"},
	{"source-env", 0, OPTION_TEXT, "VARIABLE", PART(source.variable), BETWEEN,
	"the same, from an environment variable"},
	{"source-file", 0, OPTION_TEXT, "FILE", PART(source.file), BETWEEN,
	"the same, from the first line of a file"},
	{"target", 0, OPTION_PLACE, "NAME|URL", PART(target.text), BETWEEN,
	"where the records go"},
	{"target-env", 0, OPTION_TEXT, "VARIABLE", PART(target.variable), BETWEEN,
	"the same, from an environment variable"},
	{"target-file", 0, OPTION_TEXT, "FILE", PART(target.file), BETWEEN,
	"the same, from the first line of a file"},
	{"type", 0, OPTION_WORD, "saga|outbox|both", PART(type),
		CLI_TRANSFER | CLI_VALIDATE | CLI_ADD | CLI_STATS,
	"which records (default both)"},
	{"batch-size", 0, OPTION_COUNT, "N", PART(batch_size), MOVING,
	"records that are read and written at once (default 500)"},
	{"on-error", 0, OPTION_WORD, "fail|skip|retry", PART(on_error), MOVING,
	"what to do about a record that the target refuses (default fail)"},
	{"max-tries", 0, OPTION_COUNT, "N", PART(max_tries), MOVING,
	"with --on-error=retry, so often (default 10)"},
	{"delay", 0, OPTION_TEXT, "INTERVAL", PART(delay), MOVING,
	"and first after so long, then twice as long (default 200ms)"},
	{"accept-removals", 0, OPTION_FLAG, NULL, PART(accept_removals), MOVING,
	"follow removals though most is gone from the source"},
	{"no-validate", 0, OPTION_FLAG, NULL, PART(no_validate), CLI_TRANSFER,
	"do not compare both sides in the end"},
	{"switch", 0, OPTION_FLAG, NULL, PART(switch_over), CLI_MIGRATE,
	"in the end make the target the default storage"},
	{"dry-run", 0, OPTION_FLAG, NULL, PART(dry_run), MOVING,
	"only tell whether it can work, and how many records there are"},
	{"resume", 0, OPTION_COUNT, "ID", PART(resume), MOVING,
	"go on with a transfer that was stopped"},
	{"retry-errors", 0, OPTION_COUNT, "ID", PART(retry_errors), MOVING,
	"try the records again that a transfer skipped"},

	{"url-env", 0, OPTION_TEXT, "VARIABLE", PART(url.variable), CLI_ADD,
	"the URL is in an environment variable"},
	{"url-file", 0, OPTION_TEXT, "FILE", PART(url.file), CLI_ADD,
	"the URL is the first line of a file"},
	{"set", 0, OPTION_LIST, "OPTION=VALUE", PART(settings), CLI_ADD,
	"an option of the storage; may be given several times"},
	{"public", 0, OPTION_FLAG, NULL, PART(for_public), CLI_ADD,
	"everybody may use it, with the secret that is in the URL"},

	{"status", 0, OPTION_TEXT, "STATUS", PART(status), CLI_LIST_SAGAS,
	"only sagas of this status"},
	{"name", 0, OPTION_TEXT, "TEXT", PART(name), CLI_LIST_SAGAS,
	"only sagas whose name contains this"},
	{"older-than", 0, OPTION_TEXT, "INTERVAL", PART(older_than), CLI_STUCK,
	"not changed for so long (default 1 hour)"},
	{"event-type", 0, OPTION_TEXT, "TYPE", PART(event_type),
		CLI_REQUEUE | CLI_TAIL, "only events of this type"},
	{"saga", 0, OPTION_TEXT, "SAGA_ID", PART(saga), CLI_REQUEUE | CLI_TAIL,
	"only events of this saga"},
	{"all", 0, OPTION_FLAG, NULL, PART(all), CLI_REQUEUE,
	"all dead letters of the group"},
	{"spread", 0, OPTION_TEXT, "INTERVAL", PART(spread), CLI_REQUEUE,
	"they become due evenly over this time (default at once)"},
	{"reason", 0, OPTION_TEXT, "TEXT", PART(reason), CLI_REQUEUE,
	"a note to keep with them"},
	{"limit", 0, OPTION_COUNT, "N", PART(limit),
		CLI_LIST_SAGAS | CLI_DEAD_LETTERS | CLI_REQUEUE, "at most so many"},
	{"skip", 0, OPTION_COUNT, "N", PART(skip), CLI_LIST_SAGAS,
	"leave out the first N"},
	{"last", 0, OPTION_COUNT, "N", PART(limit), CLI_TAIL,
	"begin with the last N events (default 10)"},
	{"group", 0, OPTION_TEXT, "NAME", PART(group), OF_GROUP,
	"the consumer group (default: the storage's own; for status all groups)"},
	{"storage", 0, OPTION_PLACE, "NAME|URL", PART(storage), OF_STORAGE,
	"the storage (default as the server is set)"},

	{"interval", 0, OPTION_SECONDS, "SECONDS", PART(interval), MOVING | CLI_TAIL,
	"time between two lines of progress, or two looks for events"},
	{"json", 0, OPTION_FLAG, NULL, PART(json), CLI_ALL,
	"print JSON"},
	{"quiet", 'q', OPTION_FLAG, NULL, PART(quiet), CLI_ALL,
	"print nothing but errors and what was asked for"},

	{"dbname", 'd', OPTION_PLACE, "DBNAME", PART(dbname), CLI_ALL | CLI_CONNECTION,
	"database, connection string or URI"},
	{"host", 'h', OPTION_TEXT, "HOST", PART(host), CLI_ALL | CLI_CONNECTION,
	"server, or directory of its socket"},
	{"port", 'p', OPTION_TEXT, "PORT", PART(port), CLI_ALL | CLI_CONNECTION,
	"port of the server"},
	{"username", 'U', OPTION_TEXT, "NAME", PART(user), CLI_ALL | CLI_CONNECTION,
	"role to connect as"},
	{"no-password", 'w', OPTION_FLAG, NULL, PART(never_prompt), CLI_ALL | CLI_CONNECTION,
	"never ask for a password"},
	{"password", 'W', OPTION_FLAG, NULL, PART(prompt), CLI_ALL | CLI_CONNECTION,
	"ask for a password in any case"},
	{NULL, 0, OPTION_FLAG, NULL, 0, 0, NULL}
};

StaticAssertDecl(lengthof(cli_option_table) <= CLI_MAX_OPTIONS, "too many options");
