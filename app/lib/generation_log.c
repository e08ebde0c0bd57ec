/* What a generation says of itself: each phase on a device, what attention and the step cache did, a clip
 * of one colour. */
#include "app/lib/job.h"

#include <stdio.h>

#include "model/model.h"

static const char *const phase_words[DITGEN_PHASES] = {"text", "denoise", "decode"};

/* The peak on the card of a phase beside what was predicted: both with all that its use takes. */
static void log_vram(struct job *j, enum ditgen_phase phase, struct device *d)
{
    const double mib = 1048576;
    device_taken(d);
    j->d->device_peak[phase] = device_taken_peak(d);
    size_t held = device_peak(d), taken = device_taken_peak(d), beside = device_beside(d);
    log_line(j->run.params.log, 1,
             "%s: peak on %s %.1f MiB%s, %.1f predicted: %.1f allocated, %.1f beside (context, "
             "code, graphs; %.1f predicted)",
             phase_words[phase], device_name(d), (double)(taken ? taken : held + beside) / mib,
             taken ? "" : " as far as is known", (double)j->vram.bytes[phase] / mib,
             (double)held / mib, taken > held ? (double)(taken - held) / mib : (double)beside / mib,
             (double)beside / mib);
}

void job_log_device(struct job *j, enum ditgen_phase phase)
{
    struct device *d = j->run.params.device;
    long counts[DEVICE_OPS];
    char line[512];
    int n = 0;
    device_counts(d, counts);
    device_counts_reset(d);
    for (int i = 0; i < DEVICE_OPS; i++)
        if (counts[i] && n < (int)sizeof line - 32)
            n += snprintf(line + n, sizeof line - (size_t)n, ", %s %ld", model_op_name(i),
                          counts[i]);
    if (n)
        log_line(j->run.params.log, 1, "%s: operations on %s: %s", phase_words[phase],
                 device_name(d), line + 2);
    if (device_place(d) != PLACE_HOST) log_vram(j, phase, d);
    device_peak_reset(d);
}

int job_tell_ran(struct job *j, struct err *e)
{
    struct attn_stats s;
    struct dit_cache_stats cache;
    model_attn_stats(j->model, &s);
    model_cache_stats(j->model, &cache);
    double fp8_error;
    long products;
    if (model_fp8_error(j->model, &fp8_error, &products, e) < 0) return -1;
    if (products)
        log_line(j->run.params.log, 1, "fp8: relative L2 %.2g of %ld sampled products against bf16",
                 fp8_error, products);
    struct ditgen_ran ran = {.device = device_kind_name(device_kind(j->run.params.device)),
                             .kernel = s.kernel ? s.kernel : "none",
                             .density = s.density,
                             .copied = s.calls ? (double)s.copies / (double)s.calls : 0,
                             .sampled = s.sampled,
                             .error = s.error,
                             .recall = s.recall,
                             .drift = s.drift,
                             .codes = s.low,
                             .exact_method = j->run.forecast.exact && !j->run.cache.name,
                             .reused_steps = cache.reused,
                             .planning = s.planning,
                             .fp8_error = fp8_error,
                             .steps = j->meter.n,
                             .exact_steps = step_meter_bought(&j->meter)};
    if (s.budgeted || cache.budgeted) {
        const struct budget_spent *b = s.budgeted ? &s.spent : &cache.spent;
        long all = b->renewed + b->carried;
        ran.error_budget = j->run.budget.db;
        ran.budget_estimate = b->db;
        ran.budget_margin = j->run.calibrated.table.margin;
        ran.budget_renewed = all > 0 ? (double)b->renewed / (double)all : 0;
        ran.budget_scale = b->scale;
        if (j->d->budget_spent) *j->d->budget_spent = *b;
    }
    if (j->calls->ran) j->calls->ran(j->calls->ctx, &ran);
    return 0;
}

void job_log_attention(const struct job *j, const struct attn_stats *s)
{
    const struct log *log = j->run.params.log;
    log_line(log, 1, "attention: %s, kernel %s, density %.3f", j->run.params.attn.method,
             s->kernel ? s->kernel : "none", s->density);
    if (s->low > 0)
        log_line(log, 1, "attention: %.0f %% of products over codes of 8 bits or fewer",
                 100 * s->low);
    if (s->copies)
        log_line(log, 1,
                 "attention: %ld of %ld calls were copies; made anew, outputs differed by %.2g "
                 "(relative L1, sampled)",
                 s->copies, s->calls, s->drift);
    char recall[32] = "";
    if (s->recall >= 0) snprintf(recall, sizeof recall, ", recall %.3f", s->recall);
    if (s->sampled)
        log_line(log, 1,
                 "attention: relative L1 %.2g of %ld sampled rows%s; planning took %.1f %% of its "
                 "time",
                 s->error, s->sampled, recall, 100 * s->planning);
}

void job_note_range(struct job *j, size_t n)
{
    for (int k = 0; j->frame == 0 && k < 3; k++)
        j->least[k] = j->most[k] = j->rgb[k];
    for (size_t i = 0; i < n; i++) {
        size_t k = i % 3;
        if (j->rgb[i] < j->least[k]) j->least[k] = j->rgb[i];
        if (j->rgb[i] > j->most[k]) j->most[k] = j->rgb[i];
    }
}

void job_warn_if_flat(const struct job *j)
{
    for (int k = 0; k < 3; k++)
        if (j->most[k] - j->least[k] > 1) return;
    log_line(
        j->run.params.log, 0,
        "every pixel of the clip has one colour (%d, %d, %d)%s: are these weights and settings of "
        "one model?",
        j->most[0], j->most[1], j->most[2],
        j->most[0] + j->most[1] + j->most[2] <= 3 ? ", black" : "");
}
