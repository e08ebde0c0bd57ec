/* What the tests of this room share: paths and JSON goldens. */
#ifndef DITGEN_TESTS_TEXT_TEST_H
#define DITGEN_TESTS_TEXT_TEST_H

#include "model/base/json.h"
#include "tests/check.h"

/* A JSON file of tests/golden/data; any surprise aborts. */
static inline struct json *text_golden(const char *name)
{
    char path[1024];
    struct json *root;
    struct err e = {0};
    snprintf(path, sizeof path, "%s/tests/golden/data/%s", TEST_SOURCE_DIR, name);
    if (json_open(&root, path, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    return root;
}

/* Everything that is not printable ASCII as hex, for messages. */
static inline const char *text_show(char *buf, size_t n, const char *s)
{
    size_t at = 0;
    for (; *s && at + 5 < n; s++) {
        unsigned char c = (unsigned char)*s;
        if (c >= 32 && c < 127)
            buf[at++] = *s;
        else
            at += (size_t)snprintf(buf + at, n - at, "\\%02x", c);
    }
    buf[at] = 0;
    return buf;
}

#endif
