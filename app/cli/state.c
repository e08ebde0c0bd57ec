/* States on disk; see state.h. */
#include "app/cli/state.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/clips/aside.h"

static const char suffix[] = ".state";

bool state_path(char path[STATE_PATH], const char *output)
{
    if (strcmp(output, "-") == 0) return false;
    size_t n = strlen(output);
    while (n > 1 && output[n - 1] == '/')
        n--;
    size_t name = n;
    while (name > 0 && output[name - 1] != '/')
        name--;
    if (name == n || n - name + sizeof suffix > 250) return false;
    int len = snprintf(path, STATE_PATH, "%.*s%s/%.*s%s", (int)name, output, STATE_FOLDER,
                       (int)(n - name), output + name, suffix);
    return len < STATE_PATH;
}

/* --- reading ------------------------------------------------------------------------------------ */

static bool note_number(const struct latents *l, const char *key, uint64_t most, uint64_t *v)
{
    const char *text = latents_note(l, key);
    char *end;
    if (!text || *text < '0' || *text > '9') return false;
    errno = 0;
    *v = strtoull(text, &end, 10);
    return !*end && !errno && *v <= most;
}

/* "0x1p+0 ..." of a step cache, exactly as many; none when the note is not there. */
static bool note_numbers(const struct latents *l, struct ditgen_state *at)
{
    const char *text = latents_note(l, "cache_numbers");
    for (at->n_numbers = 0; text && *text; at->n_numbers++) {
        char *end;
        if (at->n_numbers == DITGEN_NUMBERS) return false;
        double v = strtod(text, &end);
        if (end == text || (*end && *end != ' ') || !isfinite(v)) return false;
        at->numbers[at->n_numbers] = v;
        text = end + (*end == ' ');
    }
    return true;
}

int state_read(struct state *s, const char *path, struct err *e)
{
    uint64_t step, steps, model;
    memset(s, 0, sizeof *s);
    if (latents_read(&s->file, path, e) < 0) return -1;
    const struct latents *l = &s->file;
    s->stored = latents_note(l, LATENTS_SETTINGS);
    s->used = latents_note(l, "used");
    s->output = latents_note(l, "output");
    s->latents = latents_note(l, "save_latents");
    s->model_dir = latents_note(l, "model_dir");
    const char *overwrite = latents_note(l, "overwrite");
    s->overwrite = overwrite && strcmp(overwrite, "yes") == 0;
    if (!s->stored || !s->used || !s->output || !s->output[0] || !s->model_dir || l->n_dims != 4 ||
        !note_number(l, "step", 100000, &step) || !note_number(l, "steps", 100000, &steps) ||
        !note_number(l, "model", UINT64_MAX, &model) || step < 1 || step > steps) {
        state_fini(s);
        return err_set(e, ERR_INPUT, "%s: no state of a run of ditgen", path);
    }
    s->at = (struct ditgen_state){.step = (int)step,
                                  .steps = (int)steps,
                                  .latents = l->values,
                                  .n_history = l->n_blocks,
                                  .model = model};
    for (int i = 0; i < 4; i++)
        s->at.shape[i] = l->shape[i] < 1 << 24 ? (int)l->shape[i] : 0;
    for (int i = 0; i < l->n_blocks; i++)
        s->at.history[i] = l->blocks[i];
    s->at.n_kept = l->n_kept;
    for (int i = 0; i < l->n_kept; i++)
        s->at.kept[i] = l->kept[i], s->at.kept_len[i] = l->kept_len[i];
    if (note_numbers(l, &s->at)) return 0;
    state_fini(s);
    return err_set(e, ERR_INPUT, "%s: its cache_numbers are no list of at most %d numbers", path,
                   DITGEN_NUMBERS);
}

void state_fini(struct state *s)
{
    latents_fini(&s->file);
    memset(s, 0, sizeof *s);
}

/* --- writing ------------------------------------------------------------------------------------ */

/* FOLDER of FOLDER/NAME.state. */
static int make_folder(const char *path, struct err *e)
{
    char *folder = path_folder(path);
    if (!folder) return err_set(e, ERR_RESOURCE, "%s: no memory for its name", path);
    int rc = 0;
    if (mkdir(folder, 0777) < 0 && errno != EEXIST)
        rc = err_set(e, ERR_RESOURCE, "%s: cannot be made (%s)", folder, strerror(errno));
    free(folder);
    return rc;
}

/* If nothing is in it: others may have states there. */
static void remove_folder(const char *path)
{
    char *folder = path_folder(path);
    if (folder) rmdir(folder);
    free(folder);
}

int state_write(const struct state_keep *k, const struct ditgen_state *s, struct err *e)
{
    char step[24], steps[24], model[24], numbers[DITGEN_NUMBERS * 32] = "";
    snprintf(step, sizeof step, "%d", s->step);
    snprintf(steps, sizeof steps, "%d", s->steps);
    snprintf(model, sizeof model, "%" PRIu64, s->model);
    for (int i = 0; i < s->n_numbers; i++) {
        size_t at = strlen(numbers);
        snprintf(numbers + at, sizeof numbers - at, "%s%a", i ? " " : "", s->numbers[i]);
    }
    struct latents_note notes[] = {{LATENTS_SETTINGS, k->stored},
                                   {"used", k->used},
                                   {"output", k->output},
                                   {"overwrite", k->overwrite ? "yes" : "no"},
                                   {"step", step},
                                   {"steps", steps},
                                   {"model", model},
                                   {"model_dir", k->model_dir},
                                   {"cache_numbers", numbers},
                                   {"save_latents", k->latents}};
    char names[DITGEN_HISTORY + DITGEN_KEPT][24]; /* room for any int */
    struct latents_block blocks[DITGEN_HISTORY + DITGEN_KEPT];
    struct latents_file f = {.latents = s->latents, .notes = notes, .blocks = blocks};
    f.n_notes = (int)ARRAY_LEN(notes) - !k->latents;
    f.n_blocks = s->step < s->steps ? s->n_history : 0; /* decoding wants the latents alone */
    memcpy(f.shape, s->shape, sizeof f.shape);
    size_t n = 1;
    for (int i = 0; i < 4; i++)
        n *= (size_t)s->shape[i];
    for (int i = 0; i < f.n_blocks; i++) {
        snprintf(names[i], sizeof names[i], "history.%d", i);
        blocks[i] = (struct latents_block){names[i], s->history[i], n};
    }
    for (int i = 0; s->step < s->steps && i < s->n_kept; i++, f.n_blocks++) {
        snprintf(names[f.n_blocks], sizeof names[0], "kept.%d", i);
        blocks[f.n_blocks] = (struct latents_block){names[f.n_blocks], s->kept[i], s->kept_len[i]};
    }
    if (make_folder(k->path, e) < 0) return -1;
    if (latents_write(&f, k->path, "state", true, e) == 0) return 0;
    remove_folder(k->path);
    return -1;
}

void state_remove(const char *path)
{
    unlink(path);
    remove_folder(path);
}

/* --- finding ------------------------------------------------------------------------------------ */

/* The next line of *text without its end, n bytes; the seed's is passed over with any_seed, and what
 * a run did (ran.h) is no setting. */
static const char *next_line(const char **text, size_t *n, bool any_seed)
{
    const char *line;
    do {
        line = *text;
        if (strncmp(line, "[run]\n", 6) == 0) line = *text += strlen(line);
        *n = strcspn(line, "\n");
        *text += *n + (line[*n] != 0);
    } while (any_seed && *n && strncmp(line, "seed = ", 7) == 0);
    return line;
}

bool state_same_settings(const char *a, const char *b, bool any_seed)
{
    while (*a || *b) {
        size_t na, nb;
        const char *x = next_line(&a, &na, any_seed), *y = next_line(&b, &nb, any_seed);
        if (na != nb || memcmp(x, y, na) != 0) return false;
    }
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

bool state_at(char path[STATE_PATH], const char *folder, int i)
{
    char in[STATE_PATH], *names[256];
    int n = 0;
    bool found = false;
    if (snprintf(in, sizeof in, "%s%s%s", folder, *folder ? "/" : "", STATE_FOLDER) >=
        (int)sizeof in)
        return false;
    DIR *d = opendir(in);
    for (struct dirent *f; d && n < (int)ARRAY_LEN(names) && (f = readdir(d)) != NULL;) {
        size_t len = strlen(f->d_name), k = sizeof suffix - 1;
        if (f->d_name[0] != '.' && len > k && strcmp(f->d_name + len - k, suffix) == 0 &&
            (names[n] = strdup(f->d_name)) != NULL)
            n++;
    }
    if (d) closedir(d);
    qsort(names, (size_t)n, sizeof *names, by_name);
    if (i < n) found = snprintf(path, STATE_PATH, "%s/%s", in, names[i]) < STATE_PATH;
    while (n > 0)
        free(names[--n]);
    return found;
}
