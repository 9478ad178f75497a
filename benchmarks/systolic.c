/* The formulas of diffhw/models/_systolic.py in plain C: the yardstick of systolic_kernel.py.
 *
 * One (layer, array) pair per index, structure of arrays, float32; three dataflows as three
 * specialised loops (the dataflow is a compile-time constant of an inlined body), each one
 * vectorised by the compiler and shared between the cores. Work that both sides could skip, both skip:
 * constants of the technology are folded once outside the loop, powers share one logarithm, quotients
 * by the same divisor share one reciprocal where the result need not be an exact integer.
 *
 * gcc -O3 -march=native -ffast-math -fopenmp -fopt-info-vec-optimized systolic.c -o systolic -lm
 * ./systolic INPUT OUTPUT COUNT DATAFLOW full|cycles BLOCK REPEATS
 *
 * INPUT:  CONSTANTS floats, then INPUTS arrays of COUNT floats (order: the enums below).
 * OUTPUT: OUTPUTS arrays (full) or one (cycles) of COUNT floats.
 * BLOCK:  pairs whose results go to the same block-sized arrays, as a caller does who reduces them at
 *         once; BLOCK = COUNT keeps them all. An untimed pass writes OUTPUT.
 * Prints wall and CPU seconds of each repeat.
 */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

enum { N, G, K, C, P, Q, R, S, H, W, PAD_TOP, PAD_LEFT, STRIDE_H, STRIDE_W, DILATION_H, DILATION_W,
       ROWS, COLS, WEIGHT_BYTES, INPUT_BYTES, OUTPUT_BYTES, DRAM_GB_S, INPUTS };

enum { WEIGHT_BITS, INPUT_BITS, PSUM_BITS, OUTPUT_BITS, LANES, FREQ_HZ,
       MAC_PJ, REGISTER_PJ, HOP_PJ, DRAM_PJ_BYTE, DRAM_STATIC_W, PHY_MM2,
       SRAM_READ_PJ_BYTE, /* of a 1 KiB buffer, port width included */
       SRAM_WRITE_RATIO, SRAM_ENERGY_POWER, SRAM_MM2, SRAM_AREA_POWER, SRAM_LEAKAGE_W_BYTE,
       PE_MM2, NOC_MM2_PER_PE, LOGIC_LEAKAGE_W_MM2, CONSTANTS };

enum { CYCLES, ENERGY, AREA, MACS, FEASIBLE, VIOLATION, FREQ, PEAK,
       DRAM_INPUT_READ, DRAM_WEIGHT_READ, DRAM_PSUM_READ, DRAM_OUTPUT_WRITE,
       SRAM_INPUT_READ, SRAM_INPUT_WRITE, SRAM_WEIGHT_READ, SRAM_WEIGHT_WRITE,
       SRAM_OUTPUT_READ, SRAM_OUTPUT_WRITE,
       E_MAC, E_REGISTERS, E_SRAM, E_WIRES, E_DRAM, E_LEAKAGE, E_DRAM_STATIC,
       A_PE, A_SRAM, A_NOC, A_PHY, COMPUTE, STALL, OUTPUTS };

enum { OS, WS, IS };

#define INLINE static inline __attribute__((always_inline))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Exact for integers below 2^24: the quotient may be an ulp off, one step each way repairs it. */
INLINE float ceil_div(float a, float d) {
    float q = ceilf(a / d);
    q -= (q - 1.0f) * d >= a ? 1.0f : 0.0f;
    q += q * d < a ? 1.0f : 0.0f;
    return q;
}

INLINE float floor_div(float a, float d) {
    float q = floorf(a / d);
    q += (q + 1.0f) * d <= a ? 1.0f : 0.0f;
    q -= q * d > a ? 1.0f : 0.0f;
    return q;
}

INLINE float touched(float out, float taps, float stride, float dilation, float pad, float size) {
    float reach = (out - 1.0f) * stride + dilation * (taps - 1.0f) + 1.0f - pad;
    return MIN(MIN(size, reach), out * taps);
}

/* End of one column of folds that starts with an idle link. */
INLINE float column_end(float column, float stationary, float streamed, float folds, float cycles, float t) {
    float inner = MIN(folds - 1.0f, 1.0f);
    float first_start = stationary * t + folds * cycles;
    float last_start = (column * inner + folds * stationary + (folds - 1.0f) * streamed) * t + cycles;
    float first_end = (column + stationary + streamed) * t + (folds - 1.0f) * cycles;
    float last_end = (column + folds * (stationary + streamed)) * t;
    return MAX(MAX(first_start, last_start), MAX(first_end, last_end));
}

INLINE void pair(const float *const *in, const float *x, float *const *out, long read, long write,
                 const int dataflow, const int full) {
    const float n = in[N][read], g = in[G][read], k_out = in[K][read], c = in[C][read];
    const float p = in[P][read], q = in[Q][read], r = in[R][read], s = in[S][read];
    const float rows = in[ROWS][read], cols = in[COLS][read];
    const float weight_half = 0.5f * in[WEIGHT_BYTES][read];
    const float input_half = 0.5f * in[INPUT_BYTES][read];
    const float output_half = 0.5f * in[OUTPUT_BYTES][read];
    const float i_bytes = x[INPUT_BITS] / 8, w_bytes = x[WEIGHT_BITS] / 8;
    const float psum_bytes = x[PSUM_BITS] / 8, o_bytes = x[OUTPUT_BITS] / 8;

    /* The product of one group and its folds. */
    const float taps = r * s, m = n * p * q, k = c * taps;
    const float k_steps = x[LANES] == 1.0f ? k : ceil_div(k, x[LANES]);
    const float held_rows = dataflow == OS ? m : k_steps;
    const float held_cols = dataflow == IS ? m : k_out;
    const float stream = dataflow == OS ? k_steps : dataflow == WS ? m : k_out;
    const float nr = ceil_div(held_rows, rows), nc = ceil_div(held_cols, cols);
    const float fold = stream + rows + cols - 2.0f + (dataflow == OS ? 0.0f : rows);
    const float folds = nr * nc;
    const float per_row = 1.0f / nr, per_col = 1.0f / nc, per_fold = per_row * per_col;
    const float outputs = m * k_out, weight_words = k * k_out, im2col = m * k;

    /* Inputs: once, once a pass, or as im2col. */
    const float touched_h = touched(p, r, in[STRIDE_H][read], in[DILATION_H][read], in[PAD_TOP][read], in[H][read]);
    const float touched_w = touched(q, s, in[STRIDE_W][read], in[DILATION_W][read], in[PAD_LEFT][read], in[W][read]);
    const float channel = n * touched_h * touched_w, distinct = channel * c;
    const float pixels = dataflow == OS ? rows : dataflow == WS ? 1.0f : cols;
    const float channels = dataflow == WS ? MIN(c, ceil_div(rows, taps) + 1.0f) : c;
    const float out_rows = dataflow == WS ? MIN(p, 1.0f) : MIN(p, ceil_div(pixels - 1.0f, q) + 1.0f);
    const float window = MIN(touched_h, (out_rows - 1.0f) * in[STRIDE_H][read] + in[DILATION_H][read] * (r - 1.0f) + 1.0f);
    const float held = window * touched_w * channels;
    const float cut = dataflow == WS && rows > floor_div(rows, taps) * taps ? channel * (nr - 1.0f) : 0.0f;
    const float tiles = dataflow == OS ? nr : nc;
    const float again = dataflow == WS ? im2col : MIN(im2col, MAX(tiles * held, distinct));
    const float one_pass = i_bytes * (held * i_bytes <= input_half ? MIN(distinct + cut, again) : again);
    const float later_inputs = dataflow != IS && distinct * i_bytes > input_half ? one_pass : 0.0f;

    /* Weights and partial sums. */
    const float weights = weight_words * w_bytes;
    const float column_tile = k * MIN(cols, k_out) * w_bytes;
    const float lost = (dataflow == OS ? column_tile > weight_half : dataflow == IS && weights > weight_half) ? 1.0f : 0.0f;
    const float weight_passes = dataflow == OS ? nr - 1.0f : dataflow == IS ? nc - 1.0f : 0.0f;
    const float weight_read = weights * (1.0f + weight_passes * lost);
    const float psum_tile = dataflow == WS ? m * MIN(cols, k_out) : k_out * MIN(cols, m);
    const float spilled =
        dataflow != OS && psum_tile * psum_bytes > output_half ? outputs * (nr - 1.0f) * psum_bytes : 0.0f;
    const float spill = 2.0f * spilled * per_fold;

    /* When the reads are needed. */
    const float column = dataflow == OS ? (1.0f - lost) * weights * per_col : 0.0f;
    const float stationary = dataflow == OS ? 0.0f : (dataflow == WS ? weights : one_pass) * per_fold;
    const float streamed_weights = dataflow == OS ? lost * weights * per_col : 0.0f;
    const float first = (dataflow == IS ? weights : one_pass) * per_row + streamed_weights + spill;
    const float later = (dataflow == IS ? lost * weights : later_inputs) * per_row + streamed_weights + spill;
    const float input_read = one_pass + (nc - 1.0f) * later_inputs;
    const float output_write = spilled + outputs * o_bytes;

    const float t = x[FREQ_HZ] / (in[DRAM_GB_S][read] * 1e9f);
    const float column_cycles = nr * fold, group_cycles = folds * fold;
    const float first_end = column_end(column, stationary, first, nr, fold, t);
    const float later_end = column_end(column, stationary, later, nr, fold, t);
    const float first_bytes = column + nr * (stationary + first), later_bytes = column + nr * (stationary + later);
    const float many = MIN(nc - 1.0f, 1.0f);
    const float through = first_bytes * t + later_end + (nc - 2.0f) * MAX(later_bytes * t, column_cycles);
    const float group_end = MAX(first_end + (nc - 1.0f) * column_cycles, many * through);
    const float group_reads = (first_bytes + (nc - 1.0f) * later_bytes) * t;
    const float moved = input_read + weight_read + spilled + output_write;
    const float cycles = MAX(group_end + (g - 1.0f) * MAX(group_reads, group_cycles), g * moved * t);
    out[CYCLES][write] = cycles; /* ports are as wide as the array's edge: they never bind */
    if (!full) return;

    /* Traffic. */
    const float visits = dataflow == OS ? 1.0f : nr;
    const float psum_reads = g * outputs * (visits - 1.0f) * psum_bytes;
    const float d_in = g * input_read, d_w = g * weight_read, d_psum = g * spilled, d_out = g * output_write;
    const float s_in = g * im2col * (dataflow == IS ? 1.0f : nc) * i_bytes;
    const float s_w = g * weight_words * (dataflow == OS ? nr : dataflow == IS ? nc : 1.0f) * w_bytes;
    const float s_out_read = psum_reads + d_out, s_out_write = psum_reads + g * outputs * o_bytes + d_psum;
    out[DRAM_INPUT_READ][write] = d_in;
    out[DRAM_WEIGHT_READ][write] = d_w;
    out[DRAM_PSUM_READ][write] = d_psum;
    out[DRAM_OUTPUT_WRITE][write] = d_out;
    out[SRAM_INPUT_READ][write] = s_in;
    out[SRAM_INPUT_WRITE][write] = d_in;
    out[SRAM_WEIGHT_READ][write] = s_w;
    out[SRAM_WEIGHT_WRITE][write] = d_w;
    out[SRAM_OUTPUT_READ][write] = s_out_read;
    out[SRAM_OUTPUT_WRITE][write] = s_out_write;

    /* Area and leakage; energies of the buffers. */
    const float log_w = logf(in[WEIGHT_BYTES][read] / 1024.0f);
    const float log_i = logf(in[INPUT_BYTES][read] / 1024.0f);
    const float log_o = logf(in[OUTPUT_BYTES][read] / 1024.0f);
    const float ep = x[SRAM_ENERGY_POWER], ap = x[SRAM_AREA_POWER];
    const float read_w = x[SRAM_READ_PJ_BYTE] * expf(ep * log_w), read_i = x[SRAM_READ_PJ_BYTE] * expf(ep * log_i);
    const float read_o = x[SRAM_READ_PJ_BYTE] * expf(ep * log_o), ratio = x[SRAM_WRITE_RATIO];
    const float pes = rows * cols, pe_area = pes * x[PE_MM2], noc_area = pes * x[NOC_MM2_PER_PE];
    const float sram_area = x[SRAM_MM2] * (expf(ap * log_w) + expf(ap * log_i) + expf(ap * log_o));
    const float capacity = in[WEIGHT_BYTES][read] + in[INPUT_BYTES][read] + in[OUTPUT_BYTES][read];
    const float leakage_w = x[SRAM_LEAKAGE_W_BYTE] * capacity + x[LOGIC_LEAKAGE_W_MM2] * (pe_area + noc_area);

    /* Energy. */
    const float macs = g * m * k_out * k, psum_step = x[PSUM_BITS] / x[LANES];
    const float per_mac = dataflow == OS   ? x[INPUT_BITS] + x[WEIGHT_BITS]
                          : dataflow == WS ? x[INPUT_BITS] + psum_step
                                           : x[WEIGHT_BITS] + psum_step;
    const float once = dataflow == OS   ? outputs * x[PSUM_BITS]
                       : dataflow == WS ? weight_words * x[WEIGHT_BITS]
                                        : im2col * x[INPUT_BITS];
    const float hops = macs * per_mac + g * once * (rows * 0.5f);
    const float pj_per_cycle = 1e12f / x[FREQ_HZ];
    const float e_mac = macs * x[MAC_PJ];
    const float e_registers = (hops + (dataflow == OS ? macs * psum_step : 0.0f)) * x[REGISTER_PJ];
    const float e_sram = (s_in + ratio * d_in) * read_i + (s_w + ratio * d_w) * read_w + (s_out_read + ratio * s_out_write) * read_o;
    const float e_wires = hops * x[HOP_PJ];
    const float e_dram = (d_in + d_w + d_psum + d_out) * x[DRAM_PJ_BYTE];
    const float e_leakage = cycles * leakage_w * pj_per_cycle;
    const float e_static = cycles * x[DRAM_STATIC_W] * pj_per_cycle;
    out[ENERGY][write] = e_mac + e_registers + e_sram + e_wires + e_dram + e_leakage + e_static;
    out[E_MAC][write] = e_mac;
    out[E_REGISTERS][write] = e_registers;
    out[E_SRAM][write] = e_sram;
    out[E_WIRES][write] = e_wires;
    out[E_DRAM][write] = e_dram;
    out[E_LEAKAGE][write] = e_leakage;
    out[E_DRAM_STATIC][write] = e_static;

    const float need = MAX(MAX(rows * i_bytes / input_half, cols * w_bytes / weight_half), cols * psum_bytes / output_half);
    const float compute = g * group_cycles;
    out[AREA][write] = pe_area + sram_area + noc_area + x[PHY_MM2];
    out[A_PE][write] = pe_area;
    out[A_SRAM][write] = sram_area;
    out[A_NOC][write] = noc_area;
    out[A_PHY][write] = x[PHY_MM2];
    out[MACS][write] = macs;
    out[FEASIBLE][write] = need <= 1.0f ? 1.0f : 0.0f;
    out[VIOLATION][write] = MAX(need - 1.0f, 0.0f);
    out[FREQ][write] = x[FREQ_HZ];
    out[PEAK][write] = pes * x[LANES];
    out[COMPUTE][write] = compute;
    out[STALL][write] = cycles - compute;
}

/* `omp simd` tells the compiler that the arrays are disjoint; local copies keep their pointers in registers. */
#define LOOP(name, dataflow, full)                                                                             \
    static void name(const float *const *in, const float *constants, float *const *out, long start, long stop) { \
        const float *i_[INPUTS];                                                                               \
        float *o_[OUTPUTS], x_[CONSTANTS];                                                                     \
        memcpy(i_, in, sizeof i_), memcpy(o_, out, sizeof o_), memcpy(x_, constants, sizeof x_);               \
        _Pragma("omp simd")                                                                                    \
        for (long index = start; index < stop; index++)                                                        \
            pair(i_, x_, o_, index, index - start, dataflow, full);                                            \
    }
LOOP(os_full, OS, 1)
LOOP(ws_full, WS, 1)
LOOP(is_full, IS, 1)
LOOP(os_cycles, OS, 0)
LOOP(ws_cycles, WS, 0)
LOOP(is_cycles, IS, 0)

int main(int argc, char **argv) {
    if (argc != 8)
        return fprintf(stderr, "usage: systolic INPUT OUTPUT COUNT DATAFLOW full|cycles BLOCK REPEATS\n"), 2;
    const long count = atol(argv[3]), block = atol(argv[6]), blocks = (count + block - 1) / block;
    const int dataflow = atoi(argv[4]), full = !strcmp(argv[5], "full"), repeats = atoi(argv[7]);
    const int outputs = full ? OUTPUTS : 1;
    void (*const loops[2][3])(const float *const *, const float *, float *const *, long, long) = {
        {os_cycles, ws_cycles, is_cycles}, {os_full, ws_full, is_full}};
    float constants[CONSTANTS], *in[INPUTS], *kept[OUTPUTS] = {0};

    FILE *file = fopen(argv[1], "rb");
    if (!file || fread(constants, 4, CONSTANTS, file) != CONSTANTS) return 3;
    for (int a = 0; a < INPUTS; a++) {
        in[a] = array(count, a);
        if (fread(in[a], 4, count, file) != (size_t)count) return 3;
    }
    fclose(file);
    for (int a = 0; a < outputs; a++) kept[a] = array(count, INPUTS + a);

    /* Each core takes its share of the blocks; nobody waits within a pass. */
    double start = 0, cpu = 0;
#pragma omp parallel
    {
        float *own[OUTPUTS] = {0}, *at_block[OUTPUTS] = {0};
        for (int a = 0; a < outputs; a++) own[a] = array(block, INPUTS + a);
        for (int repeat = 0; repeat <= repeats + 1; repeat++) {
            const int keep = repeat == repeats + 1 || block == count;
#pragma omp barrier
#pragma omp single
            start = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
            if (block == count) {
                const int threads = omp_get_num_threads(), thread = omp_get_thread_num();
                const long from = count * thread / threads, to = count * (thread + 1) / threads;
                for (int a = 0; a < outputs; a++) at_block[a] = kept[a] + from;
                loops[full][dataflow]((const float *const *)in, constants, at_block, from, to);
            } else {
#pragma omp for schedule(static) nowait
                for (long b = 0; b < blocks; b++) {
                    const long from = b * block, to = MIN(from + block, count);
                    for (int a = 0; a < outputs; a++) at_block[a] = keep ? kept[a] + from : own[a];
                    loops[full][dataflow]((const float *const *)in, constants, at_block, from, to);
                }
            }
#pragma omp barrier
#pragma omp single
            if (repeat > 0 && repeat <= repeats) /* the first pass warms up, the last one keeps its results */
                printf("%.6f %.6f\n", now(CLOCK_MONOTONIC) - start, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
        }
    }
    file = fopen(argv[2], "wb");
    if (!file) return 3;
    for (int a = 0; a < outputs; a++) fwrite(kept[a], 4, count, file);
    return fclose(file);
}
