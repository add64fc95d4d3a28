/*
 * seq.h
 *		Places in the outbox log.
 */
#ifndef SAGAZ_SEQ_H
#define SAGAZ_SEQ_H

#define SAGAZ_LANES 4

extern int64 sagaz_draw_seq(void);
extern int64 sagaz_last_seq(void);
extern void sagaz_check_sequence_cache(void);
extern int16 sagaz_lane_of(const char *saga_id, int length);

#endif							/* SAGAZ_SEQ_H */
