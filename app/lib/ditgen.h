/* libditgen: a prompt becomes a video with a Wan-type diffusion transformer, on the processor.
 *
 *     struct ditgen_error e;
 *     struct ditgen *d;
 *     struct ditgen_settings s;
 *     if (ditgen_open(&d, NULL, &e) != 0) ...            // NULL: the model that comes with ditgen
 *     ditgen_defaults(d, &s);
 *     s.prompt = "a rocket flies up in outer space";
 *     struct ditgen_callbacks c = { .frame = my_frame };  // receives RGB frames, in order
 *     if (ditgen_generate(d, &s, &c, &e) != 0) puts(e.message);
 *     ditgen_close(d);
 *
 * Every function that can fail returns 0, or -1 with *e filled: a code and one sentence for people.
 * Strings are UTF-8 and NUL-terminated; those in a settings struct are borrowed by the library for
 * the call only. Threads: one call at a time in a process (the library runs its own pool). Nothing
 * here prints, exits or reads the environment, but for DITGEN_ASSETS when dir is NULL.
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
                   DITGEN_DEVICE = 5, /* a processor that cannot do what was asked */
                   DITGEN_CANCELLED = 6, /* a callback said so */
                   DITGEN_BUG = 70, /* ours */
};

struct ditgen_error {
    int code; /* enum ditgen_code */
    char message[512];
};

const char *ditgen_version(void); /* "0.1.0" */

/* --- a model ------------------------------------------------------------------------------------
 */

struct ditgen; /* an opened pipeline folder (diffusers layout) */

/* Reads and checks the folder's configs; weights are read by ditgen_generate(). dir NULL: the model
 * that comes with ditgen ($DITGEN_ASSETS, ../share/ditgen beside the executable or the library, the
 * source tree of the build). */
int ditgen_open(struct ditgen **d, const char *dir, struct ditgen_error *e);
void ditgen_close(struct ditgen *d); /* takes NULL */

/* --- what to make --------------------------------------------------------------------------------
 */

struct ditgen_settings {
    const char *prompt; /* required; "" is a prompt */
    const char *negative_prompt; /* what the unconditional branch reads; "" usually */
    int width, height; /* pixels; multiples of 16 with the usual VAE */
    int frames; /* 4k + 1 with the usual VAE */
    double fps; /* what the model was trained at: for writers, changes no pixel */
    int steps; /* times the model is asked */
    double guidance_scale; /* > 1: two branches a step; 1: the prompt alone */
    double flow_shift; /* > 0: more steps at high noise */
    const char *solver; /* "unipc", "euler", "dpmpp" */
    uint64_t seed; /* same seed and settings, same frames */

    const char *precision; /* "auto", "fp32", "bf16" */
    int threads; /* 0: by a short probe */
    const char *attention; /* method: "dense", "window", ...; NULL: dense */
    const char *attention_options; /* the method's own: "window-tiles=8 other=2"; NULL: defaults */
    const char *kernel; /* attention kernel; NULL: the best that runs here */

    int sigma_grid_036; /* nonzero: UniPC's noise levels as diffusers up to 0.36 has them */
    int truncate_frames; /* nonzero: frames to bytes by truncation, as diffusers' export does */
    int raw_text; /* nonzero: no Unicode repair (ftfy) of prompts */
    int long_text; /* nonzero: attend to every pad row of the text one by one; same result, slower
                    */
    int turbo; /* nonzero: the folder's few-step transformer */
};

/* All fields but prompt (NULL) and seed (0), from ditgen.ini beside the folder's model_index.json,
 * or from the published model nearest in shape. Strings live as long as d. */
void ditgen_defaults(const struct ditgen *d, struct ditgen_settings *s);
/* Replaces steps, guidance_scale (and, where the folder says so, solver, flow_shift) by those of
 * the folder's few-step transformer and sets turbo. DITGEN_USAGE when it has none. */
int ditgen_turbo(const struct ditgen *d, struct ditgen_settings *s, struct ditgen_error *e);
/* Where the defaults come from: "ditgen.ini", or "Wan2.1 T2V-1.3B (nearest in shape)". Lives with
 * d. */
const char *ditgen_defaults_from(const struct ditgen *d);

/* The nearest possible value at or below and at or above v; both are v when v is possible. */
void ditgen_size_near(const struct ditgen *d, int v, int *below, int *above);
void ditgen_frames_near(const struct ditgen *d, int v, int *below, int *above);

/* --- what it will take ---------------------------------------------------------------------------
 */

enum ditgen_phase { DITGEN_TEXT, DITGEN_DENOISE, DITGEN_DECODE, DITGEN_PHASES };

struct ditgen_plan {
    int tokens; /* the transformer sees */
    int branches; /* 1, or 2 with guidance */
    int threads; /* chosen */
    const char *precision; /* "fp32", "bf16", "bf16 (emulated, slow)" */
    int slow; /* nonzero: this precision or this build is slow here */
    char linear[96]; /* what runs linear layers and convolutions */
    char attention[96]; /* method and kernel; says so when the method is approximate */
    size_t phase_bytes[DITGEN_PHASES]; /* peak memory of each phase */
    size_t peak_bytes; /* of the process, the mapped weights included */
    size_t available_bytes; /* what the system says is free; 0: not known */
    double phase_seconds[DITGEN_PHASES], seconds; /* about: from a short measurement */
    int fits; /* nonzero: peak_bytes <= available_bytes, or not known */
};
/* Checks every setting and predicts, reading no weights. prompt may be NULL. */
int ditgen_plan(struct ditgen *d, const struct ditgen_settings *s, struct ditgen_plan *p,
                struct ditgen_error *e);

/* --- making it -----------------------------------------------------------------------------------
 */

struct ditgen_progress {
    enum ditgen_phase phase;
    int done, total; /* text: layers (all branches); denoise: steps; decode: frames */
    int block, blocks; /* denoise: blocks done of the step under way, all branches */
    double seconds; /* since the phase began */
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
};
int ditgen_generate(struct ditgen *d, const struct ditgen_settings *s,
                    const struct ditgen_callbacks *c, struct ditgen_error *e);

#ifdef __cplusplus
}
#endif
#endif
