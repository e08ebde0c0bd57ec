/* minference's lines and pisa's slope, against the words of their sections. */
#include "transcribed.h"

static double probed[L]; /* weight of columns, by token */

/* section 10, 1 to 4: probes, columns, slashes in buckets of 64 distances */
static void lines_of(int head, double slashes)
{
    enum { ROWS = 64, BUCKETS = (2 * L + 63) / 64 };
    double slash[BUCKETS] = {0};
    int inside[BUCKETS] = {0}, take = (int)ceil(slashes * L / 64);
    memset(probed, 0, sizeof probed);
    for (int r = 0; r < ROWS; r++) {
        int i = (2 * r + 1) * L / (2 * ROWS), last = -1;
        double row[L], sum = 0;
        for (int j = 0; j < L; j++)
            sum += row[j] = exp(dot(i, j, head));
        for (int j = 0; j < L; j++) {
            int b = (j - i + L) / 64;
            probed[j] += row[j] / sum;
            slash[b] += row[j] / sum;
            inside[b] += b != last;
            last = b;
        }
    }
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++) {
            want[a][b] = 0;
            for (int i = a * block; i < a * block + count_of(a); i++)
                for (int j = b * block; j < b * block + count_of(b); j++)
                    if (abs(i - j) <= 50) want[a][b] = 1;
        }
    for (int s = 0; s < BUCKETS; s++) {
        int better = 0;
        for (int u = 0; u < BUCKETS; u++)
            better += inside[u] && inside[s] && slash[u] / inside[u] > slash[s] / inside[s];
        if (!inside[s] || better >= take) continue;
        for (int a = 0; a < n; a++)
            for (int i = a * block; i < a * block + count_of(a); i++)
                for (int d = s * 64 - L; d < s * 64 - L + 64; d++)
                    if (i + d >= 0 && i + d < L) want[a][(i + d) / block] = 1;
    }
}

static void lines(void)
{
    fill(61);
    struct planned p = open_on("minference:block=16,columns=.03,slashes=.15");
    for (int step = 9; step < 11; step++) { /* columns of each plan are its own */
        if (step == 10) fill(62);
        const struct attn_plan *plan = call(&p, step);
        fresh(16);
        order_by(raster_key);
        for (int head = 0; head < HEADS; head++) {
            lines_of(head, .15);
            compare("minference", plan, head);
            int wrong = 0, many = (int)ceil(.03 * L);
            for (int row = head * n; row < (head + 1) * n; row++) {
                int at = (int)plan->column_ptr[row], end = (int)plan->column_ptr[row + 1];
                wrong += end - at != many;
                for (; at < end; at++) {
                    int better = 0;
                    for (int j = 0; j < L; j++)
                        better += probed[j] > probed[plan->columns[at]] * (1 + 1e-4);
                    wrong += better >= many;
                }
            }
            CHECK_MSG(wrong == 0, "minference, head %d: %d columns differ", head, wrong);
        }
    }
    planned_close(&p);
}

static double v_of(int token, int head, int c)
{
    return (double)qkv[2][(token * HEADS + head) * DIM + c];
}

/* section 12.2 with G under the final sum */
static void slope_of(float *o, const struct attn_plan *plan, int head, bool order1)
{
    static double km[NB][DIM], vm[NB][DIM], H_[DIM][DIM];
    memset(H_, 0, sizeof H_);
    for (int b = 0; b < n; b++) {
        mean_of(km[b], b * block, count_of(b), head, true);
        for (int c = 0; c < DIM; c++) {
            vm[b][c] = 0;
            for (int j = b * block; j < b * block + count_of(b); j++)
                vm[b][c] += v_of(j, head, c) / count_of(b);
        }
        for (int j = b * block; j < b * block + count_of(b); j++)
            for (int c = 0; c < DIM; c++)
                for (int x = 0; x < DIM; x++)
                    H_[c][x] += (k_of(j, head, c) - km[b][c]) * v_of(j, head, x);
    }
    for (int i = 0; i < L; i++) {
        double sum = 0, far = 0, out[DIM] = {0};
        for (int b = 0; b < n; b++) {
            bool exact = attn_bit(plan->kept, (size_t)(head * n + i / block), attn_words(n), b);
            double s = 0;
            for (int c = 0; c < DIM; c++)
                s += q_of(i, head, c) * km[b][c] / 4;
            if (!exact) far += count_of(b) * exp(s);
            for (int c = 0; !exact && c < DIM; c++)
                out[c] += count_of(b) * exp(s) * vm[b][c];
            for (int j = b * block; exact && j < b * block + count_of(b); j++) {
                sum += exp(dot(i, j, head));
                for (int c = 0; c < DIM; c++)
                    out[c] += exp(dot(i, j, head)) * v_of(j, head, c);
            }
        }
        sum += far;
        for (int x = 0; x < DIM; x++) {
            double slope = 0;
            for (int c = 0; order1 && c < DIM; c++)
                slope += q_of(i, head, c) * H_[c][x];
            o[(i * HEADS + head) * DIM + x] = (float)(out[x] / sum + slope / 4 * far / sum / L);
        }
    }
}

static void slopes(void)
{
    static float o[L * HEADS * DIM], other[L * HEADS * DIM];
    static const char *const stacks[] = {"pisa:block=32,order=0", "pisa:block=32,order=1"};
    fresh(32);
    order_by(raster_key);
    for (int order = 0; order < 2; order++) {
        fill(71);
        struct planned p = open_on(stacks[order]);
        const struct attn_plan *plan = call(&p, 9);
        for (int head = 0; head < HEADS; head++) {
            score_runs_of(head, 1);
            keep_best_of(.15);
            compare("pisa", plan, head);
            slope_of(o, plan, head, order == 1);
            slope_of(other, plan, head, order == 0);
        }
        check_close(stacks[order], p.o, o, ARRAY_LEN(o), 1e-5);
        CHECK(rel_l2(p.o, other, ARRAY_LEN(o)) > 1e-3); /* the slope is seen */
        planned_close(&p);
    }
    /* keys that are constant inside blocks have no slope */
    for (int t = 0; t < L; t++)
        memcpy(qkv[1] + (size_t)t * HEADS * DIM, qkv[1] + (size_t)(t / 32 * 32) * HEADS * DIM,
               HEADS * DIM * sizeof(float));
    struct planned a = open_on(stacks[0]), b = open_on(stacks[1]);
    call(&a, 9), call(&b, 9);
    check_close("pisa, constant keys", b.o, a.o, ARRAY_LEN(o), 1e-5);
    planned_close(&a);
    planned_close(&b);
}

int main(void)
{
    threads_set(2);
    lines();
    slopes();
    return TEST_RESULT();
}
