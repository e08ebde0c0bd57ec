/* How much error a clip may still take, and so what must be renewed and what may be carried on.
 *
 * A unit is what is carried from an earlier step, or renewed, on its own: a head of a layer, or a whole
 * step. What a clip loses is a sum over units u and windows, the steps s from one renewal to the next,
 *
 *     error = scale² Σ (Σ sqrt(gain[s] weight[u]) moved)²     over windows; inside: over a window's steps
 *     moved = (drift[r + 1][u]^power + ... + drift[s][u]^power)^(1 / power)
 *     dB    = at - slope * 10 log10(error)
 *
 * r        the step in which the unit was last renewed. drift: by how much of the layer's output what
 *          is carried moves from one step to the next
 * power    how steps add up: 1 along a straight way, 2 as a random walk; so error never falls with age
 * gain     what the clip's squared error answers to a squared drift in that step: early steps choose the
 *          clip, late ones its details. Measured by clips that carry in one step alone
 * weight   the same of layers. In a window errors point the same way, as all come from one kept value:
 *          amplitudes add (squares alone called windows of five steps 5 dB better than they were); those
 *          of other windows and units are taken as independent: squares add. What they share
 *          after all is in slope and at, fitted to whole clips; so a layer's own error is never taken for
 *          the clip's (attention-sparse.md 17.2: it misleads)
 * scale    how much more this clip moves than those that were calibrated with: measured when units are
 *          renewed, beside what was expected; one number, as it starts from 1 and few rows are looked at
 *
 * One rule decides: a unit is renewed when carrying it through this step would add more than the
 * price, which it does the more the longer its window is. The price is one for all units and steps: the highest for which the run as far as it went,
 * and what is foreseen of the rest, stay within the budget. It is found anew in each step, so what a clip
 * has more or less of is made up for. A larger budget never gives a lower price.
 *
 * Owner: the caller, whose memory a state is: zeroes are a run's beginning; copied, it goes on elsewhere.
 * A state that was read from a file is safe whatever it holds. No heap, no errors; threads: one. */
#ifndef DITGEN_BASE_BUDGET_H
#define DITGEN_BASE_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct budget_table { /* what calibration found */
    int n_steps, n_units;
    const float *gain; /* [n_steps] */
    const float *weight; /* [n_units] */
    const float
        *drift; /* [n_steps, n_units], to that power; of steps in which nothing was held: 0 */
    double power; /* 1 to 4 */
    double at, slope; /* dB of an error of 1; dB lost a dB of error */
    double margin; /* dB by which nine in ten prompts should fall short of it at most */
    double usual; /* of calibrated clips: moved² / expected², when units were renewed */
    double least, most; /* dB that were calibrated */
};

enum budget_mode {
    BUDGET_HOLD, /* the clip keeps db */
    BUDGET_PRICE, /* renews at that price; all other modes are calibration's */
    BUDGET_RENEW, /* renews everything in every step */
    BUDGET_PROBE, /* the same, but units from .. to - 1 in that step */
};

struct budget { /* what one run is told; lives as long as it */
    const struct budget_table *table; /* NULL in RENEW and PROBE */
    enum budget_mode mode;
    double db, price;
    int step, from, to;
    int rows; /* sampled a call to see how far units moved; 0: BUDGET_ROWS */
    /* May be NULL. A unit was renewed: moved² by how much, of what it holds on. */
    void (*moved)(void *ctx, int step, int unit, double moved);
    void *ctx;
};
#define BUDGET_ROWS 16 /* of one head in one call; hundreds of calls a run */

struct budget_state; /* see budget_state_bytes */
size_t budget_state_bytes(int n_units);

/* A state of one unit as numbers, for who keeps nothing else; zeroes are a run's beginning. */
#define BUDGET_NUMBERS 11
struct budget_one {
    double at[16]; /* a budget_state of one unit: budget_state_bytes(1) */
};
struct budget_state *budget_one(struct budget_one *s);
void budget_take(struct budget_one *s, const double numbers[BUDGET_NUMBERS]);
void budget_give(double numbers[BUDGET_NUMBERS], const struct budget_one *s);

struct budget_run { /* what decides beside the budget itself */
    const struct budget *of;
    int n_units;
    int group; /* units that are renewed together: 1, or all heads of a layer */
    int end; /* step < end: what is carried; those behind are computed anyway */
};
/* Once a step, before its first unit: what is renewed in it. Units that were never renewed are. */
void budget_step(struct budget_state *s, const struct budget_run *r, int step);
int budget_last_step(const struct budget_state *s); /* -1: none yet */
const uint8_t *budget_renews(const struct budget_state *s,
                             const struct budget_run *r); /* [n_units] */
/* A unit is being renewed in one of n calls (branches): moved² of sampled rows. */
void budget_moved(struct budget_state *s, const struct budget_run *r, int unit, double moved,
                  int n);

struct budget_spent { /* so far */
    double db; /* estimated of the whole clip when nothing more is carried; 0: no table */
    double error, scale; /* as above; raw: without scale */
    double raw, measured, expected; /* what calibration is made of */
    long renewed,
        carried; /* units, over steps; the first time that a unit is computed does not count */
};
void budget_spent(struct budget_spent *to, const struct budget_state *s,
                  const struct budget_run *r);

/* Before a run whose steps `first` to r->end - 1 carry: share[n_steps] of units renewed, for a clip that
 * moves `scale` times as much as is usual. Needs a table. state: scratch. */
void budget_foresee(float *share, struct budget_state *state, const struct budget_run *r, int first,
                    double scale);
/* scale² of sums of moved² and of what was expected. */
double budget_scale2(const struct budget_table *t, double measured, double expected);
double budget_db(const struct budget_table *t, double error);
double budget_error(const struct budget_table *t, double db);
/* Highest price at which a share of the units that may be carried from `first` on are renewed still. */
double budget_price_of(const struct budget_run *r, struct budget_state *state, int first,
                       double share);

#endif
