/* Viterbi search over pieces, in double, as the reference's encode_optimized. See unigram.h. */
#include "model/text/unigram.h"

#include "model/text/unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNKNOWN_PENALTY 10.0 /* below the rarest piece; the reference's K_UNK_PENALTY */

struct unigram_node { /* the best cut that ends at this byte */
    double score;
    size_t start; /* where its last piece begins; NOWHERE: none ends here */
    size_t next; /* where the piece that begins here ends; of nodes on the best way only */
    int id; /* of its last piece */
};
#define NOWHERE SIZE_MAX

void ids_add(struct ids *out, int id)
{
    if (out->n < (size_t)out->max) out->at[out->n] = id;
    out->n++;
}

void unigram_init(struct unigram *u, struct piece *items, double *score, int n, int unk_id,
                  bool byte_fallback)
{
    u->score = score;
    u->n = n;
    u->unk_id = unk_id;
    u->byte_fallback = byte_fallback;
    double least = n ? score[0] : 0;
    for (int i = 1; i < n; i++)
        if (score[i] < least) least = score[i];
    u->unk_score = least - UNKNOWN_PENALTY;
    int kept = 0; /* an empty piece can match nothing */
    for (int i = 0; i < n; i++)
        if (items[i].len) items[kept++] = items[i];
    pieces_build(&u->pieces, items, kept);
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        u->byte_id[b] = pieces_find(&u->pieces, name, 6);
    }
}

void unigram_fini(struct unigram *u)
{
    pieces_free(&u->pieces);
    free(u->score);
    u->score = NULL;
}

static void offer(struct unigram_node *to, double score, size_t start, int id)
{
    if (to->start != NOWHERE && !(score > to->score)) return; /* the first found wins a tie */
    *to = (struct unigram_node){score, start, 0, id};
}

static int search(const struct unigram *u, struct unigram_node *best, const char *word, size_t n,
                  struct err *e)
{
    for (size_t i = 0; i <= n; i++)
        best[i] = (struct unigram_node){0, NOWHERE, 0, 0};
    for (size_t at = 0; at < n;) {
        uint32_t rune;
        size_t rune_len = utf8_read(&rune, word + at, n - at);
        double so_far = best[at].score;
        bool single = false; /* some piece is this one rune */
        struct pieces_walk w = {0};
        for (size_t k = at; k < n && pieces_step(&u->pieces, &w, (unsigned char)word[k]); k++) {
            int id = pieces_here(&u->pieces, &w);
            if (id < 0) continue;
            offer(&best[k + 1], u->score[id] + so_far, at, id);
            if (k + 1 - at == rune_len) single = true;
        }
        if (!single) {
            if (u->unk_id < 0)
                return err_set(e, ERR_INPUT,
                               "the tokenizer knows no piece for U+%04X and names no "
                               "unknown token",
                               (unsigned)rune);
            offer(&best[at + rune_len], u->unk_score + so_far, at, u->unk_id);
        }
        at += rune_len;
    }
    return 0;
}

/* Neighbouring unknowns are one string: its own id if it has one, else its bytes, else one unknown.
 */
static void add_string(const struct unigram *u, struct ids *out, const char *s, size_t n)
{
    int id = pieces_find(&u->pieces, s, n);
    bool bytes = id < 0 && u->byte_fallback;
    for (size_t i = 0; bytes && i < n; i++)
        if (u->byte_id[(unsigned char)s[i]] < 0) bytes = false;
    for (size_t i = 0; bytes && i < n; i++)
        ids_add(out, u->byte_id[(unsigned char)s[i]]);
    if (!bytes) ids_add(out, id >= 0 ? id : u->unk_id);
}

int unigram_encode(const struct unigram *u, struct ids *out, const char *word, size_t n,
                   struct unigram_scratch *s, struct err *e)
{
    if (!n) return 0;
    if (s->cap < n + 1) {
        size_t cap = n + 1 + n / 2;
        struct unigram_node *p = realloc(s->at, cap * sizeof *p);
        if (!p) return err_set(e, ERR_RESOURCE, "no memory to tokenize a word of %zu bytes", n);
        s->at = p;
        s->cap = cap;
    }
    struct unigram_node *best = s->at;
    if (search(u, best, word, n, e) < 0) return -1;

    for (size_t end = n; end > 0; end = best[end].start)
        best[best[end].start].next = end;
    for (size_t at = 0; at < n;) {
        size_t end = best[at].next;
        if (best[end].id == u->unk_id)
            while (end < n && best[best[end].next].id == u->unk_id)
                end = best[end].next;
        add_string(u, out, word + at, end - at);
        at = end;
    }
    return 0;
}
