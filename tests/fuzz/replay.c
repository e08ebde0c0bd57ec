/* Runs a fuzz target over every file of its corpus, without a fuzzer: the corpus as a normal test.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv)
{
    int n = 0;
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        if (!d) return fprintf(stderr, "%s: no such corpus folder\n", argv[i]), 1;
        for (struct dirent *f; (f = readdir(d)) != NULL;) {
            if (f->d_name[0] == '.') continue;
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", argv[i], f->d_name);
            FILE *in = fopen(path, "rb");
            if (!in) continue;
            fseek(in, 0, SEEK_END);
            long size = ftell(in);
            rewind(in);
            uint8_t *data = malloc(size > 0 ? (size_t)size : 1);
            if (data && fread(data, 1, (size_t)size, in) == (size_t)size) {
                LLVMFuzzerTestOneInput(data, (size_t)size);
                /* and cut short at eight places */
                for (int k = 0; k < 8; k++) {
                    size_t cut = (size_t)size * (size_t)k / 8;
                    uint8_t *part = malloc(cut ? cut : 1);
                    if (!part) break;
                    memcpy(part, data, cut);
                    LLVMFuzzerTestOneInput(part, cut);
                    free(part);
                }
                n++;
            }
            free(data);
            fclose(in);
        }
        closedir(d);
    }
    printf("%d corpus files replayed\n", n);
    return n ? 0 : 1;
}
