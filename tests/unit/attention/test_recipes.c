/* What recipes over shared members keep, against the words of their sections. */
#include "transcribed.h"

int main(void)
{
    threads_set(2);
    struct err e = {0};
    static const char *const stacks[] = {"subblock",
                                         "draft:block=32",
                                         "xattn:mass=.6,block=32",
                                         "sol:block=32",
                                         "moba:block=32",
                                         "haste:mass=.5",
                                         "tile:reach=2x5x5,block=32",
                                         "clear:reach=3x5x6,block=32"};
    for (size_t i = 0; i < ARRAY_LEN(stacks); i++) {
        struct planned p;
        fill(i + 1);
        CHECK_OK(planned_open(&p, stacks[i], &shape, &e));
        const struct attn_plan *plan = planned_call(&p, qkv[0], qkv[1], qkv[2], 9);
        for (int head = 0; head < HEADS; head++) {
            fresh(i == 0 || i == 5 ? 64 : 32);
            order_by(raster_key);
            switch (i) {
            case 0:
                score_runs_of(head, 4), keep_best_of(.25);
                break;
            case 1:
                tile[0] = 1, tile[1] = 8, tile[2] = 16;
                order_by(tile_key), score_runs_of(head, 1), keep_share_of(.25);
                break;
            case 2:
                score_antidiagonals_of(head, 8), keep_mass_of(.6);
                break;
            case 3:
                order_by(morton_key), score_runs_of(head, 1), keep_above_of(1);
                break;
            case 4:
                keep_picked_of(head, .1);
                break;
            case 5:
                score_runs_of(head, 1), keep_mass_of(.5);
                break;
            case 6:
            case 7:
                tile[0] = tile[1] = tile[2] = 4;
                order_by(tile_key);
                if (i == 6) keep_near_of(2, 5, 5, false);
                if (i == 7) keep_near_of(3, 5, 6, true);
                break;
            default:
                break;
            }
            compare(stacks[i], plan, head);
        }
        planned_close(&p);
    }
    return TEST_RESULT();
}
