/*
 * options.c
 *		The options of all commands in one table, which reading them and
 *		--help both follow.
 */
#include "cli.h"

#include <getopt.h>
#include <math.h>

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
	"the consumer group (default sagaz-workers; for status all groups)"},
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

/* Is the word one of "a|b|c"? */
static bool
is_one_of(const char *word, const char *list)
{
	size_t		length = strlen(word);

	while (list != NULL)
	{
		if (strncmp(list, word, length) == 0 &&
			(list[length] == '|' || list[length] == '\0'))
			return true;
		list = strchr(list, '|');
		if (list != NULL)
			list++;
	}
	return false;
}

static bool
is_count(const char *text)
{
	return text[0] != '\0' && strlen(text) < 19 &&
		strspn(text, "0123456789") == strlen(text);
}

static double
read_seconds(const CliOption *option, const char *text)
{
	char	   *end;
	double		seconds = strtod(text, &end);

	if (end == text || *end != '\0' || !isfinite(seconds) ||
		seconds < 0.01 || seconds > 86400)
		cli_usage_error("--%s must be a number of seconds from 0.01 to 86400",
						option->name);
	return seconds;
}

static void
set_option(const CliOption *option, char *value)
{
	char	   *place = (char *) &cli + option->offset;

	switch (option->kind)
	{
		case OPTION_FLAG:
			*(bool *) place = true;
			break;
		case OPTION_PLACE:
			*(char **) place = cli_keep_secret(value);
			break;
		case OPTION_TEXT:
			*(char **) place = value;
			break;
		case OPTION_WORD:
			if (value[0] == '\0' || !is_one_of(value, option->argument))
				cli_usage_error("--%s must be one of %s", option->name,
								option->argument);
			*(char **) place = value;
			break;
		case OPTION_COUNT:
			if (!is_count(value))
				cli_usage_error("--%s must be a whole number", option->name);
			*(char **) place = value;
			break;
		case OPTION_SECONDS:
			*(double *) place = read_seconds(option, value);
			break;
		case OPTION_LIST:
			simple_string_list_append((SimpleStringList *) place, value);
			break;
	}
}

/* Values of getopt_long for options without a letter: place in the table. */
#define NO_LETTER 256
#define CODE_HELP 255
#define CODE_VERSION 254

/* What getopt_long is to know of the table. */
static void
make_getopt(int wanted, struct option *longs, char *letters)
{
	int			n = 0;

	for (int i = 0; cli_option_table[i].name; i++)
	{
		const CliOption *option = &cli_option_table[i];

		if ((option->commands & wanted) != wanted)
			continue;
		longs[n].name = option->name;
		longs[n].has_arg = option->kind == OPTION_FLAG ? no_argument : required_argument;
		longs[n].flag = NULL;
		longs[n++].val = NO_LETTER + i;
		if (option->letter == 0)
			continue;
		*letters++ = option->letter;
		if (option->kind != OPTION_FLAG)
			*letters++ = ':';
	}
	longs[n++] = (struct option) {"help", no_argument, NULL, CODE_HELP};
	longs[n++] = (struct option) {"version", no_argument, NULL, CODE_VERSION};
	longs[n] = (struct option) {NULL, 0, NULL, 0};
	strcpy(letters, "?V");
}

static const CliOption *
option_of_code(int code)
{
	if (code >= NO_LETTER)
		return &cli_option_table[code - NO_LETTER];
	for (const CliOption *option = cli_option_table; option->name; option++)
	{
		if (option->letter == code)
			return option;
	}
	return NULL;
}

/*
 * Read the options that stand behind argv[0], those of all commands where
 * "command" is NULL; returns the index of the first word that is none.  With
 * "permute" options may stand behind words, which are moved to the end.
 */
int
cli_parse(const CliCommand *command, const char *group, int argc, char **argv,
		  bool permute)
{
	struct option longs[lengthof(cli_option_table) + 2];
	char		letters[2 * lengthof(cli_option_table) + 3] = "+";
	int			code;

	cli_usage_of(command, group);
	make_getopt(command ? command->bit : CLI_ALL, longs, letters + (permute ? 0 : 1));
	argv[0] = "sagaz";
	optind = 0;
	while ((code = getopt_long(argc, argv, letters, longs, NULL)) != -1)
	{
		if (code == CODE_HELP || (code == '?' && strcmp(argv[optind - 1], "-?") == 0))
			cli_help(command, group);
		else if (code == CODE_VERSION || code == 'V')
		{
			puts("sagaz " SAGAZ_VERSION);
			exit(CLI_OK);
		}
		else if (option_of_code(code) == NULL)
			cli_usage_error(NULL);
		else
			set_option(option_of_code(code), optarg);
	}
	return optind;
}
