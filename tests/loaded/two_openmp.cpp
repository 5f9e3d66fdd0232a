// two_openmp LIBRARY [deep]: a program on clang's OpenMP runtime opens the library, which was linked to gcc's, as it
// happens in Python between NumPy, PyTorch and others. Without `deep` the library's calls find the program's runtime,
// which knows their names too; with it (RTLD_DEEPBIND) each has its own. two_openmp.sh compiles it.
#include <link.h>
#include <omp.h>

#include <cstring>
#include <thread>

#include "loaded.hpp"

namespace {

bool is_loaded(const char *name) {
  const auto matches = [](dl_phdr_info *info, size_t, void *wanted) {
    return std::strstr(info->dlpi_name, static_cast<const char *>(wanted)) != nullptr ? 1 : 0;
  };
  return dl_iterate_phdr(matches, const_cast<char *>(name)) != 0;
}

}  // namespace

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  const bool deep = argc > 2;
  const Library library(argv[1], RTLD_NOW | RTLD_LOCAL | (deep ? RTLD_DEEPBIND : 0));
  if (!is_loaded("/libgomp.so") || !is_loaded("/libomp")) {
    std::printf("skipped: %s and this program do not have an OpenMP runtime each\n", argv[1]);
    return 77;
  }
  const std::vector<float> expected = compute(library, 1);
  bool good = !expected.empty();
  const int rounds = is_long() ? 1000 : 50;
  for (int round = 0; round < rounds && good; ++round) {
    // One after the other.
    int64_t sum = 0;
#pragma omp parallel for num_threads(3) reduction(+ : sum)
    for (int64_t i = 0; i < 1000; ++i) sum += i;
    good = sum == 499500 && compute(library, 2) == expected;

    // The library inside the program's regions.
    int same = 0;
#pragma omp parallel num_threads(2) reduction(+ : same)
    same += compute(library, 1 + (round + omp_get_thread_num()) % 3) == expected ? 1 : 0;
    good = good && same == 2;

    // Both at once, from threads of neither.
    std::thread beside([&] { same += compute(library, 2) == expected ? 1 : 0; });
    sum = 0;
#pragma omp parallel for num_threads(2) reduction(+ : sum)
    for (int64_t i = 0; i < 100000; ++i) sum += i % 7;
    beside.join();
    good = good && same == 3 && sum == 299995;
  }
  return verdict(good, deep ? "two OpenMP runtimes, each its own" : "two OpenMP runtimes, the program's first");
}
