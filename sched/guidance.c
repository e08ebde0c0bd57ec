/* Classifier-free guidance, arXiv 2207.12598: two velocities, one answer. wan.md 3.10. */
#include "sched/sched.h"

void guidance_sums(struct lincomb sums[2], float scale)
{
    sums[0] = (struct lincomb){BUFFER_VELOCITY, 2, {BUFFER_VELOCITY, BUFFER_NEGATIVE}, {1, -1}};
    sums[1] = (struct lincomb){BUFFER_VELOCITY, 2, {BUFFER_NEGATIVE, BUFFER_VELOCITY}, {1, scale}};
}
