/* What every C program of the benchmarks needs: a clock, and arrays that do not collide in a cache. */

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Arrays start at different offsets of a page: equal ones would fight for the same cache sets. */
static float *array(long count, int index) {
    char *memory = aligned_alloc(4096, (count * 4 + 4096 * 4) / 4096 * 4096);
    if (!memory) exit(3);
    return (float *)(memory + (index * 320) % 4096);
}
