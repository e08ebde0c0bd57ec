/* Protocol buffers, as much as reading a message field by field takes. The bytes are hostile: every
 * length is checked, and nothing is copied. Owner: caller of the bytes. */
#ifndef DITGEN_TEXT_PROTO_H
#define DITGEN_TEXT_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct proto { /* what is left of a message */
    const unsigned char *at, *end;
    bool broken; /* it ended inside a field, or a field has a type that none has */
};

struct proto_field {
    int number;
    uint64_t value; /* of an integer, or the bits of a float or double */
    struct proto bytes; /* of a string, bytes or a message; else empty */
};

static inline uint64_t proto_varint(struct proto *p)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64 && p->at < p->end; shift += 7) {
        unsigned char b = *p->at++;
        v |= (uint64_t)(b & 127) << shift;
        if (!(b & 128)) return v;
    }
    p->broken = true;
    return 0;
}

/* The next field; false at the end, or when the message is broken. */
static inline bool proto_next(struct proto *p, struct proto_field *f)
{
    if (p->broken || p->at >= p->end) return false;
    uint64_t key = proto_varint(p), n = 0;
    *f = (struct proto_field){.number = (int)(key >> 3 & 0x1FFFFFFF)};
    switch (key & 7) {
    case 0:
        f->value = proto_varint(p);
        return !p->broken;
    case 1:
        n = 8;
        break;
    case 2:
        n = proto_varint(p);
        break;
    case 5:
        n = 4;
        break;
    default: /* groups went out of use before SentencePiece was written */
        p->broken = true;
    }
    if (p->broken || !f->number || n > (uint64_t)(p->end - p->at)) {
        p->broken = true;
        return false;
    }
    f->bytes = (struct proto){p->at, p->at + n, false};
    if ((key & 7) != 2) {
        for (uint64_t i = 0; i < n; i++)
            f->value |= (uint64_t)p->at[i] << (8 * i);
        f->bytes.at = f->bytes.end;
    }
    p->at += n;
    return true;
}

static inline size_t proto_len(const struct proto *p) { return (size_t)(p->end - p->at); }

static inline float proto_float(const struct proto_field *f)
{
    uint32_t bits = (uint32_t)f->value;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

#endif
