/* What loopnest.c and dataflow.c share: exact division, files, threads, clocks.
 *
 * A program defines INPUTS, CONSTANTS, OUTPUTS and
 *   INLINE void evaluate(const float *const *in, const float *x, float *const *out, long read, long write);
 * then includes this file again with KERNEL_MAIN set. It runs as
 *   ./program INPUT OUTPUT COUNT BLOCK CALLS REPEATS
 * INPUT:  CONSTANTS floats, then INPUTS arrays of COUNT floats.
 * OUTPUT: OUTPUTS arrays of COUNT floats.
 * BLOCK:  evaluations whose results go to the same block-sized arrays of a thread, as a caller does who
 *         reduces them at once; BLOCK = COUNT keeps them all. An untimed pass writes OUTPUT.
 * CALLS:  passes over all COUNT in each of REPEATS timings. Prints wall and CPU seconds of each.
 */
#ifndef KERNEL_H
#define KERNEL_H
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Exact for integers below 2^24: the quotient may be an ulp off, one step each way repairs it. */
INLINE float repaired(float q, float a, float d) {
    q -= (q - 1.0f) * d >= a ? 1.0f : 0.0f;
    q += q * d < a ? 1.0f : 0.0f;
    return q;
}
INLINE float ceil_div(float a, float d) { return repaired(ceilf(a / d), a, d); }
INLINE float ceil_by(float a, float d, float inverse) { return repaired(ceilf(a * inverse), a, d); }
#endif

#ifdef KERNEL_MAIN
#include "clock.h"

/* `omp simd` tells the compiler that the arrays are disjoint; local copies keep their pointers in registers. */
static void run(const float *const *in, const float *constants, float *const *out, long start, long stop) {
    const float *i_[INPUTS];
    float *o_[OUTPUTS], x_[CONSTANTS];
    memcpy(i_, in, sizeof i_), memcpy(o_, out, sizeof o_), memcpy(x_, constants, sizeof x_);
#pragma omp simd
    for (long index = start; index < stop; index++) evaluate(i_, x_, o_, index, index - start);
}

int main(int argc, char **argv) {
    if (argc != 7) return fprintf(stderr, "usage: %s INPUT OUTPUT COUNT BLOCK CALLS REPEATS\n", argv[0]), 2;
    const long count = atol(argv[3]), block = atol(argv[4]), blocks = (count + block - 1) / block;
    const int calls = atoi(argv[5]), repeats = atoi(argv[6]);
    float constants[CONSTANTS], *in[INPUTS], *kept[OUTPUTS];

    FILE *file = fopen(argv[1], "rb");
    if (!file || fread(constants, 4, CONSTANTS, file) != CONSTANTS) return 3;
    for (int a = 0; a < INPUTS; a++) {
        in[a] = array(count, a);
        if (fread(in[a], 4, count, file) != (size_t)count) return 3;
    }
    fclose(file);
    for (int a = 0; a < OUTPUTS; a++) kept[a] = array(count, INPUTS + a);

    /* Each core takes its share; nobody waits within a pass, all wait after it, as JAX's callers do. */
    double start = 0, cpu = 0;
#pragma omp parallel
    {
        const int threads = omp_get_num_threads(), thread = omp_get_thread_num();
        const long share[2] = {blocks * thread / threads * block, blocks * (thread + 1) / threads * block};
        const long from_all = count * thread / threads, to_all = count * (thread + 1) / threads;
        float *own[OUTPUTS], *at_block[OUTPUTS];
        for (int a = 0; a < OUTPUTS; a++) own[a] = array(block, INPUTS + a);
        for (int repeat = 0; repeat <= repeats + 1; repeat++) {
            const int keep = repeat == repeats + 1 || block == count, timed = repeat > 0 && repeat <= repeats;
#pragma omp barrier
#pragma omp single
            start = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
            for (int call = 0; call < (timed ? calls : 1); call++) {
                if (block == count) {
                    for (int a = 0; a < OUTPUTS; a++) at_block[a] = kept[a] + from_all;
                    run((const float *const *)in, constants, at_block, from_all, to_all);
                } else
                    for (long from = share[0]; from < MIN(share[1], count); from += block) {
                        for (int a = 0; a < OUTPUTS; a++) at_block[a] = keep ? kept[a] + from : own[a];
                        run((const float *const *)in, constants, at_block, from, MIN(from + block, count));
                    }
#pragma omp barrier
            }
#pragma omp single
            if (timed) printf("%.6f %.6f\n", now(CLOCK_MONOTONIC) - start, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
        }
    }
    file = fopen(argv[2], "wb");
    if (!file) return 3;
    for (int a = 0; a < OUTPUTS; a++) fwrite(kept[a], 4, count, file);
    return fclose(file);
}
#endif
