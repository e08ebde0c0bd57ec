/* How the kept sets of a plan follow from q and k, in words that a device can be told: attention/policy/'s
 * own rules, by which tokens of equal blocks are pooled, pairs of blocks scored, and the best ones kept.
 *
 * A member of the axes score or select that can be said like this fills its half (method.h). Members that
 * cannot have no such hook, and their plans are made by the host. */
#ifndef DITGEN_ATTENTION_PLAN_MAKING_H
#define DITGEN_ATTENTION_PLAN_MAKING_H

#ifdef __cplusplus
extern "C" {
#endif

enum attn_pool { ATTN_POOL_MEAN, ATTN_POOL_MAX }; /* pool.h */
enum attn_pick { ATTN_PICK_TOP_K, ATTN_PICK_TOP_P, ATTN_PICK_PERCENTILE }; /* select.h */

struct attn_making {
    enum attn_pool pool;
    int runs; /* 1: score_pooled(); more: score_runs() over so many means a block */
    enum attn_pick pick;
    int k; /* top-k: blocks a row */
    double mass; /* top-p, of softmax's shares */
    int least; /* top-p: blocks a row whatever they weigh */
    double share; /* percentile: of a head's pairs */
    /* Frames from the first on whose blocks of keys are kept by every row; seeing: and blocks of such
     * queries keep all. */
    int sink;
    int seeing;
};

#ifdef __cplusplus
}
#endif

#endif
