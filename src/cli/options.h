/*
 * options.h
 *		The table of options; parse.c and help.c know it, nobody else.
 */
#ifndef SAGAZ_CLI_OPTIONS_H
#define SAGAZ_CLI_OPTIONS_H

typedef enum CliOptionKind
{
	OPTION_FLAG,				/* bool */
	OPTION_TEXT,				/* char * */
	OPTION_PLACE,				/* the same, and may have a password in it */
	OPTION_WORD,				/* one of the words of "argument" */
	OPTION_COUNT,				/* char *, digits only */
	OPTION_SECONDS,				/* double */
	OPTION_LIST					/* SimpleStringList */
} CliOptionKind;

typedef struct CliOption
{
	const char *name;
	char		letter;			/* 0: none */
	CliOptionKind kind;
	const char *argument;		/* as --help shows it */
	size_t		offset;			/* in CliOptions */
	int			commands;		/* bits of those that take it */
	const char *help;
} CliOption;

/* Marks the options of the connection, which all commands take. */
#define CLI_CONNECTION 0x100000

#define CLI_MAX_OPTIONS 64

extern const CliOption cli_option_table[];

#endif
