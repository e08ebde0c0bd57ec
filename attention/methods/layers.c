/* Layers that lie together look alike: the first of a group makes the plan, the others use it. The
 * selection is its own (means of blocks, one for all heads of the layer), or that of any method beside
 * it. Beside exact layers at the start groups are counted from the first other one. */
#include "attention/axes/axes.h"

struct layers {
    struct attn_knobs knobs;
    int group;
};

static int leader(const struct attn_part *p, int layer)
{
    int first = attn_exact_layers(p), group = ((const struct layers *)p->options)->group;
    return layer < first ? layer : layer - (layer - first) % group;
}

static bool layers_anew(const struct attn_part *p, const struct attn_turn *t)
{
    return t->at.layer == t->plan_layer &&
           schedule_at(p->knobs->every, p->first, p->last, t->at.step);
}

static const struct axis_reuse anew_by_layer = {
    .name = "layers",
    .summary = "a plan stands for a group of layers",
    .anew = layers_anew,
    .scheduled = true,
    .layer = leader,
};

const struct attn_method attn_layers = {
    .name = "layers",
    .summary = "one plan for a group of layers, made by the first of them",
    .recipe = {.score = &score_by_layer,
               .select = &keep_top_k,
               .reuse = &anew_by_layer,
               .mild = true},
    .options = OPTIONS(
        OPT_INT(struct layers, group, "group", 4, 1, 1000, "layers that share a plan"),
        OPT_STRING(
            struct attn_knobs, every, "every", "1",
            "when plans are made: each so many steps, early (ever rarer), or steps as 6/8/10"),
        KNOB_DENSITY(0.25, "share of blocks that a row keeps"), KNOB_SINK(0), KNOB_FIRST(0.2),
        KNOB_LAST(0), KNOB_BLOCK(64)),
    .options_size = sizeof(struct layers),
    .choose = axis_choose,
};
