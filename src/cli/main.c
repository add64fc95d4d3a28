/*
 * main.c
 *		Finding the command that is meant.
 */
#include "cli.h"

#include <errno.h>
#include <locale.h>

static bool
is_group(const char *group)
{
	for (const CliCommand *command = cli_commands; command->group; command++)
	{
		if (strcmp(command->group, group) == 0)
			return true;
	}
	return false;
}

static const CliCommand *
find_command(const char *group, const char *name)
{
	for (const CliCommand *command = cli_commands; command->group; command++)
	{
		if (strcmp(command->group, group) == 0 &&
			strcmp(command->name, name) == 0)
			return command;
	}
	return NULL;
}

/*
 * Options that all commands have may stand before the words of the command,
 * too, so the line is read in three parts.
 */
int
main(int argc, char **argv)
{
	const CliCommand *command;
	const char *group;
	int			words;
	int			status;

	setlocale(LC_ALL, "");
	words = cli_parse_options(NULL, NULL, argc, argv, false);
	if (words >= argc)
		cli_usage_error("no command is given");
	group = argv[words];
	if (!is_group(group))
		cli_usage_error("unknown command \"%s\"", group);

	argc -= words;
	argv += words;
	words = cli_parse_options(NULL, group, argc, argv, false);
	if (words >= argc)
		cli_usage_error("no command is given after \"%s\"", group);
	command = find_command(group, argv[words]);
	if (command == NULL)
		cli_usage_error("unknown command \"%s %s\"", group, argv[words]);

	argc -= words;
	argv += words;
	words = cli_parse_options(command, group, argc, argv, true);
	argc -= words;
	argv += words;
	if (argc < command->min_arguments)
		cli_usage_error("an argument is missing:%s", command->arguments);
	if (command->max_arguments >= 0 && argc > command->max_arguments)
		cli_usage_error("too many arguments (the first is \"%s\")",
						argv[command->max_arguments]);
	cli.command = command;
	status = command->run(argc, argv);
	if (fflush(stdout) != 0 || ferror(stdout))
		cli_fail(CLI_FAILED, "could not write: %s", strerror(errno));
	return status;
}
