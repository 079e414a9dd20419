/* Latencies, nanoseconds, in the order in which they were taken, and what they come to, microseconds. */
#ifndef SAMPLES_H
#define SAMPLES_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { SLICE = 500 }; /* a quarter of a second, at 2,000 a second */

static struct { uint64_t *values, count, room; } samples;

static void sample(uint64_t value) {
    if (samples.count == samples.room) {
        samples.room = samples.room ? samples.room * 2 : 65536;
        if (!(samples.values = realloc(samples.values, samples.room * sizeof *samples.values))) abort();
    }
    samples.values[samples.count++] = value;
}

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double percentile(double share) { /* of all; once they are sorted */
    uint64_t at = (uint64_t)(share * (double)(samples.count - 1));
    return samples.count ? (double)samples.values[at] / 1e3 : 0;
}

/* The median of the slices' p99s; before they are sorted. What holds the machine up now and then shows in a p99 of all
 * as soon as it takes a hundredth of the time, and from then on is all that shows. */
static double typical_p99(void) {
    uint64_t count = samples.count / SLICE, *each = calloc(count + 1, sizeof *each);
    if (!each) abort();
    for (uint64_t i = 0; i < count; i++) {
        uint64_t *slice = samples.values + i * SLICE;
        qsort(slice, SLICE, sizeof *slice, ascending);
        each[i] = slice[SLICE * 99 / 100];
    }
    qsort(each, count, sizeof *each, ascending);
    double median = count ? (double)each[count / 2] / 1e3 : 0;
    free(each);
    return median;
}

static void sort_samples(void) { qsort(samples.values, samples.count, sizeof *samples.values, ascending); }
#endif
