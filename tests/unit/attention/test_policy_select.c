/* Kept sets against the words of their sections, by sorting in the open. */
#include "attention/policy/select.h"
#include "tests/check.h"

enum { ROWS = 7, COLS = 45, WORDS = 2 };

static float scores[ROWS * COLS];
static uint32_t bits[ROWS * WORDS];
static int index_of[COLS];

static void clear(void) { memset(bits, 0, sizeof bits); }

static bool has(int r, int c) { return select_has(bits + r * WORDS, c); }

/* how many of row r stand before c: larger, or equal with a lower index */
static int rank(int r, int c)
{
    const float *s = scores + r * COLS;
    int n = 0;
    for (int i = 0; i < COLS; i++)
        n += s[i] > s[c] || (s[i] == s[c] && i < c);
    return n;
}

static void fill(struct test_rng *g, bool ties)
{
    for (int i = 0; i < ROWS * COLS; i++) {
        float x = (float)rng_unit(g);
        scores[i] = ties ? floorf(x * 4) : x;
    }
}

static void top_k(void)
{
    for (int k = 0; k <= COLS + 2; k++) {
        clear();
        select_top_k(bits, scores, ROWS, COLS, k, index_of);
        for (int r = 0; r < ROWS; r++)
            for (int c = 0; c < COLS; c++)
                CHECK(has(r, c) == (rank(r, c) < k));
    }
    int n = select_best(index_of, scores, COLS, 9);
    CHECK(n == 9);
    for (int i = 0; i < n; i++)
        CHECK(rank(0, index_of[i]) == i);
    float old = scores[3];
    scores[3] = -INFINITY;
    CHECK(select_best(index_of, scores, COLS, COLS) == COLS - 1);
    scores[3] = old;
}

static void top_p(double p, int least)
{
    clear();
    select_top_p(bits, scores, ROWS, COLS, p, least, index_of);
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int c = 0; c < COLS; c++)
            sum += (double)scores[r * COLS + c];
        for (int c = 0; c < COLS; c++) {
            double before = 0;
            int at = rank(r, c);
            for (int i = 0; i < COLS; i++)
                if (rank(r, i) < at) before += (double)scores[r * COLS + i];
            if (fabs(before - p * sum) < 1e-9 * sum) continue; /* at the cut: either */
            CHECK_MSG(has(r, c) == (at == 0 || at < least || before < p * sum), "row %d, rank %d",
                      r, at);
        }
    }
}

static void others(void)
{
    static float all[ROWS * COLS];
    clear();
    select_percentile(bits, scores, ROWS, COLS, .25, all);
    int below = (int)(.75 * ROWS * COLS);
    for (int i = 0; i < ROWS * COLS; i++) {
        int smaller = 0;
        for (int j = 0; j < ROWS * COLS; j++)
            smaller += scores[j] < scores[i];
        int equal = 0;
        for (int j = 0; j < ROWS * COLS; j++)
            equal += scores[j] == scores[i];
        CHECK(has(i / COLS, i % COLS) == (smaller + equal > below));
    }
    clear();
    select_percentile(bits, scores, ROWS, COLS, 1, all);
    CHECK(select_count(bits, ROWS, COLS) == ROWS * COLS);

    clear();
    select_threshold(bits, scores, ROWS, COLS, 1);
    for (int r = 0; r < ROWS; r++) {
        double mean = 0, spread = 0;
        for (int c = 0; c < COLS; c++)
            mean += (double)scores[r * COLS + c] / COLS;
        for (int c = 0; c < COLS; c++)
            spread += pow((double)scores[r * COLS + c] - mean, 2) / COLS;
        double cut = mean + sqrt(spread + 1e-6);
        for (int c = 0; c < COLS; c++)
            if (fabs((double)scores[r * COLS + c] - cut) > 1e-6)
                CHECK(has(r, c) == ((double)scores[r * COLS + c] > cut));
    }
    clear();
    select_threshold(bits, scores, ROWS, COLS, -1e30f);
    CHECK(select_count(bits, ROWS, COLS) == ROWS * COLS);
}

static void places(void)
{
    enum { N = 100 };
    static uint32_t map[N * 4];
    memset(map, 0, sizeof map);
    select_band(map, N, N, .3);
    double kept = select_count(map, N, N) / (double)(N * N);
    CHECK_MSG(fabs(kept - .3) < .02, "%g", kept);
    for (int r = 0; r < N; r++)
        for (int c = 0; c < N; c++) {
            CHECK(select_has(map + r * 4, c) == select_has(map + c * 4, r));
            if (r == c) CHECK(select_has(map + r * 4, c));
        }
    clear();
    select_band(bits, ROWS, COLS, 0); /* a row is as long as 6.4 columns: all it touches */
    for (int c = 0; c < COLS; c++)
        for (int r = 0; r < ROWS; r++)
            CHECK(has(r, c) == ((c + 1) * ROWS > r * COLS && c * ROWS < (r + 1) * COLS));
    clear();
    select_band(bits, ROWS, COLS, 1);
    CHECK(select_count(bits, ROWS, COLS) == ROWS * COLS);

    clear();
    select_column(bits, ROWS, COLS, 33);
    CHECK(select_count(bits, ROWS, COLS) == ROWS && has(4, 33));
    select_row(bits, COLS, 2);
    CHECK(select_count(bits, ROWS, COLS) == ROWS + COLS - 1);
    clear();
    select_row(bits, COLS, 1);
    CHECK(select_fill(bits, ROWS, COLS) == ROWS - 1);
    CHECK(has(3, 3 * COLS / ROWS) && !has(1 + 1, 0));
    CHECK(select_fill(bits, ROWS, COLS) == 0);
}

int main(int argc, char **argv)
{
    struct test_rng g = test_seed(argc, argv);
    for (int ties = 0; ties < 2; ties++) {
        fill(&g, ties);
        top_k();
        for (double p = 0; p <= 1; p += .125)
            top_p(p, 0), top_p(p, 5);
        others();
    }
    places();
    return TEST_RESULT();
}
