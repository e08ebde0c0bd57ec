/* Rates of the convolutions of a 2.1 decoder at 832x480, two latent frames a piece. Part of check_frames. */

static double median(double *x, int n)
{
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && x[j] < x[j - 1]; j--) {
            double t = x[j];
            x[j] = x[j - 1];
            x[j - 1] = t;
        }
    return x[n / 2];
}

static void time_conv(const char *what, const struct conv_shape *s, int frames, int h, int w,
                      int channels_out)
{
    enum { RUNS = 7 };
    struct err e = {0};
    struct conv_cuda c = call_of(s, frames, h, w, true);
    struct test_rng r = {1};
    size_t in = (size_t)(h * w) * (size_t)pad8(s->in),
           out = (size_t)conv_cuda_h(&c) * (size_t)conv_cuda_w(&c) * (size_t)pad8(s->out);
    int taps = s->kt * s->ks * s->ks;
    float *x = random_numbers(in, 1, true, &r);
    float *weight = random_numbers((size_t)(s->out * s->in * taps), 0.02f, true, &r);
    struct card kx[CONV_CUDA_FRAMES + 2], ky[CONV_CUDA_FRAMES], kw = packed_weight(weight, s, true);
    struct card gamma = card_of(x, (size_t)pad8(s->out), false);
    for (int f = 0; f < frames + s->kt - 1; f++) {
        kx[f] = card_of(x, in, true);
        c.src[f] = kx[f].at;
    }
    for (int f = 0; f < frames; f++) {
        ky[f] = card_room(out, true);
        c.y[f] = ky[f].at;
    }
    c.weight = kw.at;
    struct pixel_norm norm_of = {.y = c.y,
                                 .x = (const void *const *)c.y,
                                 .frames = frames,
                                 .channels = s->out,
                                 .n = out / (size_t)pad8(s->out),
                                 .gamma = (const float *)(void *)gamma.at,
                                 .silu = true,
                                 .bf16 = true};
    double t[RUNS], t_norm[RUNS], t_both[RUNS];
    struct conv_cuda both = c;
    both.gamma = norm_of.gamma;
    both.silu = true;
    for (int f = 0; f < frames; f++) {
        both.norm[f] = c.y[f];
        both.y[f] = NULL;
    }
    cudaEvent_t a, b, d, g;
    card_must(cudaEventCreate(&g), "an event");
    card_must(cudaEventCreate(&a), "an event");
    card_must(cudaEventCreate(&b), "an event");
    card_must(cudaEventCreate(&d), "an event");
    for (int i = -2; i < RUNS; i++) {
        float ms, ms_norm, ms_both;
        card_must(cudaEventRecord(a, NULL), "an event");
        CHECK_OK(conv_cuda_run(&c, &e));
        card_must(cudaEventRecord(b, NULL), "an event");
        CHECK_OK(pixel_norm_cuda(&norm_of, &e));
        card_must(cudaEventRecord(d, NULL), "an event");
        CHECK_OK(conv_cuda_run(&both, &e));
        card_must(cudaEventRecord(g, NULL), "an event");
        card_must(cudaEventSynchronize(g), "the kernels");
        card_must(cudaEventElapsedTime(&ms, a, b), "a time");
        card_must(cudaEventElapsedTime(&ms_norm, b, d), "a time");
        card_must(cudaEventElapsedTime(&ms_both, d, g), "a time");
        if (i < 0) continue;
        t[i] = (double)ms, t_norm[i] = (double)ms_norm, t_both[i] = (double)ms_both;
    }
    double flop =
        2.0 * taps * s->in * channels_out * (double)(conv_cuda_h(&c) * conv_cuda_w(&c)) * frames;
    double ms = median(t, RUNS), norm = median(t_norm, RUNS);
    printf("%-34s %8.3f ms %7.1f TFLOP/s   norm %7.3f ms %6.0f GB/s   in one call %8.3f ms\n", what,
           ms, flop / ms / 1e9, norm, 4.0 * (double)out * frames / norm / 1e6,
           median(t_both, RUNS));
    for (int f = 0; f < frames + s->kt - 1; f++)
        card_free(&kx[f]);
    for (int f = 0; f < frames; f++)
        card_free(&ky[f]);
    card_free(&kw);
    card_free(&gamma);
    free(x), free(weight);
}

static int time_all(void)
{
    static const struct {
        const char *what;
        struct conv_shape s;
        int frames, h, w;
    } of[] = {
        {"96 to 96, 832x480, 4 frames", {96, 96, 3, 3, 1, 1, false}, 4, 480, 832},
        {"96 to 96, 832x480, 8 frames", {96, 96, 3, 3, 1, 1, false}, 8, 480, 832},
        {"192 to 192, 416x240, 8 frames", {192, 192, 3, 3, 1, 1, false}, 8, 240, 416},
        {"384 to 384, 208x120, 4 frames", {384, 384, 3, 3, 1, 1, false}, 4, 120, 208},
        {"192 to 384, 208x120, 4 frames", {192, 384, 3, 3, 1, 1, false}, 4, 120, 208},
        {"384 to 384, 104x60, 2 frames", {384, 384, 3, 3, 1, 1, false}, 2, 60, 104},
        {"192 to 96 doubled, 832x480, 8", {192, 96, 1, 3, 1, 1, true}, 8, 240, 416},
        {"384 to 192 doubled, 416x240, 8", {384, 192, 1, 3, 1, 1, true}, 8, 120, 208},
        {"96 to 3, 832x480, 8 frames", {96, 3, 3, 3, 1, 1, false}, 8, 480, 832},
        {"384 to 384, time, 208x120, 4", {384, 384, 3, 1, 1, 1, false}, 4, 120, 208},
        {"384 to 1152, 1x1, 104x60, 2", {384, 1152, 1, 1, 1, 1, false}, 2, 60, 104},
    };
    for (size_t i = 0; i < 2 * ARRAY_LEN(of); i++) { /* this card's best, then mma.sync */
        arch = i < ARRAY_LEN(of) ? 0 : 80;
        if (i == ARRAY_LEN(of)) printf("by mma.sync:\n");
        time_conv(of[i % ARRAY_LEN(of)].what, &of[i % ARRAY_LEN(of)].s,
                  of[i % ARRAY_LEN(of)].frames, of[i % ARRAY_LEN(of)].h, of[i % ARRAY_LEN(of)].w,
                  of[i % ARRAY_LEN(of)].s.out);
    }
    enum { RUNS = 5, PIXELS = 6240, WIDTH = 384 };
    struct err e = {0};
    struct test_rng r = {1};
    float *x = random_numbers((size_t)PIXELS * WIDTH, 1, true, &r);
    struct card q = card_of(x, (size_t)PIXELS * WIDTH, true),
                o = card_room((size_t)PIXELS * WIDTH, true);
    void *room = NULL;
    card_must(cudaMalloc(&room, wide_attention_scratch(PIXELS, WIDTH, true)), "memory");
    cudaEvent_t a, b;
    double t[RUNS];
    card_must(cudaEventCreate(&a), "an event");
    card_must(cudaEventCreate(&b), "an event");
    for (int i = -1; i < RUNS; i++) {
        float ms;
        card_must(cudaEventRecord(a, NULL), "an event");
        CHECK_OK(wide_attention_cuda(o.at, q.at, q.at, q.at, PIXELS, WIDTH, true, room, NULL, &e));
        card_must(cudaEventRecord(b, NULL), "an event");
        card_must(cudaEventSynchronize(b), "the kernels");
        card_must(cudaEventElapsedTime(&ms, a, b), "a time");
        if (i >= 0) t[i] = (double)ms;
    }
    printf("%-34s %8.3f ms\n", "wide attention, 104x60 of 384", median(t, RUNS));
    free(x);
    card_free(&q), card_free(&o);
    card_must(cudaFree(room), "freeing");
    return TEST_RESULT();
}
