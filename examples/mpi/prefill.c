/* A long causal sequence over several ranks, each within a bound of memory that the whole sequence breaks:
 *
 *     mpicc prefill.c $(pkg-config --cflags --libs attend_mpi) -lm -o prefill
 *     mpirun -n 4 prefill 131072
 *
 * Queries are dealt out in 16 stripes a rank, there and back again, so that all ranks have the same work; keys lie in the
 * order of the ranks. Some queries of each rank are computed again, by the formula in double. */
#include <attend/attend_mpi.h>
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { kFeatures = 64, kStripes = 16, kSamples = 4 };

/* Feature f of the token at a position, in -1..1: each rank makes what it needs of it. */
static float element(int64_t position, int64_t f, uint64_t stream) {
  uint64_t x = ((uint64_t)position * kFeatures + (uint64_t)f) * 3 + stream;
  x = (x ^ x >> 31) * 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 27) * 0xbf58476d1ce4e5b9u;
  return (float)(x >> 40) * 0x1p-23f - 1.0f;
}

static float *allocate(int64_t columns) {
  float *memory = malloc((size_t)(columns * kFeatures) * sizeof(float));
  if (memory == NULL) {
    fprintf(stderr, "out of memory\n");
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  return memory;
}

static attend_tensor columns(float *memory, int64_t count) {
  attend_tensor t = {memory, ATTEND_F32, 2, {kFeatures, count, 0, 0}, {1, kFeatures, 0, 0}};
  return t;
}

/* The largest difference from the formula, of the output of a query at a position. */
static double error_of(const float *out, int64_t position) {
  double sum = 0, want[kFeatures] = {0}, q[kFeatures], worst = 0;
  for (int f = 0; f < kFeatures; ++f) q[f] = element(position, f, 0);
  for (int64_t j = 0; j <= position; ++j) {
    double s = 0;
    for (int f = 0; f < kFeatures; ++f) s += q[f] * element(j, f, 1);
    const double weight = exp(s / sqrt(kFeatures)); /* (Small: no maximum is needed.) */
    sum += weight;
    for (int f = 0; f < kFeatures; ++f) want[f] += weight * element(j, f, 2);
  }
  for (int f = 0; f < kFeatures; ++f) worst = fmax(worst, fabs(out[f] - want[f] / sum));
  return worst;
}

/* Bytes of private memory that this process has asked for, which RLIMIT_DATA bounds. */
static double data_size(void) {
  char line[200];
  double kilobytes = 0;
  FILE *status = fopen("/proc/self/status", "r");
  while (status != NULL && fgets(line, sizeof line, status) != NULL) sscanf(line, "VmData: %lf", &kilobytes);
  if (status != NULL) fclose(status);
  return kilobytes * 1024;
}

int main(int count, char **arguments) {
  int level, rank, ranks;
  MPI_Init_thread(&count, &arguments, MPI_THREAD_FUNNELED, &level);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const int64_t stripe = (count > 1 ? atoll(arguments[1]) : 131072) / (kStripes * ranks);
  const int64_t own = stripe * kStripes, tokens = own * ranks;
  char text[400] = "";
  attend_mpi_options options = ATTEND_MPI_OPTIONS_INIT;
  options.message = text, options.message_size = sizeof text;
  options.threads = 1; /* of each rank; on a machine of its own leave it out */
  attend_attention_options attention = ATTEND_ATTENTION_OPTIONS_INIT;
  attention.flags = ATTEND_CAUSAL_TOP_LEFT;
  int64_t ranges[2 * kStripes];
  for (int64_t s = 0; s < kStripes; ++s) {
    ranges[2 * s] = (s * ranks + (s % 2 == 0 ? rank : ranks - 1 - rank)) * stripe;
    ranges[2 * s + 1] = stripe;
  }

  /* MPI has what it needs; from here on so much: the shard, the state of its queries (half as much), pieces of keys. */
  const double whole = 4.0 * (double)(tokens * kFeatures) * sizeof(float);
  const double bound = 1.6 * whole / ranks + 8e6;
  MPI_Barrier(MPI_COMM_WORLD);
  struct rlimit limit;
  getrlimit(RLIMIT_DATA, &limit);
  limit.rlim_cur = (rlim_t)(data_size() + bound);
  setrlimit(RLIMIT_DATA, &limit);
  void *all = malloc((size_t)whole);
  if (rank == 0) {
    printf("%lld tokens over %d ranks of %.0f MB each; one process would have %.0f MB, %s\n", (long long)tokens, ranks,
           bound / 1e6, whole / 1e6, all == NULL ? "which the system refuses" : "which would fit too");
  }
  free(all);

  float *q = allocate(own), *k = allocate(own), *v = allocate(own), *out = allocate(own);
  for (int64_t i = 0; i < own; ++i) {
    for (int f = 0; f < kFeatures; ++f) {
      q[i * kFeatures + f] = element(ranges[i / stripe * 2] + i % stripe, f, 0);
      k[i * kFeatures + f] = element(rank * own + i, f, 1);
      v[i * kFeatures + f] = element(rank * own + i, f, 2);
    }
  }
  const attend_tensor tq = columns(q, own), tk = columns(k, own), tv = columns(v, own), to = columns(out, own);
  options.query_ranges = ranges, options.query_range_count = kStripes;
  double seconds = -MPI_Wtime();
  const attend_status status =
      attend_mpi_attention(MPI_Comm_c2f(MPI_COMM_WORLD), &tq, &tk, &tv, &to, &options, &attention);
  seconds += MPI_Wtime();
  if (status != ATTEND_OK) {
    if (rank == 0) fprintf(stderr, "%s\n", text);
    MPI_Finalize();
    return 1;
  }

  double worst = 0, of_all = 0;
  for (int n = 0; n < kSamples; ++n) {
    const int64_t i = (own - 1) * n / (kSamples - 1);
    worst = fmax(worst, error_of(out + i * kFeatures, ranges[i / stripe * 2] + i % stripe));
  }
  MPI_Reduce(&worst, &of_all, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
  const int wrong = rank == 0 && !(of_all < 1e-5);
  if (rank == 0)
    printf("%.1f s; %d queries beside the formula: off by at most %.1e\n", seconds, kSamples * ranks, of_all);
  free(q), free(k), free(v), free(out);
  MPI_Finalize();
  return wrong;
}
