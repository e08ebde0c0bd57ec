/* The y4m file format (yuv4mpeg(5)), what its writer and its reader share.
 *
 * Frames are C444, 8 bits, limited range, BT.601: y4m has no place for a matrix and ffmpeg and most
 * players take 601 when nothing is said. XCOLORRANGE is
 * ffmpeg's word for the range; XMATRIX says the matrix to people. 4:4:4 keeps colour at full resolution.
 *
 * Settings travel in an X word "XDITGEN=" (settings_text.h). ffmpeg refuses
 * stream header lines beyond about 95 bytes and frame header lines beyond 79, so when the clip has
 * frames enough the word is cut over the X words of the first FRAME lines; else it stands in the
 * stream header. */
#ifndef DITGEN_APP_WRITERS_Y4M_H
#define DITGEN_APP_WRITERS_Y4M_H

#include "app/clips/writer.h"

#define Y4M_MAGIC "YUV4MPEG2"
#define Y4M_WORD "XDITGEN="
#define Y4M_CHUNK 64 /* "FRAME " + Y4M_WORD + chunk + newline = 79 */

/* A whole file in memory; path is for messages. */
int y4m_parse(struct clip *c, const uint8_t *data, size_t size, const char *path, bool want_frames,
              struct err *e);
int y4m_read(struct clip *c, const char *path, bool want_frames, struct err *e);
bool y4m_reads(const char *path, const uint8_t *head, size_t n);

#endif
