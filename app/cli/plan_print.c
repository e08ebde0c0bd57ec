/* Plans in words; see plan_print.h. */
#include "app/cli/plan_print.h"

#include <string.h>

#include "app/lib/assets.h"

static const char *model_name(char *buf, size_t n, const struct ditgen_settings *s)
{
    const char *model = settings_text(s, SET_MODEL);
    path_last(buf, n, model ? model : ASSETS_MODEL);
    return buf;
}

static void print_json(FILE *to, const struct ditgen_plan *p, const struct ditgen_settings *s,
                       const struct ditgen *d)
{
    static const char *const phases[] = {"text", "denoise", "decode"};
    char name[256];
    fputs("{\"event\":\"plan\",\"model\":", to);
    json_put_string(to, model_name(name, sizeof name, s));
    fputs(",\"defaults\":", to);
    json_put_string(to, ditgen_defaults_from(d));
    fprintf(to,
            ",\"width\":%d,\"height\":%d,\"frames\":%d,\"fps\":%g,\"steps\":%d,\"seed\":%llu,"
            "\"tokens\":%d,\"text_tokens\":%.0f,"
            "\"branches\":%d,\"threads\":%d,\"precision\":\"%s\",\"slow\":%s,\"linear\":",
            settings_int(s, SET_WIDTH), settings_int(s, SET_HEIGHT), settings_int(s, SET_FRAMES),
            settings_real(s, SET_FPS), settings_int(s, SET_STEPS),
            (unsigned long long)settings_seed(s), p->tokens, p->text_tokens, p->branches,
            p->threads, p->precision, p->slow ? "true" : "false");
    json_put_string(to, p->linear);
    fputs(",\"attention\":", to);
    json_put_string(to, p->attention);
    for (int i = 0; i < DITGEN_PHASES; i++)
        fprintf(to, ",\"%s_bytes\":%zu,\"%s_seconds\":%.3f", phases[i], p->phase_bytes[i],
                phases[i], p->phase_seconds[i]);
    fprintf(to,
            ",\"density\":[%.4f,%.4f],\"copied\":%.4f,\"denoise_least\":%.3f,\"denoise_most\":%.3f,"
            "\"planning_seconds\":%.3f,"
            "\"cache_bytes\":%.0f,\"cache_wanted_bytes\":%.0f,\"cache_left_out\":%.0f",
            p->density[0], p->density[1], p->copied, p->denoise_seconds[0], p->denoise_seconds[1],
            p->planning_seconds, p->cache_bytes, p->cache_wanted, p->cache_left_out);
    if (p->computed_steps[1] > 0)
        fprintf(to, ",\"computed_steps\":[%.0f,%.0f],\"step_cache_bytes\":%.0f",
                p->computed_steps[0], p->computed_steps[1], p->step_cache_bytes);
    if (p->device_bytes > 0)
        fprintf(to,
                ",\"device_bytes\":%.0f,\"device_free_bytes\":%.0f,\"blocks\":%.0f,"
                "\"streamed_blocks\":%.0f,\"pinned_bytes\":%.0f",
                p->device_bytes, p->device_free, p->blocks, p->streamed_blocks, p->pinned_bytes);
    fprintf(to, ",\"peak_bytes\":%zu,\"available_bytes\":%zu,\"seconds\":%.3f,\"fits\":%s}\n",
            p->peak_bytes, p->available_bytes, p->seconds, p->fits ? "true" : "false");
}

/* What attention leaves out, and what it keeps for that; nothing when it is exact. */
static void put_attention(FILE *to, const struct ditgen_plan *p)
{
    char a[40], b[40];
    if (p->density[0] == 1 && p->density[1] == 1 && p->cache_left_out == 0) return;
    if (p->density[1] - p->density[0] < 0.005)
        fprintf(to, "attention  computes %.2f of its pairs", p->density[0]);
    else
        fprintf(to, "attention  computes %.2f to %.2f of its pairs", p->density[0], p->density[1]);
    if (p->copied > 0) fprintf(to, ", copies %.0f %% of the calls", 100 * p->copied);
    if (p->cache_bytes > 0) {
        bytes_text(a, sizeof a, p->cache_bytes);
        fprintf(to, "; keeps %s over steps", a);
    }
    if (p->cache_left_out > 0) {
        bytes_text(b, sizeof b, p->cache_wanted);
        fprintf(to, "; --cache-mem makes %.0f layers and branches exact (all would keep %s)",
                p->cache_left_out, b);
    }
    fputc('\n', to);
    if (p->planning_seconds > 0) {
        seconds_text(a, sizeof a, p->planning_seconds);
        fprintf(to, "           finding out which takes up to %s, %.1f %% of denoising\n", a,
                100 * p->planning_seconds / p->denoise_seconds[1]);
    }
}

static void put_spread(FILE *to, const struct ditgen_plan *p)
{
    char a[40], b[40];
    if (p->denoise_seconds[1] - p->denoise_seconds[0] < 0.02 * p->denoise_seconds[1]) return;
    seconds_text(a, sizeof a, p->denoise_seconds[0]);
    seconds_text(b, sizeof b, p->denoise_seconds[1]);
    fprintf(to, "           denoising takes %s to %s: what is computed is found at run time\n", a,
            b);
}

/* Where a GPU has the transformer's weights. */
static void put_blocks(FILE *to, const struct ditgen_plan *p)
{
    char a[40];
    bytes_text(a, sizeof a, p->pinned_bytes);
    if (p->streamed_blocks > 0)
        fprintf(to, "           %.0f of %.0f blocks streamed from %s of pinned memory\n",
                p->streamed_blocks, p->blocks, a);
    else
        fprintf(to, "           all %.0f blocks stay there\n", p->blocks);
}

/* Whole steps that are left out. */
static void put_cache(FILE *to, const struct ditgen_plan *p, const struct ditgen_settings *s)
{
    char a[40], least[24] = "";
    if (p->computed_steps[1] == 0) return;
    bytes_text(a, sizeof a, p->step_cache_bytes);
    if (p->computed_steps[0] < p->computed_steps[1])
        snprintf(least, sizeof least, "%.0f to ", p->computed_steps[0]);
    fprintf(to, "step cache %s: computes %s%.0f of %d steps; keeps %s\n",
            settings_text(s, SET_STEP_CACHE), least, p->computed_steps[1],
            settings_int(s, SET_STEPS), a);
}

void plan_print(FILE *to, bool json, const struct ditgen_plan *p, const struct ditgen_settings *s,
                const struct ditgen *d)
{
    static const char *const phases[] = {"text", "denoise", "decode"};
    char name[256], a[40], b[40], c[40];
    if (json) {
        print_json(to, p, s, d);
        fflush(to);
        return;
    }
    fprintf(to, "model      %s, defaults from %s\n", model_name(name, sizeof name, s),
            ditgen_defaults_from(d));
    fprintf(to, "clip       %dx%d, %d frames at %g fps, %.3g s\n", settings_int(s, SET_WIDTH),
            settings_int(s, SET_HEIGHT), settings_int(s, SET_FRAMES), settings_real(s, SET_FPS),
            settings_int(s, SET_FRAMES) / settings_real(s, SET_FPS));
    fprintf(to,
            "sampling   %s, %d steps, guidance scale %g (%d branch%s a step), flow shift %g, seed "
            "%llu\n",
            settings_text(s, SET_SOLVER), settings_int(s, SET_STEPS),
            settings_real(s, SET_GUIDANCE_SCALE), p->branches, p->branches > 1 ? "es" : "",
            settings_real(s, SET_FLOW_SHIFT), (unsigned long long)settings_seed(s));
    fprintf(to, "tokens     %d, and %.0f of text%s\n", p->tokens, p->text_tokens,
            settings_text(s, SET_PROMPT) ? "" : " (assumed: there is no prompt)");
    fprintf(to, "compute    %s, %d thread%s; %s; attention %s\n", p->precision, p->threads,
            p->threads > 1 ? "s" : "", p->linear, p->attention);
    put_attention(to, p);
    put_cache(to, p, s);
    put_spread(to, p);
    bool gpu = p->device_bytes > 0; /* how long it takes is not known */
    for (int i = 0; i < DITGEN_PHASES; i++) {
        seconds_text(a, sizeof a, p->phase_seconds[i]);
        bytes_text(b, sizeof b, (double)p->phase_bytes[i]);
        fprintf(to, "%-10s %s%s%s%s\n", phases[i], gpu ? "" : "about ", gpu ? "" : a,
                gpu ? "" : ", ", b);
    }
    if (gpu) {
        bytes_text(a, sizeof a, p->device_bytes);
        bytes_text(b, sizeof b, p->device_free);
        fprintf(to, "%-10s %s at most, %s %s\n", settings_text(s, SET_DEVICE), a, b,
                settings_text(s, SET_MAX_VRAM) ? "may be taken" : "free");
        put_blocks(to, p);
    }
    seconds_text(a, sizeof a, p->seconds);
    bytes_text(b, sizeof b, (double)p->peak_bytes);
    bytes_text(c, sizeof c, (double)p->available_bytes);
    fprintf(to, "all        %s%s%speak memory %s", gpu ? "" : "about ", gpu ? "" : a,
            gpu ? "" : ", ", b);
    if (p->available_bytes) fprintf(to, ", %s free: %s", c, p->fits ? "fits" : "does not fit");
    fputc('\n', to);
    fflush(to);
}

void plan_print_short(struct progress *p, const struct ditgen_plan *plan, const struct cli *cli,
                      const struct ditgen *d, const char *path)
{
    const struct ditgen_settings *s = cli->settings;
    char name[256], a[40], b[40], c[40];
    if (p->form == PROGRESS_QUIET) {
        /* a drawn seed is the one thing that cannot be known otherwise */
        if (cli->seed_drawn) fprintf(p->to, "seed %llu\n", (unsigned long long)settings_seed(s));
        return;
    }
    if (p->form == PROGRESS_JSON) {
        print_json(p->to, plan, s, d);
        fflush(p->to);
    } else {
        seconds_text(a, sizeof a, plan->seconds);
        bytes_text(b, sizeof b, (double)plan->peak_bytes);
        bytes_text(c, sizeof c, (double)plan->available_bytes);
        progress_say(
            p, "%s: %dx%d, %d frames at %g fps, %s %d steps, guidance %g, seed %llu (defaults: %s)",
            model_name(name, sizeof name, s), settings_int(s, SET_WIDTH),
            settings_int(s, SET_HEIGHT), settings_int(s, SET_FRAMES), settings_real(s, SET_FPS),
            settings_text(s, SET_SOLVER), settings_int(s, SET_STEPS),
            settings_real(s, SET_GUIDANCE_SCALE), (unsigned long long)settings_seed(s),
            ditgen_defaults_from(d));
        progress_say(p, "%d tokens, %s, %d thread%s, %s, attention %s", plan->tokens,
                     plan->precision, plan->threads, plan->threads > 1 ? "s" : "", plan->linear,
                     plan->attention);
        if (plan->device_bytes > 0) {
            bytes_text(a, sizeof a, plan->device_bytes);
            progress_say(p, "%s on %s and %s of memory (%s free); writing %s", a,
                         settings_text(s, SET_DEVICE), b, c, path);
        } else {
            progress_say(p, "about %s and %s of memory (%s free); writing %s", a, b, c, path);
        }
    }
    if (!plan->fits)
        progress_say(p, "warning: this does not fit the memory that is free; fewer frames or a "
                        "smaller size do");
}

/* What was asked for, what is thought to be kept of it, and what that took. */
static void say_budget(struct progress *p, const struct ditgen_ran *r)
{
    double sure = r->budget_estimate - r->budget_margin;
    char took[96];
    if (r->reused_steps > 0)
        snprintf(took, sizeof took, "left out %.0f of %.0f steps", r->reused_steps, r->steps);
    else
        snprintf(took, sizeof took,
                 "renewed %.0f %% of what might be carried, computed %.2f of attention's pairs",
                 100 * r->budget_renewed, r->density);
    if (p->form == PROGRESS_JSON) {
        fprintf(p->to,
                "{\"event\":\"error_budget\",\"budget_db\":%.2f,\"estimate_db\":%.2f,"
                "\"margin_db\":%.2f,\"renewed\":%.4f,\"scale\":%.3f,\"computed\":%.4f}\n",
                r->error_budget, r->budget_estimate, r->budget_margin, r->budget_renewed,
                r->budget_scale, r->density);
        return;
    }
    progress_say(p,
                 "error budget %.1f dB: about %.1f dB kept, %.1f when calibration's worst clip is "
                 "counted%s; %s; this clip moves %.2f times as much as those calibrated",
                 r->error_budget, r->budget_estimate, sure,
                 sure < r->error_budget - 0.3 ? " (less than asked for)" : "", took,
                 r->budget_scale);
}

/* A line of its own: fp8 goes with any attention. */
static void put_fp8(struct progress *p, const struct ditgen_ran *r)
{
    if (!(r->fp8_error > 0)) return;
    if (p->form == PROGRESS_JSON) {
        fprintf(p->to, "{\"event\":\"fp8\",\"sampled_error\":%.4g}\n", r->fp8_error);
        fflush(p->to);
        return;
    }
    progress_say(p,
                 "approximate: linear layers in fp8; their products were %.2g off bf16's (relative "
                 "L2, sampled in the first step)",
                 r->fp8_error);
}

void plan_print_ran(struct progress *p, const struct ditgen_ran *r)
{
    char copied[48] = "", error[96] = "", reused[48] = "", codes[64] = "";
    put_fp8(p, r);
    if (r->exact_method > 0) return;
    if (r->reused_steps > 0)
        snprintf(reused, sizeof reused, "; %.0f steps left out", r->reused_steps);
    if (r->error_budget > 0) say_budget(p, r);
    if (p->form == PROGRESS_JSON) {
        fprintf(p->to,
                "{\"event\":\"approximate\",\"computed\":%.4f,\"copied\":%.4f,\"sampled_rows\":%ld,"
                "\"sampled_error\":%.4g,\"copied_error\":%.4g,\"steps\":%.0f,\"reused_steps\":%.0f,"
                "\"codes\":%.4f,\"exact_steps_estimate\":%.1f}\n",
                r->density, r->copied, r->sampled, r->error, r->drift, r->steps, r->reused_steps,
                r->codes, r->exact_steps);
        fflush(p->to);
        return;
    }
    if (r->copied > 0)
        snprintf(copied, sizeof copied, ", %.0f %% of calls copies", 100 * r->copied);
    if (r->codes > 0)
        snprintf(codes, sizeof codes, ", %.0f %% of its products over codes of 8 bits or fewer",
                 100 * r->codes);
    if (r->sampled)
        snprintf(error, sizeof error, "; sampled error %.2g (relative L1 of %ld rows)", r->error,
                 r->sampled);
    else if (r->copied > 0)
        snprintf(error, sizeof error, "; sampled change of what was copied %.2g (relative L1)",
                 r->drift);
    progress_say(
        p,
        "approximate: computed %.2f of attention's pairs%s%s%s%s; %.0f step%s took as long as "
        "about %.0f exact ones (an estimate)",
        r->density, codes, copied, error, reused, r->steps, r->steps > 1 ? "s" : "",
        r->exact_steps);
}

void plan_print_done(struct progress *p, const char *path, const struct ditgen_settings *s)
{
    char text[40];
    double seconds = 0;
    for (int i = 0; i < DITGEN_PHASES; i++)
        seconds += p->phase_seconds[i];
    if (p->form == PROGRESS_JSON) {
        fputs("{\"event\":\"done\",\"output\":", p->to);
        json_put_string(p->to, path);
        fprintf(p->to, ",\"seed\":%llu,\"seconds\":%.3f}\n", (unsigned long long)settings_seed(s),
                seconds);
        fflush(p->to);
        return;
    }
    seconds_text(text, sizeof text, seconds);
    progress_say(p, "wrote %s in %s, seed %llu", path, text, (unsigned long long)settings_seed(s));
}
