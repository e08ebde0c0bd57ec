/* Tokens of like kind stand together: k-means with warm start, and the order that follows.
 *
 * SVG2 (arXiv 2505.18875), attention-sparse.md section 1 steps 2 and 5. Deterministic: seeds are
 * spread over the tokens evenly, equals go to the lowest cluster. One head; any thread. */
#ifndef DITGEN_ATTENTION_POLICY_CLUSTER_H
#define DITGEN_ATTENTION_POLICY_CLUSTER_H

#include "attention/policy/blocks.h"
#include "attention/policy/dots.h"

/* centroid[n, dim]: seeds, every len/n-th token. */
void cluster_seed(float *centroid, int n, const struct blocks *tokens);
/* `iterations` times: each token to its nearest centroid, then centroids to the means of their
 * tokens; one that lost all keeps its place. label[len], count[n] are those of the last assignment,
 * and centroids are means of exactly those. iterations >= 1. scratch: cluster_scratch() bytes. */
size_t cluster_scratch(int n, const struct blocks *tokens);
void cluster_means(float *centroid, int32_t *label, int *count, int n, const struct blocks *tokens,
                   int iterations, void *scratch, dots_fn *dots);
/* Without looking at distances (MagicPIG's hashing, arXiv 2410.16179): label = on which sides of
 * `planes` planes, drawn from seed, through the mean of the tokens; n = 2^planes. */
void cluster_hash(int32_t *label, int *count, int planes, uint64_t seed,
                  const struct blocks *tokens, void *scratch, dots_fn *dots);
/* A stable counting sort: order[len] by label, offset[n + 1]. */
void cluster_order(int32_t *order, int32_t *offset, const int32_t *label, const int *count, int n,
                   int len);

#endif
