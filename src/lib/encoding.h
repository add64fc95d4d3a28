/*
 * encoding.h
 *		Text of the database and of others.
 */
#ifndef SAGAZ_ENCODING_H
#define SAGAZ_ENCODING_H

#include "lib/sagaz.h"

/* To be called in a transaction, before the others may be called outside one. */
extern void sagaz_prepare_encodings(void);

/*
 * Other storages have UTF-8.  The text itself where it is that already; an
 * error (SZ003) if it has no place there.
 */
extern char *sagaz_to_utf8(const char *text);
extern char *sagaz_to_utf8_part(const char *text, int length);

/* The other way round, but NULL where the database has no place for it. */
extern char *sagaz_from_utf8(const char *bytes, size_t length);

/* Has that encoding, as far as is known, a place for text of the database? */
extern bool sagaz_text_fits(const char *text, int encoding);

#endif							/* SAGAZ_ENCODING_H */
