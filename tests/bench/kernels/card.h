/* Clock and power of the card while each contender runs, as the driver tells a thread that asks all
 * the time. Without NVIDIA's management library there are no figures, and nothing else changes. */
#ifndef DITGEN_TESTS_BENCH_KERNELS_CARD_H
#define DITGEN_TESTS_BENCH_KERNELS_CARD_H

struct card;
struct card *card_open(int contenders);
void card_now(struct card *c, int contender); /* who runs; -1: nobody */
void card_load(struct card *c, int contender, double *mhz, double *watt); /* means, 0: not seen */
void card_close(struct card *c);

#endif
