/* The products of dots.h for one level of processor: DOTS names the function, LANES its width. Sixteen
 * rows of b are turned into columns once and met by four rows of a at a time. */
typedef float lanes __attribute__((vector_size(LANES * 4), aligned(4)));
enum { COLS = 16, VECTORS = COLS / LANES, CHUNK = 256 };

static void few(float *c, int64_t ldc, const float *a, int64_t lda, float (*restrict t)[COLS],
                int m, int n, int k, float scale, int first)
{
    lanes sum[4][VECTORS];
    for (int i = 0; i < 4; i++)
        for (int v = 0; v < VECTORS; v++)
            for (int l = 0; l < LANES; l++)
                sum[i][v][l] =
                    first || i >= m || v * LANES + l >= n ? 0 : c[i * ldc + v * LANES + l];
    const float *row[4];
    for (int i = 0; i < 4; i++)
        row[i] = a + (i < m ? i : 0) * lda;
    for (int x = 0; x < k; x++)
        for (int v = 0; v < VECTORS; v++) {
            const lanes col = *(const lanes *)&t[x][v * LANES];
            for (int i = 0; i < 4; i++)
                sum[i][v] += col * row[i][x];
        }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++)
            c[i * ldc + j] = sum[i][j / LANES][j % LANES] * scale;
}

void DOTS(float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t ldb, int m,
          int n, int k, float scale)
{
    float t[CHUNK][COLS];
    for (int j = 0; j < n; j += COLS) {
        int cols = n - j < COLS ? n - j : COLS;
        for (int x = 0; x < k || x == 0; x += CHUNK) {
            int deep = k - x < CHUNK ? k - x : CHUNK;
            for (int l = 0; l < COLS; l++)
                for (int y = 0; y < deep; y++)
                    t[y][l] = l < cols ? b[(j + l) * ldb + x + y] : 0;
            for (int i = 0; i < m; i += 4)
                few(c + i * ldc + j, ldc, a + i * lda + x, lda, t, m - i < 4 ? m - i : 4, cols,
                    deep, x + CHUNK < k ? 1 : scale, x == 0);
        }
    }
}
