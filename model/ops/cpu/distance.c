/* Sums of pieces by several threads, added in their order; see distance.h. */
#include "model/ops/cpu/distance.h"

#include "model/base/threads.h"

#include <math.h>

#define PIECE ((size_t)1 << 14) /* elements */
#define PIECES 256 /* at a time: their sums lie on the stack */

struct pieces {
    const float *a, *b;
    size_t n;
    double (*sums)[2]; /* [pieces] */
};

static void sum_piece(void *ctx, int task, int worker)
{
    const struct pieces *p = ctx;
    size_t i = (size_t)task * PIECE, end = i + PIECE < p->n ? i + PIECE : p->n;
    double apart = 0, size = 0;
    (void)worker;
    for (; i < end; i++) {
        double b = p->b ? (double)p->b[i] : 0;
        apart += fabs((double)p->a[i] - b);
        size += fabs(b);
    }
    p->sums[task][0] = apart;
    p->sums[task][1] = size;
}

void sum_distance(double to[2], const float *a, const float *b, size_t n)
{
    double sums[PIECES][2];
    to[0] = to[1] = 0;
    for (size_t at = 0; at < n; at += PIECE * PIECES) {
        size_t len = n - at < PIECE * PIECES ? n - at : PIECE * PIECES;
        int tasks = (int)((len + PIECE - 1) / PIECE);
        struct pieces p = {.a = a + at, .b = b ? b + at : NULL, .n = len, .sums = sums};
        threads_run(tasks, sum_piece, &p);
        for (int i = 0; i < tasks; i++)
            to[0] += sums[i][0], to[1] += sums[i][1];
    }
}
