/*
 * error_text.c
 *		An error in one line, for where it is kept and nobody sees the rest.
 *
 * The detail says what is wrong; the message of a storage only says with
 * which.
 */
#include "lib/sagaz.h"

/*
 * In the present memory context, or the error's own message: copy it if it
 * is to outlive the error.
 */
char *
sagaz_error_text(const ErrorData *error)
{
	char	   *message = error->message ? error->message : "unknown error";

	return error->detail ? psprintf("%s: %s", message, error->detail) : message;
}
