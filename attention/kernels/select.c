/* Which kernel runs: the table, best first. */
#include "attention/kernels/kernels.h"

#include <string.h>

extern const struct attn_kernel attn_ref;
#ifdef ATTENTION_X86 /* set by CMake together with the sources of these rows */
extern const struct attn_kernel attn_avx2, attn_avx512, attn_avx512bf16, attn_amx;
#endif

static const struct attn_kernel *const kernels[] = {
#ifdef ATTENTION_X86
    &attn_amx, &attn_avx512bf16, &attn_avx512, &attn_avx2,
#endif
    &attn_ref,
};

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
        if (k->fits(s)) return k;
        if (only) {
            err_set(e, ERR_DEVICE,
                    "attention kernel %s does not compute %s with heads of %d channels; leave "
                    "--kernel out",
                    only, precision_name(s->precision), s->head_dim);
            return NULL;
        }
    }
    err_set(e, ERR_BUG, "no attention kernel fits %d channels a head", s->head_dim);
    return NULL;
}
