#include "mpi/world.hpp"

#include <random>

namespace {

int64_t sent = 0;

struct Mpi {
  attend::test::World world;
  Mpi() {
    int level = 0;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &world.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world.ranks);
    world.comm = MPI_Comm_c2f(MPI_COMM_WORLD);
    // One seed for all.
    unsigned seed = std::random_device()();
    MPI_Bcast(&seed, 1, MPI_UNSIGNED, 0, MPI_COMM_WORLD);
    setenv("ATTEND_TEST_SEED", std::to_string(seed).c_str(), 0);
  }
  ~Mpi() { MPI_Finalize(); }
} mpi;

}  // namespace

// (The library under test is linked into this program, and so calls this.)
extern "C" int MPI_Isend(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
                         MPI_Request *request) {
  int size = 0;
  MPI_Type_size(type, &size);
  sent += int64_t{count} * size;
  return PMPI_Isend(data, count, type, to, tag, comm, request);
}

namespace attend::test {

const World &world() { return mpi.world; }
int64_t bytes_sent() { return sent; }

bool on_all_ranks(bool here) {
  int all = here ? 1 : 0;
  MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
  return all != 0;
}

Split::Split(Random &random, int64_t columns, int64_t unit) : ordered(random.one_in(3)) {
  const int64_t ranks = world().ranks, units = (columns + unit - 1) / unit;
  const int64_t parts = ordered ? ranks : random.in(1, 3 * ranks);
  std::vector<int64_t> cuts = {0, units};
  for (int64_t i = 1; i < parts; ++i) cuts.push_back(random.in(0, units));
  std::sort(cuts.begin(), cuts.end());
  ranges.resize(static_cast<size_t>(ranks));
  for (int64_t i = 0; i < parts; ++i) {
    const int64_t first = std::min(columns, cuts[static_cast<size_t>(i)] * unit);
    const int64_t end = std::min(columns, cuts[static_cast<size_t>(i) + 1] * unit);
    std::vector<int64_t> &of_rank = ranges[static_cast<size_t>(ordered ? i : random.in(0, ranks - 1))];
    of_rank.push_back(first);
    of_rank.push_back(end - first);
  }
}

int64_t Split::count_of(int rank) const {
  int64_t sum = 0;
  const std::vector<int64_t> &r = ranges[static_cast<size_t>(rank)];
  for (size_t i = 1; i < r.size(); i += 2) sum += r[i];
  return sum;
}

namespace {
template <class F>
void each_own_column(const Split &split, const F &f) {
  int64_t column = 0;
  const std::vector<int64_t> &r = split.own();
  for (size_t i = 0; i < r.size(); i += 2) {
    for (int64_t j = 0; j < r[i + 1]; ++j) f(column++, r[i] + j);
  }
}
}  // namespace

Array own_columns(Random &random, const attend_tensor &whole, const Split &split, bool one) {
  const auto layout = Operand<float>::random_layout(random);
  const Shape shape = {whole.shape[0], one ? 1 : split.own_count(), whole.shape[2], whole.shape[3]};
  Array own(whole.dtype, shape, layout.order, layout.padding);
  const size_t bytes = static_cast<size_t>(bytes_of_element(whole.dtype));
  const auto copy = [&](int64_t to, int64_t from) {
    for (int64_t b = 0; b < shape[3]; ++b)
      for (int64_t h = 0; h < shape[2]; ++h)
        for (int64_t i = 0; i < shape[0]; ++i)
          std::memcpy(element(own.t, i, to, h, b), element(whole, i, from, h, b), bytes);
  };
  one ? copy(0, 0) : each_own_column(split, copy);
  return own;
}

bool are_own_columns(const attend_tensor &own, const attend_tensor &whole, const Split &split) {
  bool same = true;
  each_own_column(split, [&](int64_t column, int64_t position) {
    same &= same_elements(along(own, 1, column, 1), along(whole, 1, position, 1));
  });
  return same;
}

int64_t columns_sent(const Split &split, int64_t columns) {
  std::vector<int> owners(static_cast<size_t>(columns));
  for (int r = 0; r < world().ranks; ++r) {
    const std::vector<int64_t> &ranges = split.ranges[static_cast<size_t>(r)];
    for (size_t i = 0; i < ranges.size(); i += 2) std::fill_n(owners.begin() + ranges[i], ranges[i + 1], r);
  }
  const int64_t piece = std::clamp<int64_t>(columns / 8 / 256 * 256, 256, 2048), pieces = (columns + piece - 1) / piece;
  const int next = (world().rank + 1) % world().ranks;
  int64_t sent = 0;
  for (int64_t p = 0; p < pieces; ++p) {
    const auto begin = owners.begin() + p * piece, end = owners.begin() + std::min(columns, (p + 1) * piece);
    const bool one = std::count(begin, end, *begin) == end - begin;
    const int root = one ? *begin : static_cast<int>(p * world().ranks / pieces);
    if (root != next) sent += end - begin;
    if (root != world().rank) sent += std::count(begin, end, world().rank);
    // (On one rank next is itself.)
  }
  return sent;
}

void give_queries(const Split &split, attend_mpi_options *options) {
  if (split.ordered || split.own().empty()) return;
  options->query_ranges = split.own().data();
  options->query_range_count = static_cast<int64_t>(split.own().size() / 2);
}
void give_keys(const Split &split, attend_mpi_options *options) {
  if (split.ordered || split.own().empty()) return;
  options->key_ranges = split.own().data();
  options->key_range_count = static_cast<int64_t>(split.own().size() / 2);
}

}  // namespace attend::test
