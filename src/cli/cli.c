/*
 * cli.c
 *		What the command line has said, for every file of the program.
 */
#include "cli.h"

CliOptions	cli;
