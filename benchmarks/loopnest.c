/* The formulas of diffhw/models/_loopnest*.py in plain C: the yardstick of loopnest_kernel.py.
 *
 * One (layer, mapping) pair per index on a Gemmini-like hierarchy: registers keep weights, an accumulator
 * outputs, a scratchpad weights and inputs, a DRAM all; c spreads below the accumulator, k below the
 * scratchpad. What the model finds out from that structure when it is traced is written down here by hand:
 * which tensor meets which level, which loops cannot slide. Any factors, any order, strides and dilations.
 * Structure of arrays, float32, straight-line code, vectorised over the pairs, shared between the cores.
 *
 * gcc -O3 -march=native -ffast-math -fopenmp -fopt-info-vec-optimized loopnest.c -o loopnest -lm
 * With -DGEMM: layers of p, c and k only, as the model sees a mapping without the other loops.
 */
#include "kernel.h"

enum { N, G, K, C, P, Q, R, S, LOOPS };
#define BIT(d) (1 << (d))
#ifdef GEMM
#define HAVE (BIT(P) | BIT(C) | BIT(K))
#else
#define HAVE 0xff
#endif
#define INDEX_W (BIT(G) | BIT(K) | BIT(C) | BIT(R) | BIT(S))
#define INDEX_I (0xff & ~BIT(K))
#define INDEX_O (BIT(N) | BIT(G) | BIT(K) | BIT(P) | BIT(Q))

/* Arrays: a factor and a place per level and loop, the two spatial factors, the layer. */
enum { LEVELS = 4, TIME = 0, PLACE = 32, SPREAD_C = 64, SPREAD_K, EXTENT, STRIDE_H = EXTENT + 8, STRIDE_W,
       DILATION_H, DILATION_W, INPUTS };
/* Per level: capacity, width, ports, bits of w, i, o, energies. Then the rest. */
enum { CAPACITY, WIDTH, READ_PORT, WRITE_PORT, SHARED_PORT, BITS_W, BITS_I, BITS_O, READ_PJ, FILL_PJ, UPDATE_PJ,
       OF_LEVEL };
enum { FAN_C = LEVELS * OF_LEVEL, FAN_K, MAC_PJ, STATIC_PJ_CYCLE, CONSTANTS };
enum { ENERGY, CYCLES, VIOLATION, OUTPUTS };

#define ALL(X) X(N) X(G) X(K) X(C) X(P) X(Q) X(R) X(S)

/* Products over the loops of a mask; masks are constants of inlined calls. */
INLINE float product(const float *of, int loops) {
    float found = 1.0f;
#define ONE(d) \
    if (loops & HAVE & BIT(d)) found *= of[d];
    ALL(ONE)
#undef ONE
    return found;
}

/* 1 where none of `loops` runs inside the loop d of its level. */
INLINE float idle_inside(const float *idle, const float *place, int loops, int d) {
    float found = 1.0f;
#define ONE(a) \
    if (loops & HAVE & ~BIT(d) & BIT(a)) found = place[a] < place[d] ? found * idle[a] : found;
    ALL(ONE)
#undef ONE
    return found;
}

/* Product of the loops outside d in its level. */
INLINE float outside(const float *time, const float *place, int d) {
    float found = 1.0f;
#define ONE(a) \
    if (HAVE & ~BIT(d) & BIT(a)) found = place[d] < place[a] ? found * time[a] : found;
    ALL(ONE)
#undef ONE
    return found;
}

/* What a level adds to the visits of a tile inside it: its loops that do not index the tensor, but for the
 * leading ones while nothing has moved (still = 1). */
INLINE float again(const float *time, const float *idle, const float *place, int indexing, float still) {
    float found = 1.0f;
#define ONE(d) \
    if (HAVE & ~indexing & BIT(d)) \
        found *= 1.0f + (time[d] - 1.0f) * (1.0f - still * idle_inside(idle, place, indexing, d));
    ALL(ONE)
#undef ONE
    return found;
}

/* Words spared by windows that slide along one axis under the DRAM's loops. */
INLINE float sliding(const float *time, const float *idle, const float *place, const float *inner, int out, int taps,
                     float stride, float dilation, float length, float slab) {
    if (!(HAVE & BIT(out)) && !(HAVE & BIT(taps))) return 0.0f;
    const int foreign = INDEX_I & ~BIT(out) & ~BIT(taps);
    const float step_out = stride * inner[out], step_taps = dilation * inner[taps];
    const float times_out = (time[out] - 1.0f) * outside(time, place, out) * idle_inside(idle, place, foreign, out);
    if (!(HAVE & BIT(taps))) {
        const float runs = time[out] > 1.0f ? step_out : 0.0f;
        return times_out * slab * (step_out == runs ? MAX(length - runs, 0.0f) : 0.0f);
    }
    const float times_taps = (time[taps] - 1.0f) * outside(time, place, taps) * idle_inside(idle, place, foreign, taps);
    const int swap = place[taps] < place[out];
    const float f1 = swap ? time[taps] : time[out], f2 = swap ? time[out] : time[taps];
    const float s1 = swap ? step_taps : step_out, s2 = swap ? step_out : step_taps;
    const float t1 = swap ? times_taps : times_out, t2 = swap ? times_out : times_taps;
    const float first = f1 > 1.0f ? s1 : 0.0f; /* 0: no loop of this axis has run so far */
    const float spared1 = s1 == first ? MAX(length - first, 0.0f) : 0.0f;
    const float second = f2 > 1.0f ? s2 : 0.0f, both = first == 0.0f ? second : first;
    const float moved = s2 - first; /* what the first loop went, it falls back */
    const float spared2 = moved == both ? MAX(length - both, 0.0f) : moved == 0.0f ? length : 0.0f;
    return slab * (t1 * spared1 + t2 * spared2);
}

/* pJ of one tensor at one level, one instance. */
INLINE float priced(const float *level, float bits, float reads, float fills, float updates) {
    const float width = level[WIDTH], inverse = 1.0f / width;
    return ceil_by(reads * bits, width, inverse) * level[READ_PJ] +
           ceil_by(fills * bits, width, inverse) * level[FILL_PJ] +
           ceil_by(updates * bits, width, inverse) * level[UPDATE_PJ];
}

INLINE float port_cycles(const float *level, float reads, float writes) {
    const float each = MAX(reads * (1.0f / level[READ_PORT]), writes * (1.0f / level[WRITE_PORT]));
    return MAX(each, (reads + writes) * (1.0f / level[SHARED_PORT]));
}

INLINE void evaluate(const float *const *in, const float *x, float *const *out, long read, long write) {
    float f[LEVELS][LOOPS], idle[LEVELS][LOOPS], place[LEVELS][LOOPS], tile[LEVELS][LOOPS];
    const float spread_c = in[SPREAD_C][read], spread_k = in[SPREAD_K][read];
#define LOAD(m, d) \
    f[m][d] = HAVE & BIT(d) ? in[TIME + m * LOOPS + d][read] : 1.0f; \
    place[m][d] = in[PLACE + m * LOOPS + d][read]; \
    idle[m][d] = 1.0f - MIN(f[m][d] - 1.0f, 1.0f); \
    tile[m][d] = f[m][d] * (m ? tile[m ? m - 1 : 0][d] : 1.0f);
#define LOAD_0(d) LOAD(0, d)
#define LOAD_1(d) LOAD(1, d)
#define LOAD_2(d) LOAD(2, d)
#define LOAD_3(d) LOAD(3, d)
    ALL(LOAD_0) ALL(LOAD_1)
    tile[1][C] *= spread_c;
    ALL(LOAD_2)
    tile[2][K] *= spread_k;
    ALL(LOAD_3)
    const float *registers = x, *accumulator = x + OF_LEVEL, *scratchpad = x + 2 * OF_LEVEL, *dram = x + 3 * OF_LEVEL;

    /* Times: of the loops that index a tensor above a level, and of the others. */
    float above0[LOOPS], above1[LOOPS], all[LOOPS];
#define PRODUCTS(d) above1[d] = f[2][d] * f[3][d], above0[d] = f[1][d] * above1[d], all[d] = f[0][d] * above0[d];
    ALL(PRODUCTS)
    const float compute = product(all, 0xff);

    /* Weights: registers, scratchpad, DRAM. */
    const float still_w1 = product(idle[1], INDEX_W), still_w2 = still_w1 * product(idle[2], INDEX_W);
    const float visits_w2 = again(f[3], idle[3], place[3], INDEX_W, 1.0f);
    const float visits_w0 = again(f[1], idle[1], place[1], INDEX_W, 1.0f) *
                            again(f[2], idle[2], place[2], INDEX_W, still_w1) *
                            again(f[3], idle[3], place[3], INDEX_W, still_w2);
    const float w_tile0 = product(f[0], INDEX_W), w_tile2 = product(tile[2], INDEX_W);
    const float w_tile3 = product(tile[3], INDEX_W);
    const float w_distinct0 = w_tile0 * product(above0, INDEX_W), w_distinct2 = w_tile2 * product(f[3], INDEX_W);
    const float w_reads0 = w_distinct0 * product(all, 0xff & ~INDEX_W), w_fills0 = w_distinct0 * visits_w0;
    const float w_reads2 = w_distinct2 * visits_w0, w_fills2 = w_distinct2 * visits_w2;
    const float w_reads3 = w_tile3 * visits_w2;

    /* Outputs: accumulator, DRAM. */
    const float visits_o1 = again(f[2], idle[2], place[2], INDEX_O, 1.0f) *
                            again(f[3], idle[3], place[3], INDEX_O, product(idle[2], INDEX_O));
    const float o_tile1 = product(tile[1], INDEX_O), o_tile3 = product(tile[3], INDEX_O);
    const float o_distinct1 = o_tile1 * product(above1, INDEX_O), asked = product(all, 0xff & ~INDEX_O);
    const float o_reads1 = o_distinct1 * (asked - 1.0f), o_updates1 = o_distinct1 * asked;
    const float o_fills1 = o_distinct1 * (visits_o1 - 1.0f);
    const float o_reads3 = o_tile3 * (visits_o1 - 1.0f), o_updates3 = o_tile3 * visits_o1;

    /* Inputs: scratchpad, DRAM. */
    const float sh = in[STRIDE_H][read], sw = in[STRIDE_W][read], dh = in[DILATION_H][read], dw = in[DILATION_W][read];
    const float height2 = (tile[2][P] - 1.0f) * sh + (tile[2][R] - 1.0f) * dh + 1.0f;
    const float width2 = (tile[2][Q] - 1.0f) * sw + (tile[2][S] - 1.0f) * dw + 1.0f;
    const float height3 = (tile[3][P] - 1.0f) * sh + (tile[3][R] - 1.0f) * dh + 1.0f;
    const float width3 = (tile[3][Q] - 1.0f) * sw + (tile[3][S] - 1.0f) * dw + 1.0f;
    const int deep = BIT(N) | BIT(G) | BIT(C);
    const float depth = product(tile[2], deep), i_tile2 = depth * height2 * width2;
    const float i_tile3 = product(tile[3], deep) * height3 * width3;
    const float visits_i2 = again(f[3], idle[3], place[3], INDEX_I, 1.0f);
    const float spared = sliding(f[3], idle[3], place[3], tile[2], P, R, sh, dh, height2, depth * width2) +
                         sliding(f[3], idle[3], place[3], tile[2], Q, S, sw, dw, width2, depth * height2);
    const float i_reads2 = compute * spread_c;
    const float i_fills2 = i_tile2 * product(f[3], INDEX_I) * visits_i2 - spared;

    /* Ports and cycles. */
    const float bw0 = registers[BITS_W], bo1 = accumulator[BITS_O], bw2 = scratchpad[BITS_W], bi2 = scratchpad[BITS_I];
    const float bw3 = dram[BITS_W], bi3 = dram[BITS_I], bo3 = dram[BITS_O];
    float slowest = MAX(compute, port_cycles(registers, w_reads0 * bw0, w_fills0 * bw0));
    slowest = MAX(slowest, port_cycles(accumulator, o_reads1 * bo1, (o_fills1 + o_updates1) * bo1));
    slowest = MAX(slowest, port_cycles(scratchpad, w_reads2 * bw2 + i_reads2 * bi2, w_fills2 * bw2 + i_fills2 * bi2));
    slowest = MAX(slowest, port_cycles(dram, w_reads3 * bw3 + i_fills2 * bi3 + o_reads3 * bo3, o_updates3 * bo3));
    const float cycles = ceilf(slowest);

    /* Energy. */
    float extent[LOOPS];
#define EXTENTS(d) extent[d] = in[EXTENT + d][read];
    ALL(EXTENTS)
    const float macs = extent[N] * extent[G] * extent[K] * extent[C] * extent[P] * extent[Q] * extent[R] * extent[S];
    const float instances0 = spread_c * spread_k;
    const float pj = instances0 * priced(registers, bw0, w_reads0, w_fills0, 0.0f) +
                     spread_k * priced(accumulator, bo1, o_reads1, o_fills1, o_updates1) +
                     priced(scratchpad, bw2, w_reads2, w_fills2, 0.0f) + priced(scratchpad, bi2, i_reads2, i_fills2, 0.0f) +
                     priced(dram, bw3, w_reads3, 0.0f, 0.0f) + priced(dram, bi3, i_fills2, 0.0f, 0.0f) +
                     priced(dram, bo3, o_reads3, 0.0f, o_updates3) + macs * x[MAC_PJ] + cycles * x[STATIC_PJ_CYCLE];

    /* Whether it fits and covers the layer. */
    float worst = MAX(0.0f, w_tile0 * bw0 * (1.0f / registers[CAPACITY]) - 1.0f);
    worst = MAX(worst, o_tile1 * bo1 * (1.0f / accumulator[CAPACITY]) - 1.0f);
    worst = MAX(worst, (w_tile2 * bw2 + i_tile2 * bi2) * (1.0f / scratchpad[CAPACITY]) - 1.0f);
    worst = MAX(worst, (w_tile3 * bw3 + i_tile3 * bi3 + o_tile3 * bo3) * (1.0f / dram[CAPACITY]) - 1.0f);
    worst = MAX(worst, MAX(spread_c * (1.0f / x[FAN_C]), spread_k * (1.0f / x[FAN_K])) - 1.0f);
#define COVERED(d) worst = MAX(worst, extent[d] / tile[3][d] - 1.0f);
    ALL(COVERED)
    out[ENERGY][write] = pj;
    out[CYCLES][write] = cycles;
    out[VIOLATION][write] = worst;
}

#define KERNEL_MAIN
#include "kernel.h"
