/*
 * help.c
 *		--help of the program, of a group of commands and of a command.
 */
#include "cli.h"

#include "options.h"

/* One line for each option that is of exactly this section. */
static void
list_options(int wanted, bool connection)
{
	for (const CliOption *option = cli_option_table; option->name; option++)
	{
		char		names[64];

		if ((option->commands & wanted) != wanted ||
			((option->commands & CLI_CONNECTION) != 0) != connection)
			continue;
		snprintf(names, sizeof(names), "--%s%s%s", option->name,
				 option->argument ? "=" : "",
				 option->argument ? option->argument : "");
		if (option->letter)
			printf("  -%c, %-26s %s\n", option->letter, names, option->help);
		else
			printf("  %-30s %s\n", names, option->help);
	}
}

static void
list_commands(const char *group)
{
	for (const CliCommand *command = cli_commands; command->group; command++)
	{
		char		words[64];

		if (group != NULL && strcmp(group, command->group) != 0)
			continue;
		snprintf(words, sizeof(words), "%s %s", command->group, command->name);
		printf("  %-22s %s\n", words, command->summary);
	}
}

static void
explain_places(const CliCommand *command)
{
	if (!(command->bit & (CLI_TRANSFER | CLI_MIGRATE | CLI_VALIDATE | CLI_ADD)))
		return;
	puts("\nA storage is \"native\", a name of \"sagaz storage list\", or a URL:\n"
		 "redis://, rediss://, redis+sentinel://, rediss+sentinel://, unix://,\n"
		 "sqlite:///path, postgresql://, memory://name.\n"
		 "Others can see the arguments of a program: keep a URL with a password in an\n"
		 "environment variable or a file, or give the storage a name.");
}

/* Everything there is to say at one level; does not return. */
void
cli_help(const CliCommand *command, const char *group)
{
	if (command != NULL)
		printf("sagaz %s %s: %s.\n\nUsage:\n  sagaz %s %s [OPTION]...%s\n\n",
			   group, command->name, command->summary, group, command->name,
			   command->arguments);
	else
	{
		printf("sagaz looks after sagas and outboxes in PostgreSQL.\n\n"
			   "Usage:\n  sagaz [OPTION]... %s COMMAND [OPTION]... [ARGUMENT]...\n\n"
			   "Commands:\n", group ? group : "GROUP");
		list_commands(group);
		putchar('\n');
	}
	puts("Options:");
	list_options(command ? command->bit : CLI_ALL, false);
	puts("  -V, --version                  print the version and exit\n"
		 "  -?, --help                     print this and exit\n"
		 "\nConnection, as of psql:");
	list_options(CLI_ALL, true);
	if (command != NULL)
		explain_places(command);
	puts("\nExit status: 0 done, for a transfer: every record arrived; 1 refused, failed or\n"
		 "stopped; 2 wrong usage; 3 no connection.");
	exit(CLI_OK);
}
