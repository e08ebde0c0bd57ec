/* Stacks of methods: what composes, what is refused with which words, who yields to whom; schedules and
 * tiles, which members share. */
#include "tests/unit/attention/seam_methods.h"

/* --- composing --- */

static void stacks(void)
{
    static const struct {
        const char *text, *words; /* what it becomes, or what the refusal says */
        bool refused;
    } rows[] = {
        {"plain", "plain", false},
        {"", "plain", false},
        {"probe:every=5,last=2", "probe:every=5,first=1,last=2,block=8,keep=2", false},
        {"probe:word=x/y", "probe:every=2,first=1,last=0.1,block=8,keep=2,word=x/y", false},
        {"other+later:every=early", "other:keep=1,layers=0+later:every=early", false},
        {"none", "no attention method 'none'; there are plain, probe", true},
        {"probe:none=1", "attention probe has no option 'none'; it has every, first", true},
        {"plain:x", "has no option 'x'; it has none", true},
        {"probe:keep=99", "attention probe: keep is '99', wanted a whole number from 0 to 9", true},
        {"probe:keep", "keep is 'true'", true},
        {"later+later", "twice", true},
        {"probe+", "no attention method ''", true},
        {"+", "no attention method ''", true},
        {"probe:,", "has no option ''", true},
    };
    static const struct {
        const char *stack, *words; /* NULL: opens */
    } opens[] = {
        {"plain", NULL},
        {"other", NULL},
        {"other:keep=3+later", NULL}, /* two options of one name, each its own */
        {"probe+other", "probe and other both say what is kept"},
        {"later+probe", "later and probe both say when a plan stands"},
        {"probe:keep=7", "attention probe: keep is 7"},
        {"sorted", "orders tokens, which says nothing alone"},
        {"sorted+mild+sorted", "twice"},
        {"learned", "learned scores blocks, and nothing here reads it"},
        {"learned+other", "learned scores blocks"},
        {"rules+carried", "rules changes its plan between refreshes"},
        {"mild+other", NULL}, /* yields as a whole: raster, other's band */
    };
    struct err e = {0};
    char text[200];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int rc = attn_stack_check(rows[i].text, text, sizeof text, &e);
        if (rows[i].refused) {
            CHECK_MSG(rc < 0 && e.code == ERR_USAGE && strstr(e.msg, rows[i].words), "%s: %s",
                      rows[i].text, rc < 0 ? e.msg : "taken");
            continue;
        }
        CHECK_OK(rc);
        CHECK_STR(text, rows[i].words);
        char again[200];
        CHECK_OK(attn_stack_check(text, again, sizeof again, &e));
        CHECK_STR(again, text);
    }
    CHECK(attn_stack_check("probe", text, 8, &e) < 0 && e.code == ERR_USAGE);
    for (size_t i = 0; i < ARRAY_LEN(opens); i++) {
        struct attn_params p = params_of(opens[i].stack);
        struct session s;
        int rc = session_open(&s, &p, &e);
        if (opens[i].words)
            CHECK_MSG(rc < 0 && e.code == ERR_USAGE && strstr(e.msg, opens[i].words), "%s: %s",
                      opens[i].stack, rc < 0 ? e.msg : "opened");
        else
            CHECK_OK(rc);
        session_close(&s);
    }
    /* who yields to whom */
    struct attn_stack s;
    CHECK_OK(attn_stack_parse(&s, "mild+sorted", &e));
    CHECK_OK(attn_stack_resolve(&s, &shape, &e));
    CHECK(s.by[ATTN_AXIS_ORDER] == 1 && s.by[ATTN_AXIS_SELECT] == 0);
    attn_stack_free(&s);
    CHECK_OK(attn_stack_parse(&s, "mild+other", &e));
    CHECK_OK(attn_stack_resolve(&s, &shape, &e));
    CHECK(s.by[ATTN_AXIS_ORDER] == -1 && s.by[ATTN_AXIS_SELECT] == 1);
    attn_stack_free(&s);
    const char *names[4];
    CHECK_OK(attn_tensor_names("other+probe", names, 4, &e));
    CHECK(strcmp(names[0], "gate.weight") == 0 && !names[1]);
}

/* --- schedules, tiles --- */

static void schedules(void)
{
    static const int early[] = {6, 8, 10, 13, 16, 20, 24};
    struct err e = {0};
    size_t n = 0;
    for (int step = 0; step < 30; step++) {
        bool is = n < ARRAY_LEN(early) && early[n] == step;
        n += is;
        CHECK(schedule_at("early", 6, 27, step) == is);
        CHECK(schedule_at("6/8/10/13/16/20/24", 6, 27, step) == is);
        CHECK(schedule_at("5", 6, 27, step) == (step >= 6 && step < 27 && step % 5 == 1));
        CHECK(schedule_at(NULL, 6, 27, step));
    }
    static const char *const good[] = {"1", "30", "early", "6/8", "0/1/2"},
                             *const bad[] = {"",   "0",    "-1",  "late",
                                             "6/", "/6",   "6/6", "8/6",
                                             "x/", "6//8", "1.5", "6/99999999999999999999"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        CHECK_OK(schedule_check(good[i], &e));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_MSG(schedule_check(bad[i], &e) < 0 && e.code == ERR_USAGE, "every=%s", bad[i]);
    int tile[3];
    CHECK(tile_parse("4x2x16", tile, &e) == 0 && tile[0] == 4 && tile[1] == 2 && tile[2] == 16);
    CHECK(tile_parse("raster", tile, &e) == 0 && tile[0] == 0);
    static const char *const wrong[] = {"",      "4",    "4x4",   "4x4x4x4",
                                        "0x4x4", "4x4x", "axbxc", "4x4x-1"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        CHECK_MSG(tile_parse(wrong[i], tile, &e) < 0 && e.code == ERR_USAGE, "tile=%s", wrong[i]);
}

/* Every token once, and tiles whole but at the edges. */
static void tiles(void)
{
    struct attn_knobs knobs = {.tile = (char[]){"2x2x2"}};
    struct attn_part p = {.knobs = &knobs, .shape = &shape, .tokens = L};
    int32_t token[L];
    bool had[L] = {0};
    struct err e = {0};
    CHECK_OK(order_by_tile.make(&p, NULL, NULL, token, token, NULL, NULL, &e));
    for (int i = 0; i < L; i++) {
        CHECK(token[i] >= 0 && token[i] < L && !had[token[i]]);
        had[token[i]] = true;
    }
    static const int first[] = {0, 1, W, W + 1, H * W, H * W + 1, H * W + W, H * W + W + 1, 2};
    for (size_t i = 0; i < ARRAY_LEN(first); i++)
        CHECK(token[i] == first[i]);
}

int main(void)
{
    threads_set(1);
    stacks();
    schedules();
    tiles();
    return TEST_RESULT();
}
