/* The last word of C++; see terminate.h. Found by its symbols, since no file of ours is C++: they are
 * there when a library brings the runtime. */
#include "app/cli/terminate.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/clips/aside.h"
#include "model/base/err.h"

struct type_info { /* of the Itanium C++ ABI, 2.9.5 */
    const void *vtable;
    const char *name;
};
static const struct type_info *(*current_type)(void); /* NULL: no runtime */

static void say(const char *text)
{
    ssize_t n = write(STDERR_FILENO, text, strlen(text));
    (void)n; /* there is nobody else to tell */
}

static void on_terminate(void)
{
    const struct type_info *t = current_type();
    const char *name = t ? t->name : "no exception";
    aside_abandon();
    if (strcmp(name, "St9bad_alloc") == 0) {
        say("ditgen: no memory left for a library's own books; try a smaller size, and 'ditgen "
            "resume' where a run kept its state\n");
        _exit(ERR_RESOURCE); /* of any thread: nothing may be unwound here */
    }
    say("ditgen: a library failed: ");
    say(name);
    say("\n");
    abort();
}

void terminate_watch(void)
{
    void (*(*set)(void (*)(void)))(void); /* std::set_terminate */
    *(void **)(void *)&set = dlsym(RTLD_DEFAULT, "_ZSt13set_terminatePFvvE");
    *(void **)(void *)&current_type = dlsym(RTLD_DEFAULT, "__cxa_current_exception_type");
    if (set && current_type) set(on_terminate);
}
