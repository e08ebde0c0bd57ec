/* Inside of the UMT5 encoder: attention with a relative bias, one head at a time. wan.md 2.2. */
#ifndef DITGEN_TEXT_UMT5_H
#define DITGEN_TEXT_UMT5_H

#include <stdbool.h>
#include <stddef.h>

/* Bucket of relative position key - query, both directions. */
int umt5_bucket(int relative, int buckets, int max_distance);

struct umt5_attn {
    int n, n_heads, d_kv;
    const float *q, *k, *v; /* [n, n_heads * d_kv] */
    float *o; /* same shape; may be q */
    const float *bias; /* [n_heads, 2n - 1], by key - query + n - 1 */
    bool round; /* bf16 rules: what multiplies the values and the output are rounded */
    float *scratch; /* [workers, umt5_attn_scratch()] */
};
size_t umt5_attn_scratch(int n, int d_kv); /* floats of one worker */
void umt5_attend(const struct umt5_attn *a);

#endif
