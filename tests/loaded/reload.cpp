// reload LIBRARY: opens and closes the library again and again while threads are inside its functions, and now and then
// a copy of it, which is loaded afresh.
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>

#include "loaded.hpp"

namespace {

std::atomic<bool> g_same{true};

// Calls until told to stop, and once more; counts the calls.
void compute_until(const std::atomic<bool> &stop, std::atomic<int> &calls, const Library &library, int32_t threads,
                   const std::vector<float> &expected) {
  bool last = false;
  do {
    last = stop;
    if (compute(library, threads) != expected) g_same = false;
    ++calls;
  } while (!last);
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  const int rounds = is_long() ? 1000 : 100;
  char folder[] = "/tmp/attend_reload_XXXXXX";
  if (mkdtemp(folder) == nullptr) return 2;
  const std::string copy = std::string(folder) + "/copy.so";

  const Library first(argv[1], RTLD_NOW | RTLD_LOCAL);
  const std::vector<float> expected = compute(first, 1);
  bool good = !expected.empty() && first.close();
  std::atomic<bool> end{false};
  std::atomic<int> unused{0};
  // One thread lives through all rounds.
  std::thread through([&] { compute_until(end, unused, first, 1, expected); });

  for (int round = 0; round < rounds && good && g_same; ++round) {
    const bool afresh = round % 10 == 0;
    if (afresh) std::filesystem::copy_file(argv[1], copy);
    const Library library(afresh ? copy.c_str() : argv[1], RTLD_NOW | RTLD_LOCAL);
    if (afresh) std::filesystem::remove(copy);
    std::atomic<bool> stop{false};
    std::atomic<int> calls{0};
    std::thread one([&] { compute_until(stop, calls, library, 1, expected); });
    std::thread two([&] { compute_until(stop, calls, library, 2, expected); });
    while (calls < 2) std::this_thread::yield();
    good = compute(library, 2) == expected && library.close();
    stop = true;
    one.join();
    two.join();
  }
  end = true;
  through.join();
  std::filesystem::remove_all(folder);
  return verdict(good && g_same, (std::to_string(rounds) + " rounds of dlopen and dlclose").c_str());
}
