/* libditgen: a prompt becomes a video with a Wan-type diffusion transformer.
 *
 *     struct ditgen_error e;
 *     struct ditgen *d;
 *     struct ditgen_settings *s;
 *     if (ditgen_open(&d, NULL, &e) != 0) ...            // NULL: the model that comes with ditgen
 *     if (ditgen_settings_open(&s, d, &e) != 0) ...      // the model's defaults
 *     ditgen_set(s, "prompt", "a rocket flies up in outer space", &e);
 *     struct ditgen_callbacks c = { .frame = my_frame };  // receives RGB frames, in order
 *     if (ditgen_generate(d, s, &c, &e) != 0) puts(e.message);
 *     ditgen_settings_close(s);
 *     ditgen_close(d);
 *
 * Every function that can fail returns 0, or -1 with *e filled: a code and one sentence for people.
 * Strings are UTF-8 and NUL-terminated; what is given is copied. Structs that callers fill are to be
 * zeroed first: their reserved members are room for what comes. Threads: one call at a time in a process (the library runs its own pool). Nothing
 * here prints, exits or reads the environment, but for DITGEN_ASSETS when dir is NULL.
 * Memory: every allocation of ours that fails is an error; oneDNN (C++) throws where it finds none for
 * its books, which ends a program that has no handler (std::set_terminate).
 * Signals: while ditgen_generate() runs, let handlers run on another thread or on a stack of their
 * own (SA_ONSTACK): generated matrix code borrows the stack register. */
#ifndef DITGEN_DITGEN_H
#define DITGEN_DITGEN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum ditgen_code { /* also the exit codes of the command */
                   DITGEN_OK = 0,
                   DITGEN_USAGE = 2, /* a setting that cannot be: the message says what could */
                   DITGEN_INPUT = 3, /* a model file that is missing, broken or of the wrong kind */
                   DITGEN_RESOURCE = 4, /* memory, disk */
                   DITGEN_DEVICE = 5, /* a processor or GPU that cannot do what was asked */
                   DITGEN_CANCELLED = 6, /* a callback said so */
                   DITGEN_BUG = 70, /* ours */
};

struct ditgen_error {
    int code; /* enum ditgen_code */
    char message[512];
};

const char *ditgen_version(void); /* "0.2.0" */

/* How much of the processor this process uses: "cpu" (all), "cpu:ref", "cpu:avx2", "cpu:avx512",
 * "cpu:avx512vnni", "cpu:avx512bf16", "cpu:amx". Before the first model is opened: later, DITGEN_USAGE. Where a clip is
 * computed is a setting, "device": "cpu" (without one), "cuda", "cuda:1", or "auto", the first GPU that
 * can be used, else the processor. A handle keeps its device and the weights on it from one clip to the
 * next, until another device is set or it is closed. DITGEN_DEVICE: there is none, or it was lost; such a
 * handle says so at each call and can be closed. */
int ditgen_device(const char *device, struct ditgen_error *e);

/* --- a model ------------------------------------------------------------------------------------ */

struct ditgen; /* an opened pipeline folder (diffusers layout) */

/* Reads and checks the folder's configs; weights are read by ditgen_generate(). dir NULL: the model
 * that comes with ditgen ($DITGEN_ASSETS, ../share/ditgen beside the executable or the library, the
 * source tree of the build). */
int ditgen_open(struct ditgen **d, const char *dir, struct ditgen_error *e);
void ditgen_close(struct ditgen *d); /* takes NULL */

/* --- what to make ------------------------------------------------------------------------------- */

/* Values by name: the flags of `ditgen --help` without their dashes ("prompt", "size", "steps",
 * "seed", "attention", ...), also with '_' for '-'; options of attention methods are part of
 * "attention" ("window:tiles=8") or stand by themselves ("window-tiles"). New names come with new
 * versions, old ones stay. */
struct ditgen_settings;

/* Nothing set: what is not set is the model's default (ditgen.ini beside the folder's
 * model_index.json, or the published model nearest in shape), seed 0, no prompt. d must outlive it. */
int ditgen_settings_open(struct ditgen_settings **s, struct ditgen *d, struct ditgen_error *e);
void ditgen_settings_close(struct ditgen_settings *s); /* takes NULL */

/* value as after a flag: "832x480", "7.5", "true"; NULL: back to the default. DITGEN_USAGE for an
 * unknown name (the nearest is told) or a value out of range. Of "size" and "width", of "frames" and
 * "seconds" the later one stands. */
int ditgen_set(struct ditgen_settings *s, const char *name, const char *value,
               struct ditgen_error *e);
int ditgen_set_number(struct ditgen_settings *s, const char *name, double value,
                      struct ditgen_error *e);

/* What will be used, defaults included, as text that ditgen_set() takes; *value is NULL when there
 * is none (no prompt), and lives until the next get from s. Fails when the settings contradict each
 * other. */
int ditgen_get(struct ditgen_settings *s, const char *name, const char **value,
               struct ditgen_error *e);
int ditgen_get_number(struct ditgen_settings *s, const char *name, double *value,
                      struct ditgen_error *e);

struct ditgen_setting { /* a name that can be set */
    char name[128];
    const char *help;
    const char *type; /* "text", "whole", "number", "switch", "choice" */
    double lo, hi; /* of whole and number */
    const char *choices; /* "a|b|c" of choice, else NULL */
};
/* The i-th from 0 on, options of attention methods behind the others; nonzero: there are not so
 * many. */
int ditgen_setting_at(int i, struct ditgen_setting *info);

/* Where the defaults come from: "ditgen.ini", or "Wan2.1 T2V-1.3B (nearest in shape)". Lives with
 * d. */
const char *ditgen_defaults_from(const struct ditgen *d);

/* The nearest possible value at or below and at or above v; both are v when v is possible, and the
 * least or the most where v is beyond. */
void ditgen_width_near(const struct ditgen *d, int v, int *below, int *above);
void ditgen_height_near(const struct ditgen *d, int v, int *below, int *above);
void ditgen_frames_near(const struct ditgen *d, int v, int *below, int *above);

/* --- what it will take -------------------------------------------------------------------------- */

enum ditgen_phase { DITGEN_TEXT, DITGEN_DENOISE, DITGEN_DECODE, DITGEN_PHASES };

struct ditgen_plan {
    int tokens; /* the transformer sees */
    int branches; /* 1, or 2 with guidance */
    int threads; /* chosen */
    const char
        *precision; /* for people: "fp32", "bf16", "bf16 (emulated, slow)", "fp8 (approximate)" */
    int bf16, emulated; /* nonzero: bf16 was chosen; by fp32 arithmetic */
    int slow; /* nonzero: this precision or this build is slow here */
    /* of any length, for people; they live until the next plan of the same model, or its close */
    const char *linear; /* what runs linear layers and convolutions */
    const char *attention; /* method and kernel; says so when the method is approximate */
    /* Memory that each phase adds to process_bytes at most (or, with device_bytes, has of a GPU, context and code counted in); mapped weights do not count, whose pages
     * are given back when they were read. */
    size_t phase_bytes[DITGEN_PHASES];
    size_t peak_bytes; /* of the process */
    size_t
        available_bytes; /* what it can still take, by machine, control groups, limits; 0: not known */
    double phase_seconds[DITGEN_PHASES], seconds; /* about: from a short measurement */
    int fits; /* nonzero: what it adds <= available_bytes, or not known */
    double density[2]; /* share of attention computed over all steps, least and most; 1, 1: all */
    double copied; /* share of attention's calls that are copies: no q, k, v, output layer either */
    double denoise_seconds[2]; /* least and most: where what is computed is found at run time */
    double cache_bytes, cache_wanted; /* kept over steps by attention: given; without --cache-mem */
    double cache_left_out; /* layers and branches that the cap makes exact */
    double process_bytes; /* held when the plan was made */
    double text_tokens; /* of the longer text; 32 where there is no prompt yet */
    double computed_steps[2]; /* least and most that a step cache leaves to be computed; 0: none */
    double step_cache_bytes; /* that it keeps */
    double
        device_bytes; /* of a GPU's memory at most; 0: none is used. Seconds are 0 then: not known */
    double device_free; /* what this process may have of it; 0: not known */
    double blocks,
        streamed_blocks; /* of the transformer, on a GPU: of those, what does not stay there */
    double pinned_bytes; /* of the host, that they come from */
    double planning_seconds; /* of denoise_seconds[1]: finding out what attention leaves out */
};
/* Checks every setting and every part of the folder (names and shapes of all tensors) and predicts;
 * reads no weights. Needs no prompt. */
int ditgen_plan(struct ditgen *d, const struct ditgen_settings *s, struct ditgen_plan *p,
                struct ditgen_error *e);

/* --- making it ---------------------------------------------------------------------------------- */

struct ditgen_progress {
    enum ditgen_phase phase;
    int done, total; /* text: layers (all branches); denoise: steps; decode: frames */
    int block, blocks; /* denoise: blocks done of the step under way, all branches */
    double seconds; /* since the phase began */
    int first; /* of done: what an earlier run did */
};

/* All that a run needs to go on from where another stopped: same settings, same bytes. */
#define DITGEN_HISTORY 8
#define DITGEN_KEPT 3
#define DITGEN_NUMBERS 16
struct ditgen_state {
    int step, steps; /* done, of all; equal: denoised, decoding is next */
    int shape[4]; /* channels, frames, height, width */
    const float *latents; /* [shape] */
    int n_history;
    const float *history[DITGEN_HISTORY]; /* [shape] each: what the solver remembers */
    uint64_t model; /* a mark of the weights; 0 in a resume: not checked */
    int n_kept; /* what the transformer remembers: arrays of any length (bytes, where they are
                 * attention's), and numbers */
    const float *kept[DITGEN_KEPT];
    size_t kept_len[DITGEN_KEPT];
    int n_numbers;
    double numbers[DITGEN_NUMBERS];
};

struct ditgen_ran { /* what denoising did; strings live for the call */
    const char *device, *kernel; /* "cpu", "avx512": kind of device and code of attention */
    double density; /* share of attention that was computed, all steps */
    double copied; /* share of attention's calls that were copies */
    long sampled; /* rows of approximate attention held against exact ones; 0: none were */
    double error, recall; /* of those rows: relative L1; mass of what was computed, -1: not known */
    double drift; /* relative L1 of copied outputs against those made next; 0: no copies */
    double exact_method; /* 1: attention is exact by its definition */
    double steps; /* that this call made */
    double reused_steps; /* of them, left out by the step cache */
    double exact_steps; /* about how many exact ones would have taken as long: an estimate */
    double planning; /* share of attention's seconds that planning took */
    double codes; /* share of attention's products over codes of 8 or 4 bits */
    double error_budget,
        budget_estimate; /* dB: asked for, 0: nothing; what the clip keeps by estimate */
    double budget_margin; /* dB by which nine in ten prompts should fall short of it at most */
    double budget_renewed; /* share of carried heads and steps that were renewed */
    double budget_scale; /* how much the clip moved, beside those */
    double
        fp8_error; /* relative L2 of fp8 products against bf16's, sampled in the first step; 0: no fp8 */
    double reserved[1];
};

/* Latents to colours, good enough to see what a clip will be: fitted to what a decoder made once. */
#define DITGEN_PREVIEW_CHANNELS 64
struct ditgen_preview_map {
    uint64_t vae; /* a mark of the decoder's weights: ditgen_vae_mark() */
    int channels;
    float to_rgb[DITGEN_PREVIEW_CHANNELS + 1][3]; /* 0..1; the last row is added to all */
};
uint64_t ditgen_vae_mark(const struct ditgen *d);

struct ditgen_preview {
    int step, steps;
    int frames, width, height; /* of latents: a cell is many pixels and some frames */
    const uint8_t *rgb; /* [frames, height, width, 3]: where the steps so far lead to */
};

struct ditgen_callbacks { /* any may be NULL */
    void *ctx;
    /* rgb [height, width, 3], valid during the call. Nonzero stops with DITGEN_CANCELLED. */
    int (*frame)(void *ctx, int index, const uint8_t *rgb, int width, int height);
    /* Called often, from the calling thread. Nonzero stops with DITGEN_CANCELLED. */
    int (*progress)(void *ctx, const struct ditgen_progress *p);
    /* The denoised latents, float [channels, frames, height, width]. Nonzero stops. */
    int (*latents)(void *ctx, const float *latents, const int shape[4]);
    /* level 0: warnings; 1 a run, 2 a step, 3 a layer. line has no newline. */
    void (*log)(void *ctx, int level, const char *line);
    int log_level; /* highest level wanted */
    /* Between steps, with what lives during the call. Where an attention method keeps state of its
     * own, only after the last step. Nonzero stops with DITGEN_CANCELLED. */
    int (*state)(void *ctx, const struct ditgen_state *s);
    /* Go on from here; the model is asked for the steps that are left, and with none left neither
     * text encoder nor transformer is opened. NULL: from noise. */
    const struct ditgen_state *resume;
    /* What it looks like, after steps, as often as that takes less than 1 % of the time, this
     * function's own included. Needs the map; nonzero stops. */
    int (*preview)(void *ctx, const struct ditgen_preview *p);
    const struct ditgen_preview_map *map; /* NULL: none yet, no previews */
    /* After decoding, the map fitted to this clip, to be kept. */
    void (*fitted)(void *ctx, const struct ditgen_preview_map *map);
    /* Once, after the last step and before its state; of the steps that this call made. */
    void (*ran)(void *ctx, const struct ditgen_ran *r);
    void *reserved[2]; /* NULL */
};
int ditgen_generate(struct ditgen *d, const struct ditgen_settings *s,
                    const struct ditgen_callbacks *c, struct ditgen_error *e);

#ifdef __cplusplus
}
#endif
#endif
