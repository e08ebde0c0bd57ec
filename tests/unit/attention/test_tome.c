/* Merged keys against attention-sparse.md 12.7 in plain loops: who goes into whom, and what comes of
 * it. */
#include "transcribed.h"

enum { FRAME = H * W };

static double cosine(int a, int b, int head)
{
    double ab = 0, aa = 0, bb = 0;
    for (int c = 0; c < DIM; c++) {
        ab += k_of(a, head, c) * k_of(b, head, c);
        aa += k_of(a, head, c) * k_of(a, head, c);
        bb += k_of(b, head, c) * k_of(b, head, c);
    }
    return ab / sqrt(aa * bb);
}

static int into[L];

/* The most alike first, until a share `keep` is left. Returns how many keys are. */
static int merge(int head, double keep, double alike)
{
    double like[L];
    int want_into[L], left = L, most = (int)floor((1 - keep) * L + 1e-9);
    for (int t = 0; t < L; t++) {
        like[t] = -2;
        want_into[t] = t;
        for (int side = -1; t / FRAME % 2 && side < 2; side += 2) {
            int other = t + side * FRAME;
            if (other >= L || cosine(t, other, head) < alike || cosine(t, other, head) <= like[t])
                continue;
            like[t] = cosine(t, other, head);
            want_into[t] = other;
        }
    }
    for (int t = 0; t < L; t++) {
        int before = 0;
        for (int u = 0; u < L; u++)
            before += like[u] > like[t] || (like[u] == like[t] && u < t);
        into[t] = like[t] > -2 && before < most ? want_into[t] : t;
        left -= into[t] != t;
    }
    return left;
}

static void check(const char *stack, double keep, double alike)
{
    struct planned p = open_on(stack);
    struct attn_stats st;
    int kept = 0, wrong = 0;
    call(&p, 9);
    for (int head = 0; head < HEADS; head++) {
        int left = merge(head, keep, alike);
        kept += left;
        CHECK_MSG(p.a->launches[head].plan.k.len == left, "%s: %d keys are left, wanted %d", stack,
                  p.a->launches[head].plan.k.len, left);
        static double k[L][DIM], v[L][DIM], n_of[L];
        memset(k, 0, sizeof k), memset(v, 0, sizeof v), memset(n_of, 0, sizeof n_of);
        for (int t = 0; t < L; t++) {
            n_of[into[t]]++;
            for (int c = 0; c < DIM; c++) {
                k[into[t]][c] += k_of(t, head, c);
                v[into[t]][c] += (double)qkv[2][(t * HEADS + head) * DIM + c];
            }
        }
        for (int i = 0; i < L; i += 13) {
            double o[DIM] = {0}, sum = 0;
            for (int j = 0; j < L; j++) {
                double s = 0;
                if (n_of[j] == 0) continue;
                for (int c = 0; c < DIM; c++)
                    s += q_of(i, head, c) * k[j][c] / n_of[j];
                double w = n_of[j] * exp(s / sqrt((double)DIM));
                for (int c = 0; c < DIM; c++)
                    o[c] += w * v[j][c] / n_of[j];
                sum += w;
            }
            for (int c = 0; c < DIM; c++)
                wrong += fabs(o[c] / sum - (double)p.o[(i * HEADS + head) * DIM + c]) > 1e-5;
        }
    }
    CHECK_MSG(wrong == 0, "%s: %d values differ", stack, wrong);
    attn_stats(p.a, &st);
    CHECK(fabs(st.density - (double)kept / (HEADS * L)) < 1e-9 && kept < HEADS * L);
    planned_close(&p);
}

int main(void)
{
    struct err e = {0};
    struct planned p;
    threads_set(2);
    fill(12);
    check("tome:keep=.5,alike=-1", .5, -1);
    check("tome:keep=.8,alike=.3", .8, .3);
    check("tome:keep=.5,alike=.7", .5, .7);
    for (int t = FRAME; t < 2 * FRAME;
         t++) /* a frame that stands still: merged, and nothing is lost */
        for (int i = 0; i < HEADS * DIM; i++)
            for (int x = 1; x < 3; x++)
                qkv[x][t * HEADS * DIM + i] = qkv[x][(t - FRAME) * HEADS * DIM + i];
    struct planned plain = open_on("dense");
    p = open_on("tome:keep=.84,alike=.999");
    call(&plain, 9);
    call(&p, 9);
    CHECK(p.a->launches[0].plan.k.len < L - FRAME / 2);
    check_close("a frame that stands still", p.o, plain.o, (size_t)L * HEADS * DIM, 1e-5);
    planned_close(&plain);
    planned_close(&p);
    CHECK(planned_open(&p, "tome+svg2", &shape, &e) < 0 && strstr(e.msg, "tome") &&
          strstr(e.msg, "svg2"));
    planned_close(&p);
    p = open_on("tome+resid:density=0");
    planned_close(&p);
    return TEST_RESULT();
}
