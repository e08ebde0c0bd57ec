/* Every config that diffusers saves (make_configs.py): its JSON is read, what a Wan pipeline may
 * have runs, and everything else is refused for what it asks, never for how it is written. */
#include "model/base/file_map.h"
#include "model/base/json.h"
#include "sched/sched.h"
#include "tests/check.h"

#include <unistd.h>

static void one(const struct json *row)
{
    const char *name = json_string(json_at(row, 0)), *what = json_string(json_at(row, 1)),
               *text = json_string(json_at(row, 3));
    struct err e = {0};
    struct json *root;
    bool runs = false;
    json_bool(json_at(row, 2), &runs);
    CHECK_MSG(json_parse(&root, text, strlen(text), name, &e) == 0, "%s, %s: %s", name, what,
              e.msg);
    if (!root) return;
    CHECK_MSG(json_is_object(root) && json_count(root) > 0, "%s, %s", name, what);
    json_close(root);

    char path[] = "/tmp/ditgen-config-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    struct sched_config c;
    e = (struct err){0};
    int r = sched_config_read(&c, path, &e);
    if (runs)
        CHECK_MSG(r == 0, "%s, %s: %s", name, what, e.msg);
    else
        CHECK_MSG(r == 0 || (e.code == ERR_INPUT && !strstr(e.msg, "JSON")), "%s, %s: %s", name,
                  what, e.msg);
    unlink(path);
}

/* The values of the rows "json.dumps", read for what they are. */
static void values(const struct json *root)
{
    int infinite = 0, rows = 0;
    for (const struct json *row = json_first(root); row; row = json_next(row)) {
        const char *what = json_string(json_at(row, 1)), *text = json_string(json_at(row, 3));
        struct err e = {0};
        struct json *doc;
        int v;
        if (strcmp(json_string(json_at(row, 0)), "json.dumps") != 0) continue;
        rows++;
        CHECK_MSG(json_parse(&doc, text, strlen(text), "t", &e) == 0, "%s: %s", what, e.msg);
        if (!doc) continue;
        const struct json *value = json_get(doc, "value");
        double d;
        if (strcmp(what, "inf") == 0 || strcmp(what, "-inf") == 0 || strcmp(what, "nan") == 0) {
            infinite++;
            CHECK(!json_number(value, &d) && !json_is_null(value));
            CHECK(json_read_int(doc, "t", "value", 0, 9, 1, &v, &e) < 0 &&
                  strstr(e.msg, strstr(what, "nan") ? "nan" : "inf"));
        }
        if (strcmp(what, "'a\\x00b'") == 0)
            CHECK_STR(json_string(value), "a\xC0\x80"
                                          "b");
        if (strcmp(what, "'\\ud800'") == 0) CHECK_STR(json_string(value), "\xED\xA0\x80");
        if (strcmp(what, "{1: 2, '1': 3}") == 0)
            CHECK(json_number(json_get(value, "1"), &d) && d == 3);
        if (strcmp(what, "1e-07") == 0) CHECK(json_number(value, &d) && d == 1e-07);
        json_close(doc);
    }
    CHECK(infinite >= 3 && rows > 20);
}

int main(void)
{
    struct err e = {0};
    struct json *root;
    CHECK_OK(json_open(&root, TEST_SOURCE_DIR "/tests/golden/data/configs.json", &e));
    CHECK(json_count(root) > 100);
    for (const struct json *row = json_first(root); row; row = json_next(row))
        if (strcmp(json_string(json_at(row, 0)), "json.dumps") != 0) one(row);
    values(root);
    json_close(root);
    return TEST_RESULT();
}
