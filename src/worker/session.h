/*
 * session.h
 *		What a handler leaves in its session is gone before the next call.
 */
#ifndef SAGAZ_SESSION_H
#define SAGAZ_SESSION_H

extern void sagaz_session_clear(void);
extern void sagaz_session_end(void);

#endif							/* SAGAZ_SESSION_H */
