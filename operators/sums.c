/* Weighted sums of vectors: many sums of the same sources in one pass over them.
 *
 * Every element of every sum is 0 + w0*s0 + w1*s1 + ... in float32, each product and each addition
 * rounded (compile with -ffp-contract=off), and rounded once more where the result is bfloat16: what
 * operators/sums.py does with torch, bit for bit. Sources are read once, widened into the first-level
 * cache and used there for all sums; prefetches and stores around the cache are what makes it as fast
 * as memory.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define CHUNK 256 /* elements widened at a time: ten sources take 10 KB */
#define STRIP 64  /* elements summed in registers */
#define AHEAD 512 /* elements between what is fetched and what is used */

typedef float Vector __attribute__((vector_size(64), may_alias));
enum { FLOAT32, BFLOAT16 };

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static void widen(float *to, const void *from, int kind, long at, long count) {
    if (kind == FLOAT32) {
        const float *values = (const float *)from + at;
        for (int i = 0; i < count; i += 16) __builtin_prefetch(values + i + AHEAD);
        memcpy(to, values, 4 * count);
    } else {
        const uint16_t *halves = (const uint16_t *)from + at;
        for (int i = 0; i < count; i += 32) __builtin_prefetch(halves + i + AHEAD);
        for (int i = 0; i < count; i++) {
            uint32_t bits = (uint32_t)halves[i] << 16;
            memcpy(to + i, &bits, 4);
        }
    }
}

static void put(void *to, const void *from, size_t bytes) {
#ifdef __SSE2__
    if (((uintptr_t)to | bytes) % 16 == 0) {
        for (size_t i = 0; i < bytes; i += 16)
            _mm_stream_si128((__m128i *)((char *)to + i),
                             _mm_load_si128((const __m128i *)((const char *)from + i)));
        return;
    }
#endif
    memcpy(to, from, bytes);
}

/* Elements [start, stop) of all sums. Sum i has the terms first[i] to first[i + 1]: the numbers of
 * sources, and their weights. Returns 0, 1 where a result is NaN (of which the bits are not promised),
 * or -1 where there is no memory. */
int weighted_sums(long start, long stop, int sources, const void **source, const int *source_kind,
                  int sums, const int *first, const int *term, const float *weight, void **out,
                  const int *out_kind) {
    float *wide = aligned_alloc(64, sizeof(float) * CHUNK * (size_t)sources);
    if (!wide) return -1;
    memset(wide, 0, sizeof(float) * CHUNK * (size_t)sources);
    uint32_t nan = 0;
    for (long at = start; at < stop; at += CHUNK) {
        long count = stop - at < CHUNK ? stop - at : CHUNK;
        for (int k = 0; k < sources; k++) widen(wide + k * CHUNK, source[k], source_kind[k], at, count);
        for (int s = 0; s < sums; s++) {
            _Alignas(64) float made[CHUNK];
            for (int i = 0; i < CHUNK; i += STRIP) {
                Vector a = {0}, b = {0}, c = {0}, d = {0};
                for (int t = first[s]; t < first[s + 1]; t++) {
                    const Vector *here = (const Vector *)(wide + (long)term[t] * CHUNK + i);
                    a += weight[t] * here[0];
                    b += weight[t] * here[1];
                    c += weight[t] * here[2];
                    d += weight[t] * here[3];
                }
                Vector *to = (Vector *)(made + i);
                to[0] = a, to[1] = b, to[2] = c, to[3] = d;
            }
            for (int i = 0; i < count; i++) nan |= made[i] != made[i];
            if (out_kind[s] == FLOAT32) {
                put((float *)out[s] + at, made, 4 * count);
            } else {
                _Alignas(64) uint16_t narrow[CHUNK];
                for (int i = 0; i < CHUNK; i++) {
                    uint32_t bits = bits_of(made[i]); /* to the nearest, ties to even */
                    narrow[i] = (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
                }
                put((uint16_t *)out[s] + at, narrow, 2 * count);
            }
        }
    }
#ifdef __SSE2__
    _mm_sfence();
#endif
    free(wide);
    return nan != 0;
}
