// attend_bench_mpi, below mpirun: what attention over ranks costs here beside one process, and what the model of
// bench/mpi/model.py is fed with. On fewer processors than ranks it shows what the ranks' work costs in all (processor time),
// not how fast they would be apart.
//
//     mpirun -n 4 attend_bench_mpi [--tokens 8192] [--cache 262144] [--json FILE]
//
// SPDX-License-Identifier: BSD-3-Clause
#define OMPI_SKIP_MPICXX
#define MPICH_SKIP_MPICXX
#include <attend/attend_mpi.h>
#include <mpi.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

namespace {

constexpr int64_t kFeatures = 128, kHeads = 8, kKvHeads = 2, kStripes = 16;
constexpr int kRepetitions = 5;

struct Bf16 {
  std::vector<uint16_t> memory;
  attend_tensor t;
  Bf16(int64_t columns, int64_t heads)
      : memory(static_cast<size_t>(kFeatures * columns * heads) + 1),
        t{memory.data(), ATTEND_BF16, 3, {kFeatures, columns, heads}, {1, kFeatures, kFeatures * columns}} {
    uint32_t x = 12345;
    for (uint16_t &e : memory) {
      x = x * 1664525u + 1013904223u;
      e = static_cast<uint16_t>(0x3f00u | (x >> 16 & 0x80ffu));  // 0.5 to 2, of either sign
    }
  }
};

struct Lse {
  std::vector<float> memory;
  attend_tensor t;
  explicit Lse(int64_t columns)
      : memory(static_cast<size_t>(columns * kHeads) + 1),
        t{memory.data(), ATTEND_F32, 3, {1, columns, kHeads}, {1, 1, columns}} {}
};

int rank = 0, ranks = 1;

[[noreturn]] void fail(const char *what, const char *text) {
  std::fprintf(stderr, "rank %d: %s: %s\n", rank, what, text);
  MPI_Abort(MPI_COMM_WORLD, 1);
  std::abort();
}

double processor_time() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval &t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct Times {
  double wall, processor;  // of the slowest rank; of all
};

// The median of some calls that all ranks begin together.
template <class F>
Times measure(const F &f) {
  std::vector<double> walls, processors;
  f();
  for (int i = 0; i < kRepetitions; ++i) {
    MPI_Barrier(MPI_COMM_WORLD);
    const double wall = MPI_Wtime(), processor = processor_time();
    f();
    double times[] = {MPI_Wtime() - wall, processor_time() - processor};
    MPI_Allreduce(MPI_IN_PLACE, times, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    MPI_Allreduce(MPI_IN_PLACE, times + 1, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    walls.push_back(times[0]), processors.push_back(times[1]);
  }
  std::sort(walls.begin(), walls.end()), std::sort(processors.begin(), processors.end());
  return {walls[kRepetitions / 2], processors[kRepetitions / 2]};
}

// Seconds from rank 0 to rank 1 for so many bytes.
double one_way(int bytes, int times) {
  if (ranks < 2) return 0;
  std::vector<char> memory(static_cast<size_t>(bytes));
  double best = 1e9;
  for (int run = 0; run < 5; ++run) {
    MPI_Barrier(MPI_COMM_WORLD);
    const double begin = MPI_Wtime();
    for (int i = 0; i < times && rank < 2; ++i) {
      for (int from = 0; from < 2; ++from) {
        if (rank == from) MPI_Send(memory.data(), bytes, MPI_BYTE, 1 - from, 0, MPI_COMM_WORLD);
        if (rank != from) MPI_Recv(memory.data(), bytes, MPI_BYTE, from, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
      }
    }
    best = std::min(best, (MPI_Wtime() - begin) / (2 * times));
  }
  MPI_Bcast(&best, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD);
  return best;
}

// One causal call, the keys in pieces of so many (0: whole), on one thread.
double alone(int64_t tokens, int64_t piece) {
  Bf16 q(tokens, kHeads), k(tokens, kKvHeads), v(tokens, kKvHeads), out(tokens, kHeads);
  std::vector<float> memory(piece == 0 ? 0 : static_cast<size_t>(2 * (kFeatures + 2) * tokens * kHeads));
  const int64_t rows = 2 * (kFeatures + 2);
  const attend_tensor state = {memory.data(), ATTEND_F32, 3, {rows, tokens, kHeads}, {1, rows, rows * tokens}};
  attend_attention_options a = ATTEND_ATTENTION_OPTIONS_INIT;
  a.flags = ATTEND_CAUSAL_TOP_LEFT;
  a.threads = 1;
  double best = 1e9;
  for (int run = 0; run < 3; ++run) {
    const double begin = MPI_Wtime();
    for (int64_t at = 0; at < tokens; at += piece == 0 ? tokens : piece) {
      attend_tensor k1 = k.t, v1 = v.t;
      attend_attention_options o = a;
      if (piece != 0) {
        k1.data = static_cast<uint16_t *>(k.t.data) + at * kFeatures, k1.shape[1] = piece;
        v1.data = static_cast<uint16_t *>(v.t.data) + at * kFeatures, v1.shape[1] = piece;
        o.state = &state, o.key_offset = at;
        o.flags |= (at > 0 ? ATTEND_CONTINUE : 0u) | (at + piece < tokens ? ATTEND_PARTIAL : 0u);
      }
      // The queries that see something of the piece. (What they give is not looked at.)
      attend_tensor q1 = q.t, out1 = out.t, state1 = state;
      const int64_t first = piece == 0 ? 0 : at;
      q1.data = static_cast<uint16_t *>(q.t.data) + first * kFeatures, q1.shape[1] = tokens - first;
      out1.data = static_cast<uint16_t *>(out.t.data) + first * kFeatures, out1.shape[1] = tokens - first;
      if (piece != 0) {
        state1.data = memory.data() + first * rows, state1.shape[1] = tokens - first;
        o.state = &state1;
      }
      o.query_offset = first;
      if (attend_attention(&q1, &k1, &v1, &out1, &o) != ATTEND_OK) fail("attend_attention", "");
    }
    best = std::min(best, MPI_Wtime() - begin);
  }
  return best;
}

// Gradients of one causal call, on one thread.
double gradients_alone(int64_t tokens) {
  Bf16 q(tokens, kHeads), k(tokens, kKvHeads), v(tokens, kKvHeads), out(tokens, kHeads), d_out(tokens, kHeads),
      d_q(tokens, kHeads), d_k(tokens, kKvHeads), d_v(tokens, kKvHeads);
  const Lse lse(tokens);
  attend_attention_options a = ATTEND_ATTENTION_OPTIONS_INIT;
  a.flags = ATTEND_CAUSAL_TOP_LEFT;
  a.lse = &lse.t;
  if (attend_attention(&q.t, &k.t, &v.t, &out.t, &a) != ATTEND_OK) fail("attend_attention", "");
  attend_attention_backward_options g = ATTEND_ATTENTION_BACKWARD_OPTIONS_INIT;
  g.threads = 1;
  double best = 1e9;
  for (int run = 0; run < 3; ++run) {
    const double begin = MPI_Wtime();
    if (attend_attention_backward(&q.t, &k.t, &v.t, &out.t, &d_out.t, &d_q.t, &d_k.t, &d_v.t, &g, &a) != ATTEND_OK) {
      fail("attend_attention_backward", "");
    }
    best = std::min(best, MPI_Wtime() - begin);
  }
  return best;
}

}  // namespace

int main(int count, char **arguments) {
  int level = 0;
  MPI_Init_thread(&count, &arguments, MPI_THREAD_FUNNELED, &level);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  int64_t tokens = 8192, cache = 262144;
  const char *json = nullptr;
  for (int i = 1; i + 1 < count; i += 2) {
    if (std::strcmp(arguments[i], "--tokens") == 0) tokens = std::atoll(arguments[i + 1]);
    if (std::strcmp(arguments[i], "--cache") == 0) cache = std::atoll(arguments[i + 1]);
    if (std::strcmp(arguments[i], "--json") == 0) json = arguments[i + 1];
  }
  const int64_t unit = 2 * kStripes * ranks;
  tokens = (tokens + unit - 1) / unit * unit;

  // Prefill: queries in stripes there and back, keys in one range a rank.
  const int64_t own = tokens / ranks, stripe = own / kStripes;
  std::vector<int64_t> ranges;
  for (int64_t s = 0; s < kStripes; ++s) {
    const int64_t place = s % 2 == 0 ? rank : ranks - 1 - rank;
    ranges.push_back((s * ranks + place) * stripe);
    ranges.push_back(stripe);
  }
  char text[400] = "";
  attend_mpi_options o = ATTEND_MPI_OPTIONS_INIT;
  o.message = text, o.message_size = sizeof text;
  o.threads = 1;
  o.query_ranges = ranges.data(), o.query_range_count = kStripes;
  attend_attention_options a = ATTEND_ATTENTION_OPTIONS_INIT;
  a.flags = ATTEND_CAUSAL_TOP_LEFT;
  const int32_t comm = MPI_Comm_c2f(MPI_COMM_WORLD);
  Times prefill = {}, messages = {}, gradients = {}, decode = {};
  {
    Bf16 q(own, kHeads), k(own, kKvHeads), v(own, kKvHeads), out(own, kHeads);
    prefill = measure([&] {
      if (attend_mpi_attention(comm, &q.t, &k.t, &v.t, &out.t, &o, &a)) fail("attend_mpi_attention", text);
    });
    // What of that are messages, copies, and what is agreed on: queries that see no key, which go around all the same.
    attend_attention_options blind = a;
    blind.query_offset = -tokens;
    messages = measure([&] {
      if (attend_mpi_attention(comm, &q.t, &k.t, &v.t, &out.t, &o, &blind)) fail("attend_mpi_attention", text);
    });
  }
  // Its gradients: keys in stripes too, for those that stay need balance.
  {
    Bf16 q(own, kHeads), k(own, kKvHeads), v(own, kKvHeads), out(own, kHeads), d_out(own, kHeads), d_q(own, kHeads),
        d_k(own, kKvHeads), d_v(own, kKvHeads);
    const Lse lse(own);
    attend_attention_options with_lse = a;
    with_lse.lse = &lse.t;
    o.key_ranges = ranges.data(), o.key_range_count = kStripes;
    if (attend_mpi_attention(comm, &q.t, &k.t, &v.t, &out.t, &o, &with_lse)) fail("attend_mpi_attention", text);
    gradients = measure([&] {
      if (attend_mpi_attention_backward(comm, &q.t, &k.t, &v.t, &out.t, &d_out.t, &d_q.t, &d_k.t, &d_v.t, &o, nullptr,
                                        &with_lse)) {
        fail("attend_mpi_attention_backward", text);
      }
    });
    o.key_ranges = nullptr, o.key_range_count = 0;
  }
  // Decode: spans in turn.
  o.query_ranges = nullptr, o.query_range_count = 0;
  o.flags = ATTEND_MPI_ALL_RANKS;
  ranges.clear();
  for (int64_t at = 16384 * rank; at < cache; at += 16384 * ranks) {
    ranges.push_back(at), ranges.push_back(std::min<int64_t>(16384, cache - at));
  }
  int64_t keys = 0;
  for (size_t i = 1; i < ranges.size(); i += 2) keys += ranges[i];
  if (!ranges.empty()) o.key_ranges = ranges.data(), o.key_range_count = static_cast<int64_t>(ranges.size() / 2);
  {
    Bf16 q(1, kHeads), k(keys, kKvHeads), v(keys, kKvHeads), out(1, kHeads);
    decode = measure([&] {
      if (attend_mpi_decode(comm, &q.t, &k.t, &v.t, &out.t, &o, nullptr)) fail("attend_mpi_decode", text);
    });
  }
  // What the ranks agree on alone: nothing to compute.
  Times agreement = {};
  {
    Bf16 q(0, kHeads), k(0, kKvHeads), v(0, kKvHeads), out(0, kHeads);
    attend_mpi_options bare = ATTEND_MPI_OPTIONS_INIT;
    agreement = measure([&] {
      for (int i = 0; i < 20; ++i) attend_mpi_attention(comm, &q.t, &k.t, &v.t, &out.t, &bare, nullptr);
    });
  }
  const double latency = one_way(8, 2000), message = one_way(1 << 17, 200);
  // One process, one thread, while the others wait.
  double whole = 0, in_pieces = 0, gradients_whole = 0;
  const int64_t piece = std::clamp<int64_t>(tokens / 8 / 256 * 256, 256, 2048);
  if (rank == 0 && tokens % piece == 0) {
    whole = alone(tokens, 0), in_pieces = alone(tokens, piece);
    gradients_whole = gradients_alone(tokens);
  }
  // (Asleep: a barrier would keep their processors busy.)
  for (int done = 0; done == 0;) {
    static MPI_Request request = MPI_REQUEST_NULL;
    if (request == MPI_REQUEST_NULL) MPI_Ibarrier(MPI_COMM_WORLD, &request);
    MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (done == 0) {
      const timespec moment = {0, 2000000};
      nanosleep(&moment, nullptr);
    }
  }
  if (rank == 0) {
    const double operations = 2.0 * kFeatures * kHeads * static_cast<double>(tokens) * static_cast<double>(tokens);
    std::printf(
        "%d ranks, %lld tokens, 8:2 heads of 128 in bf16, causal: %.3f s, %.3f s of processors; one process %.3f s "
        "(%.1f GFLOP/s), in pieces of %lld keys %.3f s\n",
        ranks, static_cast<long long>(tokens), prefill.wall, prefill.processor, whole, operations / whole / 1e9,
        static_cast<long long>(piece), in_pieces);
    std::printf("  gradients: %.3f s, %.3f s of processors; one process %.3f s (%.1f GFLOP/s)\n", gradients.wall,
                gradients.processor, gradients_whole, 2.5 * operations / gradients_whole / 1e9);
    std::printf("  messages alone %.1f ms; work alone, a rank's part of it, %.1f ms\n", messages.wall * 1e3,
                in_pieces / ranks * 1e3);
    std::printf("  decode over %lld keys: %.3f ms; agreement alone %.1f us; a message %.2f us, of 128 KiB %.1f us\n",
                static_cast<long long>(cache), decode.wall * 1e3, agreement.wall * 1e6 / 20, latency * 1e6,
                message * 1e6);
    if (json != nullptr) {
      std::FILE *const file = std::fopen(json, "a");
      if (file == nullptr) fail(json, "cannot be written");
      std::fprintf(file,
                   "{\"ranks\": %d, \"tokens\": %lld, \"prefill\": %.6g, \"processor\": %.6g, \"whole\": %.6g, "
                   "\"in_pieces\": %.6g, \"piece\": %lld, \"cache\": %lld, \"decode\": %.6g, \"agreement\": %.6g, "
                   "\"messages\": %.6g, "
                   "\"latency\": %.6g, \"message\": %.6g, \"gradients\": %.6g, \"gradients_processor\": %.6g, "
                   "\"gradients_whole\": %.6g}\n",
                   ranks, static_cast<long long>(tokens), prefill.wall, prefill.processor, whole, in_pieces,
                   static_cast<long long>(piece), static_cast<long long>(cache), decode.wall, agreement.wall / 20,
                   messages.wall, latency, message, gradients.wall, gradients.processor, gradients_whole);
      std::fclose(file);
    }
  }
  MPI_Finalize();
  return 0;
}
