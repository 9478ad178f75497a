/* The formulas of diffhw/models/_systolic.py in plain C: the yardstick of systolic_kernel.py.
 *
 * One (layer, array) pair per index, structure of arrays, float32; three dataflows as three
 * specialised loops (the dataflow is a compile-time constant of an inlined body), each one
 * vectorised by the compiler and shared between the cores. Work that both sides could skip, both skip:
 * constants of the technology are folded once outside the loop, powers share one logarithm, quotients
 * by the same divisor share one reciprocal where the result need not be an exact integer.
 *
 * gcc -O3 -march=native -ffast-math -fopenmp -fopt-info-vec-optimized -DDATAFLOW=OS systolic.c -o systolic -lm
 * DATAFLOW: OS, WS or IS. Results: all figures of a cost; with -DONLY_CYCLES or -DONLY_LOG_EDP the one alone.
 */
#include "kernel.h"

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
       A_PE, A_SRAM, A_NOC, A_PHY, COMPUTE, STALL, LEAVES };

#if defined ONLY_CYCLES || defined ONLY_LOG_EDP
enum { OUTPUTS = 1 };
#define KEEP(leaf, value) (void)0
#else
enum { OUTPUTS = LEAVES };
#define KEEP(leaf, value) out[leaf][write] = value
#endif

enum { OS, WS, IS };

INLINE float floor_div(float a, float d) {
    float q = floorf(a / d);
    q += (q + 1.0f) * d <= a ? 1.0f : 0.0f;
    q -= q * d > a ? 1.0f : 0.0f;
    return q;
}

INLINE float touched(float out, float taps, float stride, float dilation, float pad, float size) {
    const float apart = out * taps - MAX(out - dilation, 0.0f) * MAX(taps - stride, 0.0f);
    const float every = MIN(stride, dilation) > 1.0f ? out + taps - 1.0f : apart;
    const float beyond = MAX((out - 1.0f) * stride + (taps - 1.0f) * dilation + 1.0f - pad - size, 0.0f);
    return MAX(every - pad - beyond, 1.0f);
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

INLINE void evaluate(const float *const *in, const float *x, float *const *out, long read, long write) {
    const int dataflow = DATAFLOW;
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
    const float whole = dataflow == WS ? floor_div(rows, taps) : 0.0f, cuts = rows > whole * taps ? 1.0f : 0.0f;
    const float channels = dataflow == WS ? MIN(c, whole + cuts + 1.0f) : c;
    const float out_rows = dataflow == WS ? MIN(p, 1.0f) : MIN(p, ceil_div(pixels - 1.0f, q) + 1.0f);
    const float window = MIN(touched_h, (out_rows - 1.0f) * in[STRIDE_H][read] + in[DILATION_H][read] * (r - 1.0f) + 1.0f);
    const float held = window * touched_w * channels;
    const float cut = dataflow == WS ? channel * (nr - 1.0f) * cuts : 0.0f;
    const float tiles = dataflow == OS ? nr : nc;
    const float again = dataflow == WS ? im2col : MIN(im2col, MAX(tiles * held, distinct));
    const float one_pass = i_bytes * (held * i_bytes <= input_half ? MIN(distinct + cut, again) : again);
    const float later_inputs = dataflow != IS && distinct * i_bytes > input_half ? one_pass : 0.0f;

    /* Weights and partial sums. */
    const float weights = weight_words * w_bytes;
    const float column_tile = k * MIN(cols, k_out) * w_bytes;
    const int lost = dataflow == OS ? column_tile > weight_half : dataflow == IS && weights > weight_half;
    const float weight_read = lost ? weights * (dataflow == OS ? nr : nc) : weights;
    const float psum_tile = dataflow == WS ? m * MIN(cols, k_out) : k_out * MIN(cols, m);
    const float spilled =
        dataflow != OS && psum_tile * psum_bytes > output_half ? outputs * (nr - 1.0f) * psum_bytes : 0.0f;
    const float spill = 2.0f * spilled * per_fold;

    /* When the reads are needed. */
    const float column = dataflow == OS && !lost ? weights * per_col : 0.0f;
    const float stationary = dataflow == OS ? 0.0f : (dataflow == WS ? weights : one_pass) * per_fold;
    const float streamed_weights = dataflow == OS && lost ? weights * per_col : 0.0f;
    const float first = (dataflow == IS ? weights : one_pass) * per_row + streamed_weights + spill;
    const float later = (dataflow == IS ? (lost ? weights : 0.0f) : later_inputs) * per_row + streamed_weights + spill;
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
    /* Ports are as wide as the array's edge: they never bind. */
#ifdef ONLY_CYCLES
    out[0][write] = cycles;
    return;
#endif
    KEEP(CYCLES, cycles);

    /* Traffic. */
    const float visits = dataflow == OS ? 1.0f : nr;
    const float psum_reads = g * outputs * (visits - 1.0f) * psum_bytes;
    const float d_in = g * input_read, d_w = g * weight_read, d_psum = g * spilled, d_out = g * output_write;
    const float s_in = g * im2col * (dataflow == IS ? 1.0f : nc) * i_bytes;
    const float s_w = g * weight_words * (dataflow == OS ? nr : dataflow == IS ? nc : 1.0f) * w_bytes;
    const float s_out_read = psum_reads + d_out, s_out_write = psum_reads + g * outputs * o_bytes + d_psum;
    KEEP(DRAM_INPUT_READ, d_in);
    KEEP(DRAM_WEIGHT_READ, d_w);
    KEEP(DRAM_PSUM_READ, d_psum);
    KEEP(DRAM_OUTPUT_WRITE, d_out);
    KEEP(SRAM_INPUT_READ, s_in);
    KEEP(SRAM_INPUT_WRITE, d_in);
    KEEP(SRAM_WEIGHT_READ, s_w);
    KEEP(SRAM_WEIGHT_WRITE, d_w);
    KEEP(SRAM_OUTPUT_READ, s_out_read);
    KEEP(SRAM_OUTPUT_WRITE, s_out_write);

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
    const float energy = e_mac + e_registers + e_sram + e_wires + e_dram + e_leakage + e_static;
#ifdef ONLY_LOG_EDP
    out[0][write] = logf(cycles) + logf(energy);
    return;
#endif
    KEEP(ENERGY, energy);
    KEEP(E_MAC, e_mac);
    KEEP(E_REGISTERS, e_registers);
    KEEP(E_SRAM, e_sram);
    KEEP(E_WIRES, e_wires);
    KEEP(E_DRAM, e_dram);
    KEEP(E_LEAKAGE, e_leakage);
    KEEP(E_DRAM_STATIC, e_static);

    const float need = MAX(MAX(rows * i_bytes / input_half, cols * w_bytes / weight_half), cols * psum_bytes / output_half);
    const float compute = g * group_cycles;
    KEEP(AREA, pe_area + sram_area + noc_area + x[PHY_MM2]);
    KEEP(A_PE, pe_area);
    KEEP(A_SRAM, sram_area);
    KEEP(A_NOC, noc_area);
    KEEP(A_PHY, x[PHY_MM2]);
    KEEP(MACS, macs);
    KEEP(FEASIBLE, need <= 1.0f ? 1.0f : 0.0f);
    KEEP(VIOLATION, MAX(need - 1.0f, 0.0f));
    KEEP(FREQ, x[FREQ_HZ]);
    KEEP(PEAK, pes * x[LANES]);
    KEEP(COMPUTE, compute);
    KEEP(STALL, cycles - compute);
}

#define KERNEL_MAIN
#include "kernel.h"
