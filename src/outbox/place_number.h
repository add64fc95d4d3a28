/*
 * place_number.h
 *		Places in the outbox log.
 */
#ifndef SAGAZ_PLACE_NUMBER_H
#define SAGAZ_PLACE_NUMBER_H

#define SAGAZ_LANES 4
#define SAGAZ_SEQUENCE "outbox_seq"
#define SAGAZ_BATCH_SEQUENCE "batch_seq"

extern int	sagaz_place_compare(const void *a, const void *b);
extern int64 sagaz_draw_place_number(void);
extern int16 sagaz_lane_of(const char *saga_id, int length);

/* last_seq.c */
extern int64 sagaz_sequence_last(const char *sequence);
extern int64 sagaz_last_seq(void);
extern void sagaz_check_seq_cache(void);

#endif							/* SAGAZ_PLACE_NUMBER_H */
