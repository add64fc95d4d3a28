/*
 * url.h
 *		Parts of URLs.
 */
#ifndef SAGAZ_URL_H
#define SAGAZ_URL_H

#include "postgres.h"

#include "nodes/pg_list.h"

extern char *sagaz_url_decode(const char *part, size_t length,
							  void (*refuse) (const char *why));
extern List *sagaz_url_add_option(List *options, const char *name, char *value);

#endif							/* SAGAZ_URL_H */
