/* What a line may take on a terminal: its width now, and the columns of UTF-8 text.
 *
 * No colours are used anywhere (NO_COLOR has nothing to switch off); the one control sequence, "erase
 * to the end of the line", is left out where TERM is "dumb" or not set. */
#ifndef DITGEN_APP_CLI_TERMINAL_H
#define DITGEN_APP_CLI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* A terminal on which a line can be drawn over. */
bool terminal_draws(FILE *f);
/* Columns, asked anew at each call because windows are resized; 80 when it does not say. */
int terminal_width(FILE *f);
/* Columns of UTF-8 text: wide characters (CJK, emoji) take two, combining ones none. */
int terminal_columns(const char *text);
/* Cuts text at the last character that fits into `columns`. */
void terminal_cut(char *text, int columns);

#endif
