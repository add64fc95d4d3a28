/*
 * parse.c
 *		Reading the options of a command line.
 */
#include "cli.h"

#include <getopt.h>
#include <math.h>

#include "options.h"

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
			*(char **) place = cli_place_keep_secret(value);
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
cli_parse_options(const CliCommand *command, const char *group, int argc, char **argv,
				  bool permute)
{
	struct option longs[CLI_MAX_OPTIONS + 2];
	char		letters[2 * CLI_MAX_OPTIONS + 3] = "+";
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
