/* Which kernel runs: the table, best first; and what stands between a job and a kernel. */
#include "attention/kernels/kernels.h"
#include "model/base/threads.h"

#include <string.h>

extern const struct attn_kernel attn_ref;
#ifdef ATTENTION_X86 /* set by CMake together with the sources of these rows */
extern const struct attn_kernel attn_avx2, attn_avx512, attn_avx512bf16, attn_amx, attn_vnni,
    attn_maddwd, attn_amx8;
#endif

static const struct attn_kernel *const kernels[] = {
#ifdef ATTENTION_X86
    &attn_amx,
    &attn_avx512bf16,
    &attn_avx512,
    &attn_avx2,
    /* behind what is faster without codes */
    &attn_amx8,
    &attn_vnni,
    &attn_maddwd,
#endif
    &attn_ref,
};

/* What scratch is larger for. */
#define NEEDS_SCRATCH                                                                              \
    (ATTN_NEED_MEAN | ATTN_NEED_BLOCKS | ATTN_NEED_COLUMNS | ATTN_NEED_MAKE_RESIDUAL |             \
     ATTN_NEED_MASS | ATTN_NEED_LOW)

int attn_kernel_rows(void) { return (int)ARRAY_LEN(kernels); }

const struct attn_kernel *attn_kernel_row(int i)
{
    return i >= 0 && i < attn_kernel_rows() ? kernels[i] : NULL;
}

const struct attn_kernel *attn_kernel_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(kernels); i++)
        if (strcmp(kernels[i]->name, name) == 0) return kernels[i];
    return NULL;
}

static void list_names(char *buf, size_t n)
{
    size_t at = 0;
    buf[0] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(kernels); i++) {
        size_t len = strlen(kernels[i]->name);
        if (at + len + 3 > n) return;
        if (at) memcpy(buf + at, ", ", 3), at += 2;
        memcpy(buf + at, kernels[i]->name, len + 1);
        at += len;
    }
}

const struct attn_kernel *attn_kernel_pick(const struct attn_size *s, const struct cpu *cpu,
                                           const char *only, struct err *e)
{
    if (s->len_q < 1 || s->len_k < 1 || s->n_heads < 1) {
        err_set(e, ERR_USAGE, "attention of %d queries, %d keys, %d heads: all must be 1 or more",
                s->len_q, s->len_k, s->n_heads);
        return NULL;
    }
    if (s->head_dim < 1 || s->head_dim > ATTN_MAX_HEAD_DIM) {
        err_set(e, ERR_USAGE, "attention heads of %d channels, wanted 1 to %d", s->head_dim,
                ATTN_MAX_HEAD_DIM);
        return NULL;
    }
    if (only && !attn_kernel_find(only)) {
        char names[128];
        list_names(names, sizeof names);
        err_set(e, ERR_USAGE, "no attention kernel is named %s; there are %s", only, names);
        return NULL;
    }
    for (size_t i = 0; i < ARRAY_LEN(kernels); i++) {
        const struct attn_kernel *k = kernels[i];
        if (only && strcmp(k->name, only) != 0) continue;
        if (k->needs > cpu->level) {
            if (!only) continue;
            err_set(e, ERR_DEVICE,
                    "attention kernel %s needs %s, this processor has %s; try --kernel ref", only,
                    cpu_level_name(k->needs), cpu_level_name(cpu->level));
            return NULL;
        }
        unsigned missing = s->needs & ~k->can;
        if (k->fits(s) && !missing) return k;
        if (only && missing) {
            char fields[200];
            err_set(e, ERR_DEVICE, "attention kernel %s cannot do %s; leave --kernel out", only,
                    attn_needs_text(missing, fields, sizeof fields));
            return NULL;
        }
        if (only) {
            err_set(e, ERR_DEVICE,
                    "attention kernel %s does not compute %s with heads of %d channels; leave "
                    "--kernel out",
                    only, precision_name(s->precision), s->head_dim);
            return NULL;
        }
    }
    char fields[200];
    err_set(e, ERR_DEVICE, "no attention kernel here does %s with heads of %d channels",
            attn_needs_text(s->needs, fields, sizeof fields), s->head_dim);
    return NULL;
}

/* ZERO and COPY: rows of the plan's heads, host memory. */
static void fill_task(void *ctx, int token, int worker)
{
    const struct attn_job *j = ctx;
    const struct attn_plan *p = j->plan;
    const struct heads *from = &j->residual;
    (void)worker;
    for (int i = 0; i < p->n_heads; i++) {
        int head = attn_head(p, i);
        float *o = heads_at(&j->o, token, head);
        if (p->rule == ATTN_ZERO)
            memset(o, 0, (size_t)j->o.dim * sizeof *o);
        else if (from->type == DTYPE_F32)
            memcpy(o, heads_at(from, token, head), (size_t)j->o.dim * sizeof *o);
        else
            for (int c = 0; c < j->o.dim; c++)
                o[c] = bf16_to_f32(((const uint16_t *)heads_at(from, token, head))[c]);
    }
}

static int check_size(const struct attn_job *j, struct err *e)
{
    const struct attn_size *s = j->size;
    const struct attn_plan *p = j->plan;
    if (!s || !j->scratch) return err_set(e, ERR_BUG, "attention without scratch");
    if (threads_count() > s->threads)
        return err_set(e, ERR_BUG, "attention was opened for %d threads and runs on %d", s->threads,
                       threads_count());
    bool rows = p->all && !j->alive && !j->mass; /* how a plan is cut plays no part */
    if (p->q.len > s->len_q || j->k.len > s->len_k || j->q.n > s->n_heads ||
        j->q.dim != s->head_dim || (!rows && (p->q.n > s->rows || p->k.n > s->cols)))
        return err_set(e, ERR_BUG,
                       "attention over %d x %d tokens, %d heads of %d, %d x %d tiles; opened for "
                       "%d x %d, %d of %d, %d x %d",
                       p->q.len, j->k.len, j->q.n, j->q.dim, p->q.n, p->k.n, s->len_q, s->len_k,
                       s->n_heads, s->head_dim, s->rows, s->cols);
    return 0;
}

int attn_kernel_run(const struct attn_kernel *k, const struct attn_job *j, struct err *e)
{
    const struct attn_plan *p = j->plan;
    char fields[200];
    if (attn_job_check(j, e) < 0) return -1;
    unsigned needs = attn_job_needs(j), missing = needs & ~k->can;
    if (missing)
        return err_set(e, ERR_DEVICE, "attention kernel %s cannot do %s", k->name,
                       attn_needs_text(missing, fields, sizeof fields));
    if (p->rule == ATTN_ZERO || p->rule == ATTN_COPY) {
        if (j->o.type != DTYPE_F32)
            return err_set(e, ERR_DEVICE, "attention kernel %s: o of bf16", k->name);
        threads_run(p->q.len, fill_task, (void *)(uintptr_t)j);
        return 0;
    }
    if (check_size(j, e) < 0) return -1;
    missing = needs & ~j->size->needs & NEEDS_SCRATCH;
    if (missing)
        return err_set(e, ERR_BUG, "attention was not opened for %s",
                       attn_needs_text(missing, fields, sizeof fields));
    k->run(j);
    return 0;
}
