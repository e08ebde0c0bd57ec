/* Products: c (+)= a b by register tiles. A part of lanes.h. */

/* A register tile of `rows` x `vectors`; both are constants where it is called. */
INLINE void gemm_tile(float *c, ptrdiff_t ldc, const float *a, ptrdiff_t lda, const ptrdiff_t *seg,
                      int n_seg, int seg_len, const float *b, const int rows, const int vectors,
                      bool accumulate)
{
    vg s[12][3];
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int j = 0; j < vectors; j++)
            s[i][j] = accumulate
                          ? (vg) * (const vg_mem *)(const void *)(c + i * ldc + j * GEMM_LANES)
                          : (vg){0};
    for (int q = 0; q < n_seg; q++) {
        const float *p = a + seg[q];
#pragma GCC unroll 2
        for (int k = 0; k < seg_len; k++) {
            vg w[3];
#pragma GCC unroll 3
            for (int j = 0; j < vectors; j++)
                w[j] = *(const vg_mem *)(const void *)(b + j * GEMM_LANES);
#pragma GCC unroll 12
            for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
                for (int j = 0; j < vectors; j++)
                    s[i][j] += p[i * lda] * w[j];
            p++;
            b += vectors * GEMM_LANES;
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int j = 0; j < vectors; j++)
            *(vg_mem *)(void *)(c + i * ldc + j * GEMM_LANES) = s[i][j];
}

#define TILE_ARGS c, ldc, a, lda, seg, n_seg, seg_len, b
#define TAIL(n, v)                                                                                 \
    case n:                                                                                        \
        gemm_tile(TILE_ARGS, n, v, accumulate);                                                    \
        break;
#define GEMM(v, rows_v)                                                                            \
    static void gemm_##v(float *c, ptrdiff_t ldc, const float *a, ptrdiff_t lda,                   \
                         const ptrdiff_t *seg, int n_seg, int seg_len, const float *b, int rows,   \
                         bool accumulate)                                                          \
    {                                                                                              \
        for (; rows >= rows_v; rows -= rows_v, a += rows_v * lda, c += rows_v * ldc)               \
            gemm_tile(TILE_ARGS, rows_v, v, accumulate);                                           \
        for (int n; rows > 0; rows -= n, a += n * lda, c += n * ldc) {                             \
            n = rows >= 4 && rows_v > 4 ? 4 : rows >= 2 ? 2 : 1;                                   \
            switch (n) {                                                                           \
                TAIL(4, v) TAIL(2, v) TAIL(1, v)                                                   \
            }                                                                                      \
        }                                                                                          \
    }
GEMM(1, ROWS_1)
GEMM(2, ROWS_2)
GEMM(3, ROWS_3)

static void gemm(float *c, ptrdiff_t ldc, const float *a, ptrdiff_t lda, const ptrdiff_t *seg,
                 int n_seg, int seg_len, const float *b, int rows, int vectors, bool accumulate)
{
    switch (vectors) {
    case 1:
        gemm_1(TILE_ARGS, rows, accumulate);
        break;
    case 2:
        gemm_2(TILE_ARGS, rows, accumulate);
        break;
    default:
        gemm_3(TILE_ARGS, rows, accumulate);
    }
}
