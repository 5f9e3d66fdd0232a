// The settings of the library, what they are chosen from, and calls from several threads.
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <limits>

#include "callers.hpp"
#include "dispatch/cpu_features.hpp"
#include "dispatch/registry.hpp"
#include "drivers/thread_limits.hpp"

using namespace attend;
using namespace callers;
using namespace operands;

namespace {

std::vector<std::string> isa_names() {
  std::vector<std::string> names;
  for (int32_t i = 0; const char *name = attend_isa_name(i); ++i) names.push_back(name);
  return names;
}

// A directory that stands for "/" and is removed again.
class Root {
 public:
  Root() {
    char path[] = "/tmp/attend_settings_XXXXXX";
    REQUIRE(mkdtemp(path) != nullptr);
    path_ = path;
  }
  ~Root() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Root(const Root &) = delete;
  Root &operator=(const Root &) = delete;

  Root &with(const std::string &file, const std::string &text) {
    const std::filesystem::path path = path_ + file;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
    return *this;
  }
  int quota() const { return quota_cpus(path_.c_str()); }
  bool forked() const { return is_forked(path_.c_str()); }

 private:
  std::string path_;
};

}  // namespace

TEST_CASE("version") { CHECK(attend_version() == ATTEND_VERSION); }

TEST_CASE("instruction sets") {
  const std::vector<std::string> names = isa_names();
  REQUIRE(!names.empty());
  CHECK(names.back() == "generic");
  CHECK(attend_isa_name(-1) == nullptr);
  CHECK(attend_isa_name(std::numeric_limits<int32_t>::max()) == nullptr);
  for (const std::string &name : names) {
    CHECK(attend_set_isa(name.c_str()) == ATTEND_OK);
    CHECK(attend_isa() == name);
    for (const char *unknown : {"", "AVX2", "avx", "neon2", "avx512 "}) {
      const attend_status status = attend_set_isa(unknown);
      CHECK(ATTEND_REASON(status) == ATTEND_UNKNOWN_ISA);
      CHECK(std::string(attend_status_argument(status)) == "name");
      CHECK(attend_isa() == name);
    }
  }
  CHECK(attend_set_isa(nullptr) == ATTEND_OK);
}

TEST_CASE("ATTEND_ISA names the instruction set not to go beyond") {
  const char *const before = std::getenv("ATTEND_ISA");
  const std::string saved = before != nullptr ? before : "";
  const std::vector<std::string> names = isa_names();
  const auto chosen = [](const char *limit) {
    setenv("ATTEND_ISA", limit, 1);
    set_active_kernels(nullptr);
    return std::string(attend_isa());
  };
  for (const std::string &name : names) CHECK(chosen(name.c_str()) == name);
  for (const char *unknown : {"", "nonsense", "AVX2"}) CHECK(chosen(unknown) == names[0]);
  unsetenv("ATTEND_ISA");
  set_active_kernels(nullptr);
  CHECK(attend_isa() == names[0]);
  // A call that names one is not limited.
  setenv("ATTEND_ISA", "generic", 1);
  CHECK(attend_set_isa(names[0].c_str()) == ATTEND_OK);
  CHECK(attend_isa() == names[0]);
  if (before != nullptr) {
    setenv("ATTEND_ISA", saved.c_str(), 1);
  } else {
    unsetenv("ATTEND_ISA");
  }
  set_active_kernels(nullptr);
}

TEST_CASE("threads") {
  const int32_t standard = attend_threads();
  CHECK(standard >= 1);
  const int32_t several = has_openmp() ? 3 : 1;
  CHECK(attend_set_threads(3) == ATTEND_OK);
  CHECK(attend_threads() == several);
  for (const int32_t negative : {-1, std::numeric_limits<int32_t>::min()}) {
    const attend_status status = attend_set_threads(negative);
    CHECK(ATTEND_REASON(status) == ATTEND_INVALID_VALUE);
    CHECK(std::string(attend_status_argument(status)) == "threads");
    CHECK(attend_threads() == several);
  }
  CHECK(attend_set_threads(0) == ATTEND_OK);
  CHECK(attend_threads() == standard);
}

TEST_CASE("what the CPU and the system offer") {
  // CPUID of a Xeon (Skylake-SP) and of an EPYC (Zen 2).
  const CpuId xeon = {0x16, 0x7ffefbff, 0xd39ffffb, 0x8, 0, 0x2ff},
              zen2 = {0x10, 0x7ed8320b, 0x219c91a9, 0x400004, 0, 0x207};
  const uint64_t avx2 = kSse42 | kAvx2 | kFma | kF16c, avx512 = kAvx512F | kAvx512Bw | kAvx512Dq | kAvx512Vl;
  constexpr uint32_t kOsxsave = 1u << 27, kAvx = 1u << 28, kFmaBit = 1u << 12, kPopcnt = 1u << 23, kAvx2Bit = 1u << 5,
                     kVnniBit = 1u << 11;
  struct Case {
    const char *what;
    CpuId id;
    uint64_t features;
  };
  std::vector<Case> cases = {{"all", xeon, avx2 | avx512}, {"no AVX-512", zen2, avx2}, {"nothing", {}, 0}};
  const auto but = [&](const char *what, uint64_t features, void (*change)(CpuId &)) {
    cases.push_back({what, xeon, features});
    change(cases.back().id);
  };
  but("no OSXSAVE", kSse42, [](CpuId &id) {
    id.leaf1_ecx &= ~kOsxsave;
    id.xcr0 = 0;
  });
  but("no OSXSAVE, whatever XCR0", kSse42, [](CpuId &id) { id.leaf1_ecx &= ~kOsxsave; });
  but("the system saves x87, xmm, ymm", avx2, [](CpuId &id) { id.xcr0 = 7; });
  but("the system saves no ymm", kSse42, [](CpuId &id) { id.xcr0 = 3; });
  but("the system saves no opmasks", avx2, [](CpuId &id) { id.xcr0 = 0xc7; });
  but("the system saves no upper zmm", avx2, [](CpuId &id) { id.xcr0 = 0x67; });
  but("zmm without ymm", kSse42, [](CpuId &id) { id.xcr0 = 0xe3; });
  but("exactly what AVX-512 needs", avx2 | avx512, [](CpuId &id) { id.xcr0 = 0xe7; });
  but("leaf 7 does not exist", kSse42 | kFma | kF16c, [](CpuId &id) { id.max_leaf = 6; });
  but("leaf 1 does not exist", 0, [](CpuId &id) { id.max_leaf = 0; });
  but("no AVX", kSse42, [](CpuId &id) { id.leaf1_ecx &= ~kAvx; });
  but("VNNI", avx2 | avx512 | kAvx512Vnni, [](CpuId &id) { id.leaf7_ecx |= kVnniBit; });
  but("dot products of bf16", avx2 | avx512 | kAvx512Bf16, [](CpuId &id) { id.leaf7_1_eax |= 1u << 5; });
  but("VNNI of a CPU whose system saves no zmm", avx2, [](CpuId &id) {
    id.leaf7_ecx |= kVnniBit;
    id.xcr0 = 7;
  });
  but("no FMA", kSse42 | kAvx2 | kF16c | avx512, [](CpuId &id) { id.leaf1_ecx &= ~kFmaBit; });
  but("no AVX2", kSse42 | kFma | kF16c | avx512, [](CpuId &id) { id.leaf7_ebx &= ~kAvx2Bit; });
  but("no F16C", kSse42 | kAvx2 | kFma | avx512, [](CpuId &id) { id.leaf1_ecx &= ~(1u << 29); });
  but("no POPCNT", kAvx2 | kFma | kF16c | avx512, [](CpuId &id) { id.leaf1_ecx &= ~kPopcnt; });
  for (const Case &c : cases) {
    INFO(c.what);
    CHECK(interpret(c.id) == c.features);
  }
  CHECK((find_kernels(attend_isa())->required & ~cpu_features()) == 0);
}

TEST_CASE("CPU quota of the control group") {
  const std::string mount = "/sys/fs/cgroup", group = "/proc/self/cgroup";
  CHECK(Root().quota() == 0);
  CHECK(quota_cpus("/nonexistent") == 0);
  CHECK(quota_cpus(std::string(2000, 'x').c_str()) == 0);
  CHECK(default_threads(1) == 1);

  // Version 2.
  CHECK(Root().with(mount + "/cpu.max", "150000 100000\n").quota() == 2);
  CHECK(Root().with(mount + "/cpu.max", "100000 100000\n").quota() == 1);
  CHECK(Root().with(mount + "/cpu.max", "1000 100000\n").quota() == 1);
  CHECK(Root().with(mount + "/cpu.max", "max 100000\n").quota() == 0);
  for (const char *nonsense : {"", "\n", "x y", "100000", "-1 100000", "100000 0", "100000 -5"}) {
    INFO(nonsense);
    CHECK(Root().with(mount + "/cpu.max", nonsense).quota() == 0);
  }
  // The least of the chain, wherever it is.
  for (const char *at : {"", "/a", "/a/b", "/a/b/c"}) {
    INFO(at);
    Root root;
    root.with(group, "0::/a/b/c\n").with(mount + "/a/cpu.max", "800000 100000\n");
    root.with(mount + "/a/b/c/cpu.max", "max 100000\n").with(mount + at + "/cpu.max", "250000 100000\n");
    CHECK(root.quota() == 3);
  }
  CHECK(Root().with(group, "0::/\n").with(mount + "/cpu.max", "400000 100000\n").quota() == 4);
  // In a container the group's path may not be there.
  CHECK(Root().with(group, "0::/../host/group\n").with(mount + "/cpu.max", "400000 100000\n").quota() == 4);
  CHECK(Root().with(group, "0::/other\n").with(mount + "/a/cpu.max", "400000 100000\n").quota() == 0);
  for (const char *nonsense : {"", "\n", ":", "0:", "0::", "0::a", "::::", "no group"}) {
    INFO(nonsense);
    CHECK(Root().with(group, nonsense).with(mount + "/cpu.max", "400000 100000\n").quota() == 4);
  }

  // Version 1.
  const auto version1 = [&](const std::string &path, const char *quota, const char *period, const char *cgroup) {
    Root root;
    root.with(group, cgroup);
    if (*quota != '\0') root.with(mount + "/cpu" + path + "/cpu.cfs_quota_us", quota);
    if (*period != '\0') root.with(mount + "/cpu" + path + "/cpu.cfs_period_us", period);
    return root.quota();
  };
  CHECK(version1("", "250000\n", "100000\n", "") == 3);
  CHECK(version1("", "-1\n", "100000\n", "") == 0);
  CHECK(version1("", "250000\n", "", "") == 0);
  CHECK(version1("", "", "100000\n", "") == 0);
  CHECK(version1("/a/b", "250000\n", "100000\n", "5:memory:/x\n4:cpu,cpuacct:/a/b\n1:name=systemd:/a\n") == 3);
  CHECK(version1("/a", "250000\n", "100000\n", "4:cpuacct,cpu:/a/b\n") == 3);
  CHECK(version1("/a", "250000\n", "100000\n", "4:cpuset:/a\n") == 0);
}

TEST_CASE("a process that was forked") {
  const std::string stat = "/proc/self/stat";
  CHECK(Root().with(stat, "7 (sh) R 1 2 3 0 -1 4194368 1 2\n").forked());
  CHECK(!Root().with(stat, "7 (sh) R 1 2 3 0 -1 4194304 1 2\n").forked());
  CHECK(Root().with(stat, "7 (a) R 1 2 3 0 -1 0) S 1 2 3 0 -1 64 1\n").forked());
  CHECK(!Root().forked());
  for (const char *nonsense : {"", "\n", "7", "7 sh R 1 2 3 0 -1 64", "7 (sh)", "7 (sh) R 1 2 3 0 -1"}) {
    INFO(nonsense);
    CHECK(!Root().with(stat, nonsense).forked());
  }
}

TEST_CASE("callers in several threads at once") {
  REQUIRE(serial_results().size() == kFunctions);
  std::vector<std::future<bool>> callers;
  for (int caller = 0; caller < 8; ++caller) {
    callers.push_back(std::async(std::launch::async, [caller] {
      bool same = true;
      for (int round = 0; round < 3; ++round) same &= all_results(caller % 3) == serial_results();
      return same;
    }));
  }
  for (std::future<bool> &same : callers) CHECK(same.get());
}

TEST_CASE("the same inputs from several threads at once") {
  for (int f = 0; f < kFunctions; ++f) {
    const auto shared = make(f, kLarge);
    INFO(shared->function);
    std::vector<std::future<bool>> callers;
    for (int caller = 0; caller < 4; ++caller) {
      callers.push_back(std::async(std::launch::async, [f, &shared] {
        const auto call = make(f, kLarge);
        for (size_t i = 0; i < call->slots.size(); ++i) {
          if (!call->slots[i].output) *call->slots[i].passed = &shared->slots[i].operand->view;
        }
        return call->run() == ATTEND_OK && call->memory(true) == serial_results()[static_cast<size_t>(f)];
      }));
    }
    for (std::future<bool> &same : callers) CHECK(same.get());
  }
}

TEST_CASE("calls from within parallel work of the caller") {
  const std::vector<Bytes> &expected = serial_results();
  std::atomic<int> same{0};
  const auto body = [](void *counter) {
    if (all_results(4) == serial_results()) ++*static_cast<std::atomic<int> *>(counter);
  };
  if (in_parallel_region(body, &same)) CHECK(same == 4);

  const auto nested = [&expected] {
    auto inner = std::async(std::launch::async, [&expected] { return all_results(4) == expected; });
    return all_results(2) == expected && inner.get();
  };
  auto one = std::async(std::launch::async, nested), two = std::async(std::launch::async, nested);
  CHECK(one.get());
  CHECK(two.get());
}
