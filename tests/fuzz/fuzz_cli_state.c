/* Whatever state is given: one sentence, or a state that can be handed on: every pointer set, the
 * steps in order, and text that ends. */
#include "app/cli/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds)
{
    if (!holds) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[40];
    struct state s;
    struct err e = {0};
    int fd = memfd_create("state", MFD_CLOEXEC);
    if (fd >= 0 && size < 1 << 20 && write(fd, data, size) == (ssize_t)size) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (state_read(&s, path, &e) < 0) {
            require(e.code != ERR_NONE && e.msg[0]);
        } else {
            require(s.at.step >= 1 && s.at.step <= s.at.steps && s.at.n_history <= DITGEN_HISTORY);
            require(s.stored && s.used && s.output && *s.output && s.model_dir);
            volatile float last = s.at.latents[s.file.n - 1];
            for (int i = 0; i < s.at.n_history; i++)
                last = s.at.history[i][s.file.n - 1];
            (void)last;
            state_same_settings(s.stored, s.used, true);
            state_fini(&s);
        }
    }
    if (fd >= 0) close(fd);
    return 0;
}
