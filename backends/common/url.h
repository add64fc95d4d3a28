/*
 * url.h
 *		Parts of URLs.
 */
#ifndef SAGAZ_URL_H
#define SAGAZ_URL_H

extern char *sagaz_url_decode(const char *part, size_t length);

#endif							/* SAGAZ_URL_H */
