/* Inside of the UMT5 encoder: which entry of the relative bias belongs to a distance. wan.md 2.2. */
#ifndef DITGEN_TEXT_UMT5_H
#define DITGEN_TEXT_UMT5_H

/* Bucket of relative position key - query, both directions. */
int umt5_bucket(int relative, int buckets, int max_distance);

#endif
