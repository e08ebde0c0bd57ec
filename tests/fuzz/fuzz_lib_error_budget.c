/* Promise: any bytes as the calibration of an error budget give numbers within their bounds, that a run can
 * be steered by, or one sentence; what was accepted is written and read back the same. */
#include "app/lib/error_budget.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
    if (!ok) abort();
}

static void steer(const struct error_budget *b)
{
    struct budget of = {.table = &b->table, .db = 40};
    int units = b->layers * b->heads;
    struct budget_run r = {.of = &of, .n_units = units, .group = 1, .end = b->of.steps};
    struct budget_state *s = calloc(1, budget_state_bytes(units));
    if (!s || (size_t)units * (size_t)b->of.steps > 4096) {
        free(s);
        return;
    }
    for (int step = 0; step < b->of.steps && step < 4; step++) {
        budget_step(s, &r, step);
        budget_moved(s, &r, 0, .1, 1);
    }
    free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error_budget b = {0}, back = {0};
    struct err e = {0};
    if (error_budget_parse(&b, (const char *)data, size, "x.ini", &e) < 0) {
        must(e.code && e.msg[0] && !b.units);
        return 0;
    }
    must(b.table.n_units == b.layers * b.heads && b.table.slope > 0 && b.table.power >= 1);
    steer(&b);
    char *text = error_budget_text(&b, "again");
    if (text && error_budget_parse(&back, text, strlen(text), "again.ini", &e) < 0)
        must(e.code == ERR_RESOURCE || strchr(b.of.attention, '"') ||
             strchr(b.of.attention, '\\') || strchr(b.of.attention, '\n') ||
             strpbrk(b.of.solver, " \"'#;\\\n") || !b.of.solver[0]);
    else if (text)
        must(back.mark == b.mark && back.table.n_units == b.table.n_units);
    free(text);
    error_budget_fini(&back);
    error_budget_fini(&b);
    return 0;
}
