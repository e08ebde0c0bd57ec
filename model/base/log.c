/* Log lines; see log.h. */
#include "model/base/log.h"

#include <stdarg.h>
#include <stdio.h>

void log_line(const struct log *l, int level, const char *fmt, ...)
{
    if (!l || !l->write || level > l->level) return;
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    l->write(l->ctx, level, line);
}
