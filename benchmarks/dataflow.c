/* The formulas of diffhw/models/_dataflow*.py in plain C: the yardstick of dataflow_kernel.py.
 *
 * One (layer, directive program) pair per index on one accelerator with a buffer beside each PE: cycles,
 * energy and violation. Structure of arrays, float32, straight-line code, vectorised over the pairs,
 * shared between the cores. What does not vary with the pair is folded outside.
 *
 * gcc -O3 -march=native -ffast-math -fopenmp -fopt-info-vec-optimized dataflow.c -o dataflow -lm
 */
#include "kernel.h"

enum { N, K, C, P, Q, R, S, DIMS };
enum { LEVELS = 3, TILE = 0, OFFSET = 21, RANK = 42, SPATIAL = 63, UNITS = 84, /* of levels 1 and 2 */
       LAYER_N = 86, LAYER_G, LAYER_K, LAYER_C, LAYER_P, LAYER_Q, LAYER_R, LAYER_S,
       STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, INPUTS };
enum { PES, LANES, LATENCY, I_BYTE, W_BYTE, P_BYTE, O_BYTE, PER_READ, PER_WRITE, PER_BYTE, PER_DRAM_BYTE, L2_BYTES,
       BESIDE, L1_BYTES, /* 1 where the innermost level is a buffer per PE for all tensors; its capacity */
       L1_READ_PJ, WRITE_RATIO, L2_READ_I, L2_READ_W, L2_READ_O, HOP_PJ, MAC_PJ, DRAM_PJ_BYTE, STATIC_PJ_CYCLE,
       CONSTANTS };
enum { CYCLES, ENERGY, VIOLATION, OUTPUTS };

#define ALL(X) X(N) X(K) X(C) X(P) X(Q) X(R) X(S)
#define ONE_IF(test) ((test) ? 1.0f : 0.0f)

INLINE float floor_div(float a, float d) {
    float q = floorf(a / d);
    q += (q + 1.0f) * d <= a ? 1.0f : 0.0f;
    q -= q * d > a ? 1.0f : 0.0f;
    return q;
}

/* ---- One dimension (_dataflow_loops) --------------------------------------------------------------- */

typedef struct {
    float size[4], units[4], steps[4], lead[4], size_same[4], units_same[4], steps_same[4], slides[3], touching, trips0;
} Sums;

typedef struct { float pieces, last, folds, lead; } Cut;

INLINE Cut cut_of(float extent, float tile, float n) {
    Cut c;
    c.pieces = ceil_div(extent, tile);
    c.folds = ceil_div(c.pieces, n);
    c.lead = MIN(extent - (c.folds - 1.0f) * (n * tile), tile);
    c.last = extent - (c.pieces - 1.0f) * tile;
    return c;
}

INLINE float first_at_1(const Cut *cut, float n1, float of_full, float of_last) {
    return cut->pieces > n1 ? n1 * of_full : (cut->pieces - 1.0f) * of_full + of_last;
}

/* j = 0, 1, 2 of a quantity given for the first fold at level 2; returns that of the last piece. */
INLINE float sums_of(float *at, const Cut *top, const Cut *full, const Cut *last, float n0, float n1, float of_full,
                     float of_full_last, float of_last_last) {
    const float in_t0 = first_at_1(full, n1, of_full, of_full_last), in_e0 = first_at_1(last, n1, of_full, of_last_last);
    at[1] = (top->pieces - 1.0f) * in_t0 + in_e0;
    at[0] = top->pieces > n0 ? n0 * in_t0 : at[1];
    at[2] = (top->pieces - 1.0f) * ((full->pieces - 1.0f) * of_full + of_full_last) + ((last->pieces - 1.0f) * of_full + of_last_last);
    return in_e0;
}

INLINE float over_2(float e, float folds, float n2, float t2) {
    return (folds - 1.0f) * t2 + MIN(e - (folds - 1.0f) * (n2 * t2), t2);
}

INLINE Sums sums(float extent, float t0, float t1, float t2, float n0, float n1, float n2) {
    Sums s;
    const Cut top = cut_of(extent, t0, n0), full = cut_of(t0, t1, n1), last = cut_of(top.last, t1, n1);
    const float ragged = ONE_IF(top.lead < t0);
    const float lead_folds = top.lead < t0 ? last.folds : full.folds, lead_lead = top.lead < t0 ? last.lead : full.lead;
    const float in_full = ceil_div(t1, t2), in_full_last = ceil_div(full.last, t2), in_last_last = ceil_div(last.last, t2);
    const float folds_full = ceil_div(in_full, n2), folds_full_last = ceil_div(in_full_last, n2);
    const float folds_last_last = ceil_div(in_last_last, n2);
    const float full_lead_folds = full.lead < t1 ? folds_full_last : folds_full;
    const float last_lead_folds = last.lead < t1 ? folds_last_last : folds_full;
    const float lead_lead_folds = top.lead < t0 ? last_lead_folds : full_lead_folds;
    const float once = n2 * t2;
    const float size_full_last = MIN(full.last, once), size_last_last = MIN(last.last, once);
    const float units_full_last = MIN(in_full_last, n2), units_last_last = MIN(in_last_last, n2);
    const float size_e0 = sums_of(s.size, &top, &full, &last, n0, n1, MIN(t1, once), size_full_last, size_last_last);
    const float units_e0 = sums_of(s.units, &top, &full, &last, n0, n1, MIN(in_full, n2), units_full_last, units_last_last);
    s.size[3] = extent;
    s.units[3] = (top.pieces - 1.0f) * ((full.pieces - 1.0f) * in_full + in_full_last) + ((last.pieces - 1.0f) * in_full + in_last_last);
    const float inner_full = (full.folds - 1.0f) * folds_full + full_lead_folds;
    const float inner_lead = (lead_folds - 1.0f) * folds_full + lead_lead_folds;
    s.steps[0] = 1.0f, s.steps[1] = top.folds;
    s.steps[2] = (top.folds - 1.0f) * full.folds + lead_folds;
    s.steps[3] = (top.folds - 1.0f) * inner_full + inner_lead;
    const float lead_1 = (full.folds - 1.0f) * t2 + MIN(full.lead, t2), lead_e = (lead_folds - 1.0f) * t2 + MIN(lead_lead, t2);
    const float of_t1 = over_2(t1, folds_full, n2, t2);
    const float over_t0 = (full.folds - 1.0f) * of_t1 + over_2(full.lead, full_lead_folds, n2, t2);
    const float over_lead = (lead_folds - 1.0f) * of_t1 + over_2(lead_lead, lead_lead_folds, n2, t2);
    s.lead[0] = t2, s.lead[1] = (top.folds - 1.0f) * t2 + MIN(top.lead, t2);
    s.lead[2] = (top.folds - 1.0f) * lead_1 + lead_e;
    s.lead[3] = (top.folds - 1.0f) * over_t0 + over_lead;

    /* Restarts that move nothing. */
    const float whole = top.last < t0 ? top.pieces - 1.0f : top.pieces;
    const float single_2 = ONE_IF(folds_full <= 1.0f), several_2 = 1.0f - single_2;
    const float end_full = several_2 * ONE_IF(full_lead_folds <= 1.0f);
    const float end_last = several_2 * ragged * ONE_IF(last_lead_folds <= 1.0f);
    const float beyond = MAX(top.last - (full.folds - 1.0f) * (n1 * t1), 0.0f);
    const float beside = (1.0f - ragged) * ONE_IF(top.last < t0) * ONE_IF(beyond > 0.0f);
    const float beyond_units = MIN(ceil_div(beyond, t2), n2);
    const float of_size = end_full * (whole * size_full_last + beside * beyond) + end_last * size_last_last;
    const float of_units = end_full * (whole * units_full_last + beside * beyond_units) + end_last * units_last_last;
    const float of_steps = end_full * (top.folds - ragged) + end_last;
    const float alone = ONE_IF(s.steps[3] <= 1.0f), last_alone = ragged * ONE_IF(inner_lead <= 1.0f);
    s.size_same[0] = alone * s.size[0], s.units_same[0] = alone * s.units[0], s.steps_same[0] = alone;
    s.size_same[1] = inner_full <= 1.0f ? s.size[1] : last_alone * size_e0;
    s.units_same[1] = inner_full <= 1.0f ? s.units[1] : last_alone * units_e0;
    s.steps_same[1] = inner_full <= 1.0f ? s.steps[1] : last_alone;
    s.size_same[2] = folds_full <= 1.0f ? s.size[2] : of_size;
    s.units_same[2] = folds_full <= 1.0f ? s.units[2] : of_units;
    s.steps_same[2] = folds_full <= 1.0f ? s.steps[2] : of_steps;
    s.size_same[3] = s.size[3], s.units_same[3] = s.units[3], s.steps_same[3] = s.steps[3];

    /* Dealt out anew? */
    s.slides[2] = ONE_IF(n2 <= 1.0f);
    s.slides[1] = ONE_IF((n1 <= 1.0f) & ((n2 <= 1.0f) | (in_full <= 1.0f)));
    s.slides[0] = ONE_IF((n0 <= 1.0f) & ((n1 <= 1.0f) | (full.pieces <= 1.0f)) & ((n2 <= 1.0f) | (in_full <= 1.0f)));
    s.touching = ONE_IF(((n0 <= 1.0f) | (top.pieces <= 1.0f) | (inner_full <= 1.0f)) &
                        (((n0 > 1.0f) & (top.pieces > 1.0f)) | (n1 <= 1.0f) | (full.pieces <= 1.0f) | (folds_full <= 1.0f)));
    s.trips0 = top.folds;
    return s;
}

/* ---- Windows ---------------------------------------------------------------------------------------- */

typedef struct {
    float slope[4], base[4], slope_shared[4], base_shared[4], stays[4];
    float whole, tile_slope, tile_base, full_slope, full_base;
} Window;

INLINE float slope_of(float taps, float stride, float dilation) { return MIN(stride, dilation * (taps - 1.0f) + 1.0f); }
INLINE float base_of(float taps, float stride, float dilation) { return MAX(dilation * (taps - 1.0f) + 1.0f - stride, 0.0f); }

INLINE Window window_of(const Sums *f, float extent, float tile, float units, float stride, float dilation) {
    Window w;
    const float pieces = f->units[3], folds = f->steps[3], last = extent - (pieces - 1.0f) * tile;
    const float at_once = MIN(extent, tile * units), last_once = extent - (folds - 1.0f) * at_once;
    w.tile_slope = slope_of(tile, stride, dilation), w.tile_base = base_of(tile, stride, dilation);
    w.full_slope = slope_of(extent, stride, dilation), w.full_base = base_of(extent, stride, dilation);
    const float last_slope = slope_of(last, stride, dilation), last_base = base_of(last, stride, dilation);
    const float slope_s = slope_of(at_once, stride, dilation), base_s = base_of(at_once, stride, dilation);
    const float last_slope_s = slope_of(last_once, stride, dilation), last_base_s = base_of(last_once, stride, dilation);
#define AT(j) { \
        const float ends = ONE_IF(f->units[j] >= pieces), all = ONE_IF(f->steps[j] >= folds); \
        w.slope[j] = (f->units[j] - ends) * w.tile_slope + ends * last_slope; \
        w.base[j] = (f->units[j] - ends) * w.tile_base + ends * last_base; \
        w.slope_shared[j] = (f->steps[j] - all) * slope_s + all * last_slope_s; \
        w.base_shared[j] = (f->steps[j] - all) * base_s + all * last_base_s; \
        w.stays[j] = all; }
    AT(0) AT(1) AT(2) AT(3)
    w.whole = ONE_IF((pieces <= 1.0f) | (units <= 1.0f));
    return w;
}

/* ---- Classes of steps (_dataflow_counts) ------------------------------------------------------------ */

typedef struct { float input_reads, weight_reads, returns, moves, compute, input_fills, weight_fills, drains; } Class;
typedef struct { float held, kept, held_shared, kept_shared; } Axis;

/* A sum over the class, at level l with the loop `moved` (DIMS: the first step of all). */
#define PICK(d, v) ((moved) == DIMS ? (v)[l] : (d) == (moved) ? (v)[l + 1] - (v)[l] : rank[d] < rank[(moved) % DIMS] ? (v)[l + 1] : (v)[l])
#define KEEP(d, v) ((moved) == DIMS || (d) == (moved) ? 0.0f : rank[d] < rank[(moved) % DIMS] ? (v)[l + 1] : (v)[l])

INLINE Axis axis_of(const Sums *o, const Window *w, const float *rank, const int out, const int taps, const int l, const int moved) {
    const float size = PICK(out, o->size), units = PICK(out, o->units), steps = PICK(out, o->steps);
    const float edges = units - o->touching * (units - steps);
    const float slope = PICK(taps, w->slope), base = PICK(taps, w->base);
    const float slope_s = PICK(taps, w->slope_shared), base_s = PICK(taps, w->base_shared), stays = KEEP(taps, w->stays);
    const float same = KEEP(out, o->size_same), same_units = KEEP(out, o->units_same), same_steps = KEEP(out, o->steps_same);
    const float same_edges = same_units - o->touching * (same_units - same_steps);
    const float slid = moved == out ? o->slides[l] * units : 0.0f;
    Axis a;
    a.held = size * slope + units * base;
    a.kept = stays * (same * slope + (same_units + slid) * base);
    a.held_shared = size * slope_s + edges * base_s;
    a.kept_shared = stays * (same * slope_s + (same_edges + w->whole * slid) * base_s);
    return a;
}

INLINE Class class_of(const Sums *s, const Window *rows, const Window *cols, float depthwise, const float *rank, const int l, const int moved) {
    float size[DIMS], units[DIMS], steps[DIMS], same[DIMS];
    float compute = 1.0f;
#define GET(d) size[d] = PICK(d, s[d].size), units[d] = PICK(d, s[d].units), steps[d] = PICK(d, s[d].steps), \
               same[d] = KEEP(d, s[d].size_same), compute *= PICK(d, s[d].lead);
    ALL(GET)
    const int channels_moved = moved == C;
    const float weight = size[K] * size[C] * size[R] * size[S] - same[K] * same[C] * same[R] * same[S];
    const float held_o = size[N] * size[K] * size[P] * size[Q], kept_o = same[N] * same[K] * same[P] * same[Q];
    const float output = depthwise > 0.0f ? held_o * size[C] - kept_o * same[C] : held_o - kept_o;
    const float passes = (depthwise > 0.0f ? 1.0f : steps[C]) * steps[R] * steps[S];
    const float first_visits = moved == R || moved == S ? 0.0f : channels_moved ? depthwise : 1.0f;
    const Axis row = axis_of(s + P, rows, rank, P, R, l, moved), col = axis_of(s + Q, cols, rank, Q, S, l, moved);
    const float held = size[N] * size[C], kept = same[N] * same[C];
    Class c;
    c.input_reads = (held * row.held_shared * col.held_shared - kept * row.kept_shared * col.kept_shared) * steps[K];
    c.input_fills = (held * row.held * col.held - kept * row.kept * col.kept) * units[K];
    c.weight_reads = weight * (steps[N] * steps[P] * steps[Q]);
    c.weight_fills = weight * (units[N] * units[P] * units[Q]);
    c.returns = output * (passes - first_visits);
    c.moves = output * passes;
    c.drains = output * ((depthwise > 0.0f ? 1.0f : units[C]) * units[R] * units[S]);
    c.compute = compute;
    return c;
}

INLINE float into_of(const Class *c, const float *x) {
    return c->input_reads * x[I_BYTE] + c->weight_reads * x[W_BYTE] + c->returns * x[P_BYTE];
}
INLINE float out_of(const Class *c, const float *x) {
    return (c->moves - c->returns) * x[O_BYTE] + c->returns * x[P_BYTE];
}

INLINE void add_class(Class *total, float *time, const Class *c, const float *x, float per_mac) {
    const float into = into_of(c, x), out = out_of(c, x);
    const float ports = MAX(MAX(into * x[PER_READ], out * x[PER_WRITE]), (into + out) * x[PER_BYTE]);
    *time += MAX(c->compute * per_mac, ports);
    total->input_reads += c->input_reads, total->weight_reads += c->weight_reads;
    total->input_fills += c->input_fills, total->weight_fills += c->weight_fills;
    total->returns += c->returns, total->moves += c->moves, total->drains += c->drains;
}

/* ---- The DRAM (_dataflow_memory) -------------------------------------------------------------------- */

typedef struct { float moved[3], room[3]; } Plan; /* i, w, o */

INLINE float tile_i(const float *e, const Window *rows, const Window *cols) {
    return e[N] * e[C] * (e[P] * rows->full_slope + rows->full_base) * (e[Q] * cols->full_slope + cols->full_base);
}
INLINE float tile_w(const float *e) { return e[K] * e[C] * e[R] * e[S]; }
INLINE float tile_o(const float *e, float depthwise) { return e[N] * e[K] * e[P] * e[Q] * (depthwise > 0.0f ? e[C] : 1.0f); }

INLINE float again(float moving, float last, float folds) {
    return (moving >= 0.0f) & (moving < last) ? folds : 1.0f;
}

INLINE Plan plan_of(float place, const float *rank, const float *folds, const float *chunk, const float *extent,
                    const Window *rows, const Window *cols, float depthwise, const float *whole, const float *x) {
    float moving[DIMS], inside[DIMS];
#define MOVING(d) moving[d] = (rank[d] < place) & (folds[d] > 1.0f) ? rank[d] : -1.0f, \
                  inside[d] = rank[d] < place ? chunk[d] : extent[d];
    ALL(MOVING)
    const float np = MAX(MAX(moving[N], moving[P]), moving[Q]);
    const float last_i = MAX(np, moving[C]), last_w = MAX(MAX(moving[K], moving[C]), MAX(moving[R], moving[S]));
    const float last_o = MAX(MAX(np, moving[K]), depthwise > 0.0f ? moving[C] : -1.0f);
    const float again_i = again(moving[K], last_i, folds[K]) * again(moving[R], last_i, folds[R]) * again(moving[S], last_i, folds[S]);
    const float again_w = again(moving[N], last_w, folds[N]) * again(moving[P], last_w, folds[P]) * again(moving[Q], last_w, folds[Q]);
    const float again_c = depthwise > 0.0f ? 1.0f : again(moving[C], last_o, folds[C]);
    const float again_o = again_c * again(moving[R], last_o, folds[R]) * again(moving[S], last_o, folds[S]);
    const float row_pieces = again(moving[P], last_i, folds[P]), col_pieces = again(moving[Q], last_i, folds[Q]);
    Plan p;
    p.moved[0] = extent[N] * extent[C] * (extent[P] * rows->full_slope + row_pieces * rows->full_base) *
                 (extent[Q] * cols->full_slope + col_pieces * cols->full_base) * again_i;
    p.moved[1] = whole[1] * again_w, p.moved[2] = whole[2] * again_o;
    p.room[0] = (last_i >= 0.0f ? 2.0f * tile_i(inside, rows, cols) : whole[0]) * x[I_BYTE];
    p.room[1] = (last_w >= 0.0f ? 2.0f * tile_w(inside) : whole[1]) * x[W_BYTE];
    p.room[2] = (last_o >= 0.0f ? 2.0f * tile_o(inside, depthwise) : whole[2]) * x[P_BYTE];
    return p;
}

INLINE float bytes_of(float i, float w, float o, float outputs, const float *x) {
    return i * x[I_BYTE] + w * x[W_BYTE] + (o - outputs) * 2.0f * x[P_BYTE] + outputs * x[O_BYTE];
}

/* Takes a plan where it fits and moves less. */
INLINE void better(float *best, float i, float w, float o, float room, float outputs, const float *x) {
    const float bytes = bytes_of(i, w, o, outputs, x), found = room <= x[L2_BYTES] ? bytes : INFINITY;
    const float old = best[3];
    best[0] = found < old ? i : best[0], best[1] = found < old ? w : best[1], best[2] = found < old ? o : best[2];
    best[3] = found < old ? bytes : old;
}

/* ---- A pair ----------------------------------------------------------------------------------------- */

INLINE void evaluate(const float *const *in, const float *x, float *const *out, long read, long write) {
    const float g = in[LAYER_G][read], channels = in[LAYER_C][read];
    const float depthwise = ONE_IF((channels <= 1.0f) & (g > 1.0f));
    const float extent[DIMS] = {in[LAYER_N][read], in[LAYER_K][read], depthwise > 0.0f ? g : channels,
                                in[LAYER_P][read], in[LAYER_Q][read], in[LAYER_R][read], in[LAYER_S][read]};
    const float groups = depthwise > 0.0f ? 1.0f : g, pes = x[PES];
    const float inner = MIN(in[UNITS + 1][read], pes), middle = MIN(in[UNITS][read], MAX(floor_div(pes, inner), 1.0f));
    const float n0 = MAX(floor_div(pes, middle * inner), 1.0f);

    float tile[LEVELS][DIMS], split[LEVELS][DIMS], rank[LEVELS][DIMS], place[LEVELS][DIMS], first[LEVELS] = {7, 7, 7}, asks[LEVELS] = {0, 0, 0};
    float worst = MAX(in[UNITS][read] * in[UNITS + 1][read] / pes - 1.0f, 0.0f);
#define LOAD(l, d) { \
        const float given = in[TILE + l * DIMS + d][read], parent = l ? tile[l ? l - 1 : 0][d] : extent[d]; \
        tile[l][d] = MIN(given, parent), rank[l][d] = in[RANK + l * DIMS + d][read]; \
        const float apart = fabsf(in[OFFSET + l * DIMS + d][read] - given) / given; \
        split[l][d] = MIN(parent - tile[l][d], 1.0f); /* 0 or 1: whole numbers */ \
        worst = MAX(worst, split[l][d] * apart); \
        const float wants = in[SPATIAL + l * DIMS + d][read] * split[l][d]; \
        place[l][d] = rank[l][d] + 8.0f * (1.0f - wants); /* beyond 7: nowhere */ \
        first[l] = MIN(first[l], place[l][d]), asks[l] += wants; }
#define LOAD_0(d) LOAD(0, d)
#define LOAD_1(d) LOAD(1, d)
#define LOAD_2(d) LOAD(2, d)
    ALL(LOAD_0) ALL(LOAD_1) ALL(LOAD_2)
    const float crowded = MAX(asks[0] - 1.0f, 0.0f) + MAX(asks[1] - 1.0f, 0.0f) + MAX(asks[2] - 1.0f, 0.0f);
    worst = MAX(worst, crowded);

    float units[LEVELS][DIMS];
    Sums s[DIMS];
#define DEAL(l, d, n) (place[l][d] <= first[l] ? (n) : 1.0f)
#define SUM(d) units[0][d] = DEAL(0, d, n0), units[1][d] = DEAL(1, d, middle), units[2][d] = DEAL(2, d, inner), \
               s[d] = sums(extent[d], tile[0][d], tile[1][d], tile[2][d], units[0][d], units[1][d], units[2][d]);
    ALL(SUM)
#define OVER(l, d) (1.0f + split[l][d] * (units[l][d] - 1.0f))
#define FILTER_UNITS(d) (OVER(0, d) * OVER(1, d) * OVER(2, d))
    const Window rows = window_of(s + R, extent[R], tile[2][R], FILTER_UNITS(R), in[STRIDE_H][read], in[DILATION_H][read]);
    const Window cols = window_of(s + S, extent[S], tile[2][S], FILTER_UNITS(S), in[STRIDE_W][read], in[DILATION_W][read]);

    /* All classes of steps. */
    const float pe_macs = tile[2][N] * tile[2][K] * tile[2][C] * tile[2][P] * tile[2][Q] * tile[2][R] * tile[2][S];
    const float per_mac = ceil_div(pe_macs, x[LANES]) / pe_macs;
    const Class one = class_of(s, &rows, &cols, depthwise, rank[0], 0, DIMS);
    Class total = one;
    float time = 0.0f;
#define STEP(l, d) { const Class c = class_of(s, &rows, &cols, depthwise, rank[l], l, d); add_class(&total, &time, &c, x, per_mac); }
#define STEP_0(d) STEP(0, d)
#define STEP_1(d) STEP(1, d)
#define STEP_2(d) STEP(2, d)
    ALL(STEP_0) ALL(STEP_1) ALL(STEP_2)

    /* DRAM: the best of eight cuts, any one tensor whole. */
    float folds[DIMS], chunk[DIMS];
#define CHUNK(d) folds[d] = s[d].trips0, chunk[d] = MIN(extent[d], tile[0][d] * units[0][d]);
    ALL(CHUNK)
    const float whole[3] = {tile_i(extent, &rows, &cols), tile_w(extent), tile_o(extent, depthwise)};
    const float outputs = whole[2], whole_i = whole[0] * x[I_BYTE], whole_w = whole[1] * x[W_BYTE], whole_o = whole[2] * x[P_BYTE];
    float best[4], need = 0.0f;
#define CUT(cutting) { \
        const Plan p = plan_of((float)(cutting), rank[0], folds, chunk, extent, &rows, &cols, depthwise, whole, x); \
        const float i = p.moved[0], w = p.moved[1], o = p.moved[2], *room = p.room; \
        if (cutting == DIMS) \
            need = room[0] + room[1] + room[2], best[0] = i, best[1] = w, best[2] = o, best[3] = bytes_of(i, w, o, outputs, x); \
        better(best, i, w, o, room[0] + room[1] + room[2], outputs, x); \
        better(best, whole[0], w, o, whole_i + room[1] + room[2], outputs, x); \
        better(best, i, whole[1], o, room[0] + whole_w + room[2], outputs, x); \
        better(best, i, w, whole[2], room[0] + room[1] + whole_o, outputs, x); }
    CUT(7) CUT(6) CUT(5) CUT(4) CUT(3) CUT(2) CUT(1) CUT(0)
    const float dram_input = best[0] * x[I_BYTE], dram_weight = best[1] * x[W_BYTE];
    const float dram_psum = (best[2] - outputs) * x[P_BYTE], dram_output = dram_psum + outputs * x[O_BYTE];

    /* Buffers beside the PEs. */
    const float pe_input = tile[2][N] * tile[2][C] * (tile[2][P] * rows.tile_slope + rows.tile_base) * (tile[2][Q] * cols.tile_slope + cols.tile_base);
    const float pe_weight = tile[2][K] * tile[2][C] * tile[2][R] * tile[2][S];
    const float pe_output = tile[2][N] * tile[2][K] * tile[2][P] * tile[2][Q] * (depthwise > 0.0f ? tile[2][C] : 1.0f);
    const float l1_need = 2.0f * (pe_input * x[I_BYTE] + pe_weight * x[W_BYTE] + pe_output * x[P_BYTE]);
    worst = MAX(worst, MAX(l1_need / x[L1_BYTES] - 1.0f, 0.0f));
    worst = MAX(worst, MAX(need / x[L2_BYTES] - 1.0f, 0.0f));

    /* Runtime. */
    const float fill = x[LATENCY] + into_of(&one, x) * x[PER_READ], drain = x[LATENCY] + out_of(&one, x) * x[PER_WRITE];
    const float on_chip = groups * (fill + one.compute * per_mac + time + drain);
    const float dram_bytes = groups * (dram_input + dram_weight + dram_psum + dram_output);
    const float dram_fill = (one.input_reads * x[I_BYTE] + one.weight_reads * x[W_BYTE]) * x[PER_DRAM_BYTE];
    const float cycles = dram_fill + MAX(on_chip, dram_bytes * x[PER_DRAM_BYTE] - dram_fill);

    /* Energy. */
    const float macs = groups * extent[N] * extent[K] * extent[C] * extent[P] * extent[Q] * extent[R] * extent[S];
    const float updates = extent[N] * extent[K] * extent[P] * extent[Q] * (depthwise > 0.0f ? extent[C] : s[C].units[3]) * (s[R].units[3] * s[S].units[3]);
    const float l1 = (macs * (x[I_BYTE] + x[W_BYTE]) + groups * (updates + total.drains) * x[P_BYTE] +
                      x[WRITE_RATIO] * groups * (total.input_fills * x[I_BYTE] + total.weight_fills * x[W_BYTE] + (updates + total.returns) * x[P_BYTE])) * x[L1_READ_PJ];
    const float l2_i = groups * (total.input_reads * x[I_BYTE] + x[WRITE_RATIO] * dram_input) * x[L2_READ_I];
    const float l2_w = groups * (total.weight_reads * x[W_BYTE] + x[WRITE_RATIO] * dram_weight) * x[L2_READ_W];
    const float back = total.returns * x[P_BYTE];
    const float l2_o = groups * (back + dram_output + x[WRITE_RATIO] * (back + (total.moves - total.returns) * x[O_BYTE] + dram_psum)) * x[L2_READ_O];
    const float hops = 8.0f * groups * (x[LATENCY] * (total.input_reads * x[I_BYTE] + total.weight_reads * x[W_BYTE] + (total.returns + total.moves) * x[P_BYTE]) +
                       MAX(total.input_fills - total.input_reads, 0.0f) * x[I_BYTE] + MAX(total.weight_fills - total.weight_reads, 0.0f) * x[W_BYTE] +
                       MAX(total.drains - total.moves, 0.0f) * x[P_BYTE]);
    out[CYCLES][write] = cycles;
    out[ENERGY][write] = macs * x[MAC_PJ] + l1 + l2_i + l2_w + l2_o + hops * x[HOP_PJ] + dram_bytes * x[DRAM_PJ_BYTE] + cycles * x[STATIC_PJ_CYCLE];
    out[VIOLATION][write] = worst;
}

#define KERNEL_MAIN
#include "kernel.h"
