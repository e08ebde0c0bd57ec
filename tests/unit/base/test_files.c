/* The door to files: what is no regular file is refused at once, marks of encodings are understood,
 * and a map knows its file when that becomes shorter. */
#include "model/base/file_map.h"
#include "model/base/json.h"
#include "tests/check.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/ditgen-files-XXXXXX";
static char path[256];

static const char *put(const char *name, const void *bytes, size_t n)
{
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
    return path;
}

/* Each reader must answer, and not wait: alarm() ends the test where one hangs. */
static void refused(const char *what, const char *word)
{
    struct err e = {0};
    struct file_map m;
    struct json *j;
    char *text;
    CHECK(file_open(what, &e) < 0 && e.code == ERR_INPUT);
    CHECK_MSG(strstr(e.msg, word) && strstr(e.msg, what), "%s", e.msg);
    CHECK(file_map_open(&m, what, &e) < 0 && e.code == ERR_INPUT && !m.data);
    CHECK(file_read(&text, NULL, what, 99, &e) < 0 && text_read(&text, NULL, what, 99, &e) < 0);
    CHECK(json_open(&j, what, &e) < 0 && !j && strstr(e.msg, word));
}

static void kinds(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(path, sizeof path, "%s/pipe", dir);
    CHECK(mkfifo(path, 0600) == 0);
    refused(path, "a pipe");
    snprintf(a.sun_path, sizeof a.sun_path, "%s/socket", dir);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(s >= 0 && bind(s, (struct sockaddr *)&a, sizeof a) == 0);
    refused(a.sun_path, "a socket");
    close(s);
    refused("/dev/zero", "a device");
    refused(dir, "a folder");
    refused("/nowhere/at/all", "cannot open");
    unlink(a.sun_path);
    unlink(path);
}

static void reads(const char *bytes, size_t n, const char *want)
{
    struct err e = {0};
    char *text = NULL;
    size_t len = 0;
    int status = text_read(&text, &len, put("text", bytes, n), 1000, &e);
    if (!want) {
        CHECK(status < 0 && e.code == ERR_INPUT && strstr(e.msg, "UTF-16"));
        return;
    }
    CHECK_MSG(status == 0 && len == strlen(want), "%s: %zu bytes", e.msg, len);
    if (status == 0) CHECK_STR(text, want);
    free(text);
}
#define READS(bytes, want) reads(bytes, sizeof(bytes) - 1, want)

static void marks(void)
{
    struct err e = {0};
    struct json *j;
    char *text;
    size_t len;
    double d;
    READS("plain", "plain");
    READS("", "");
    READS("\xEF\xBB\xBF", "");
    READS("\xEF\xBB\xBF"
          "a\xC3\xA9",
          "a\xC3\xA9");
    READS("\xEF\xBB", "\xEF\xBB");
    READS("\xFF\xFE", "");
    READS("\xFF\xFE"
          "a\0\xE9\0\xAC\x20\x3D\xD8\x00\xDE",
          "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
    READS("\xFE\xFF"
          "\0a\0\xE9\x20\xAC\xD8\x3D\xDE\x00",
          "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
    READS("\xFF\xFE"
          "a",
          NULL);
    READS("\xFF\xFE"
          "\x3D\xD8"
          "a\0",
          NULL);
    READS("\xFE\xFF"
          "\xDE\x00",
          NULL);
    put("config.json", "\xEF\xBB\xBF{\"a\": 2}", 11);
    CHECK_OK(json_open(&j, path, &e));
    CHECK(json_number(json_get(j, "a"), &d) && d == 2);
    json_close(j);
    put("config.json", "\xFF\xFE{\0\"\0a\0\"\0:\0002\0}\0", 16);
    CHECK_OK(json_open(&j, path, &e));
    CHECK(json_number(json_get(j, "a"), &d) && d == 2);
    json_close(j);
    put("long", "0123456789", 10);
    CHECK(file_read(&text, &len, path, 9, &e) < 0 && strstr(e.msg, "larger than 9"));
    CHECK_OK(file_read(&text, &len, path, 10, &e));
    CHECK(len == 10 && text[10] == 0);
    free(text);

    int ends[2];
    CHECK(pipe(ends) == 0 && write(ends[1], "\xEF\xBB\xBFx", 4) == 4);
    close(ends[1]);
    CHECK_OK(text_read_fd(&text, &len, ends[0], "standard input", 10, &e));
    CHECK(len == 1 && strcmp(text, "x") == 0);
    close(ends[0]);
    free(text);
}

static char *volatile expected;

static void on_bus(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    const char *at = file_map_at(info->si_addr);
    _exit(at && strcmp(at, expected) == 0 ? 42 : 43);
}

static void shrinks(void)
{
    char pages[3 * 4096] = {1};
    struct file_map a, b;
    struct err e = {0};
    int status = 0;
    put("other", pages, sizeof pages);
    CHECK_OK(file_map_open(&a, path, &e));
    put("weights", pages, sizeof pages);
    CHECK_OK(file_map_open(&b, path, &e));
    CHECK(file_map_at(b.data + 5000) && strcmp(file_map_at(b.data + 5000), path) == 0);
    CHECK(file_map_at(a.data) && strcmp(file_map_at(a.data), path) != 0);
    pid_t child = fork();
    if (child == 0) {
        struct sigaction act = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
        sigaction(SIGBUS, &act, NULL);
        expected = path;
        if (truncate(path, 10) != 0) _exit(1);
        _exit(((const volatile unsigned char *)b.data)[9000]);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 42);
    const unsigned char *was = b.data;
    file_map_close(&b);
    CHECK(!file_map_at(was));
    file_map_close(&a);
    CHECK_OK(file_map_open(&a, put("weights", pages, 4096), &e)); /* a note is used again */
    CHECK(file_map_at(a.data + 4095) && !file_map_at(a.data + 4096));
    file_map_close(&a);
}

int main(void)
{
    alarm(60);
    CHECK(mkdtemp(dir) != NULL);
    kinds();
    marks();
    shrinks();
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    CHECK(system(command) == 0);
    return TEST_RESULT();
}
