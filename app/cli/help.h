/* --help and --version, printed from the option tables. */
#ifndef DITGEN_APP_HELP_H
#define DITGEN_APP_HELP_H

#include <stdio.h>

void help_generate(FILE *to);
void help_rerun(FILE *to);
void help_version(FILE *to);

#endif
