/* The most memory that a rank ever has, beside that of one process with all keys, which rank 0 is at last; and their bits.
 * Few queries and many keys, as when a long text goes on. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attend/attend_mpi.h"

enum { kFeatures = 64, kHeads = 4, kKvHeads = 2, kKeys = 524288, kQueries = 64 };

/* Numbers that follow from their place, so that each rank makes its own. */
static void fill(float *to, int64_t first, int64_t count, int64_t heads, uint64_t stream) {
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t i = 0; i < count * kFeatures; ++i) {
      const uint64_t place = (uint64_t)(first * kFeatures + i) + ((uint64_t)h << 40) + (stream << 48);
      const uint64_t mixed = (place * 0x9e3779b97f4a7c15u) ^ (place >> 17);
      to[h * count * kFeatures + i] = (float)((int64_t)(mixed * 0xbf58476d1ce4e5b9u >> 40)) * 0x1p-23f - 1.0f;
    }
}

static attend_tensor tensor(int64_t columns, int64_t heads) {
  attend_tensor t = {malloc((size_t)(columns * heads * kFeatures) * sizeof(float)),
                     ATTEND_F32,
                     3,
                     {kFeatures, columns, heads, 0},
                     {1, kFeatures, kFeatures * columns, 0}};
  if (t.data == NULL) abort();
  return t;
}

/* Bytes: of the whole life so far. */
static double peak(void) {
  char line[200];
  double kilobytes = 0;
  FILE *status = fopen("/proc/self/status", "r");
  while (status != NULL && fgets(line, sizeof line, status) != NULL) sscanf(line, "VmHWM: %lf", &kilobytes);
  if (status != NULL) fclose(status);
  return kilobytes * 1024;
}

int main(void) {
  int level, rank, ranks;
  MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const int64_t keys = kKeys / ranks, queries = kQueries / ranks;
  char text[400] = "";
  attend_mpi_options o = ATTEND_MPI_OPTIONS_INIT;
  o.message = text, o.message_size = sizeof text;
  o.threads = 1;
  attend_attention_options a = ATTEND_ATTENTION_OPTIONS_INIT;
  a.flags = ATTEND_CAUSAL_TOP_LEFT;
  a.query_offset = kKeys - kQueries;
  attend_tensor q = tensor(queries, kHeads), k = tensor(keys, kKvHeads), v = tensor(keys, kKvHeads),
                out = tensor(queries, kHeads);
  fill(q.data, rank * queries, queries, kHeads, 1);
  fill(k.data, rank * keys, keys, kKvHeads, 2);
  fill(v.data, rank * keys, keys, kKvHeads, 3);
  if (attend_mpi_attention(MPI_Comm_c2f(MPI_COMM_WORLD), &q, &k, &v, &out, &o, &a) != ATTEND_OK) {
    printf("%s\n", text);
    return 1;
  }
  double of_rank = peak(), most = 0;
  MPI_Reduce(&of_rank, &most, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
  int wrong = 0;
  if (rank == 0) {
    free(k.data), free(v.data);
    k = tensor(kKeys, kKvHeads), v = tensor(kKeys, kKvHeads);
    fill(k.data, 0, kKeys, kKvHeads, 2);
    fill(v.data, 0, kKeys, kKvHeads, 3);
    attend_tensor alone = tensor(queries, kHeads);
    if (attend_attention(&q, &k, &v, &alone, &a) != ATTEND_OK) return 1;
    const double of_one = peak();
    wrong = memcmp(alone.data, out.data, (size_t)(queries * kHeads * kFeatures) * sizeof(float)) != 0;
    if (wrong) printf("other bits\n");
    wrong |= most > 0.35 * of_one;
    printf("%d ranks: at most %.1f MB a rank, %.1f MB one process: %.3f of it\n", ranks, most / 1e6, of_one / 1e6,
           most / of_one);
  }
  MPI_Finalize();
  return wrong;
}
