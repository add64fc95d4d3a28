/*
 * outcome.h
 *		What came of a transfer.
 */
#ifndef SAGAZ_CLI_OUTCOME_H
#define SAGAZ_CLI_OUTCOME_H

#include "watch.h"

extern int	cli_outcome(PGconn *conn, CliCall *call, const PGresult *result);

#endif
