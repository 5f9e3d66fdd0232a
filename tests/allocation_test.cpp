// What the header promises about memory that a call allocates: none with a workspace, none kept, and each allocation of
// each function may fail.
#include "support.hpp"

#if defined(ATTEND_TEST_SANITIZED)
TEST_CASE("not tested: sanitizers bring an allocator of their own") {}
#else

#include <dlfcn.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdlib>

#include "drivers/thread_limits.hpp"
#include "interleaved.hpp"
#include "operands.hpp"

// The allocator of the whole program, counted and made to fail while a test asks for it. The OpenMP runtime ends the
// process when it gets no memory, so by default only what the library asks for counts, which is linked statically.
extern "C" char __executable_start, etext;

namespace {

std::atomic<bool> g_counting{false}, g_everyone{false};
std::atomic<int> g_allocations{0}, g_granted{0}, g_freed{0};
std::atomic<int> g_from{0}, g_to{0};  // those of these numbers fail
std::atomic<uint64_t> g_bytes{0};

bool counts(const void *caller) {
  if (!g_counting) return false;
  const uintptr_t at = reinterpret_cast<uintptr_t>(caller);
  return g_everyone ||
         (at >= reinterpret_cast<uintptr_t>(&__executable_start) && at < reinterpret_cast<uintptr_t>(&etext));
}

// Counts an allocation and says whether it may succeed.
bool granted(size_t size, const void *caller) {
  if (!counts(caller)) return true;
  g_bytes += size;
  const int number = g_allocations++;
  if (number >= g_from && number < g_to) return false;
  ++g_granted;
  return true;
}

template <class Function>
Function *next(const char *name) {
  return reinterpret_cast<Function *>(dlsym(RTLD_NEXT, name));
}

void *real_malloc(size_t size) {
  static void *(*const real)(size_t) = next<void *(size_t)>("malloc");
  return real(size);
}

}  // namespace

extern "C" {

void *malloc(size_t size) { return granted(size, __builtin_return_address(0)) ? real_malloc(size) : nullptr; }

void *realloc(void *memory, size_t size) {
  static void *(*const real)(void *, size_t) = next<void *(void *, size_t)>("realloc");
  if (!granted(size, __builtin_return_address(0))) return nullptr;
  if (memory != nullptr && counts(__builtin_return_address(0))) ++g_freed;
  return real(memory, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
  static void *(*const real)(size_t, size_t) = next<void *(size_t, size_t)>("aligned_alloc");
  return granted(size, __builtin_return_address(0)) ? real(alignment, size) : nullptr;
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
  static int (*const real)(void **, size_t, size_t) = next<int(void **, size_t, size_t)>("posix_memalign");
  return granted(size, __builtin_return_address(0)) ? real(memory, alignment, size) : ENOMEM;
}

// Of malloc, since dlsym may call calloc itself.
void *calloc(size_t number, size_t size) {
  size_t bytes = 0;
  if (__builtin_mul_overflow(number, size, &bytes) || !granted(bytes, __builtin_return_address(0))) return nullptr;
  void *const memory = real_malloc(bytes);
  // By hand: the compiler would turn malloc and memset into a call of calloc.
  for (volatile unsigned char *p = static_cast<unsigned char *>(memory); p != nullptr && bytes > 0; --bytes) *p++ = 0;
  return memory;
}

void free(void *memory) {
  static void (*const real)(void *) = next<void(void *)>("free");
  if (memory != nullptr && counts(__builtin_return_address(0))) ++g_freed;
  real(memory);
}

}  // extern "C"

using namespace operands;

namespace {

struct Counted {
  attend_status status;
  int allocations, kept;
  uint64_t bytes;
};

// run(), while its allocations number from..to-1 fail.
template <class Run>
Counted counted(const Run &run, int from = 0, int to = 0) {
  g_allocations = g_granted = g_freed = 0;
  g_bytes = 0;
  g_from = from;
  g_to = to;
  g_counting = true;
  const attend_status status = run();
  g_counting = false;
  return {status, g_allocations, g_granted - g_freed, g_bytes};
}

// A call that can be repeated, and the memory it writes.
struct Case {
  std::string name;
  std::function<attend_status(int32_t threads, void *workspace, uint64_t size)> run;
  std::function<uint64_t(int32_t threads)> workspace;  // none: it takes no workspace
  std::vector<std::pair<void *, size_t>> outputs;

  Bytes memory() const {
    Bytes all;
    for (const auto &[start, size] : outputs) {
      const unsigned char *const bytes = static_cast<const unsigned char *>(start);
      all.insert(all.end(), bytes, bytes + size);
    }
    return all;
  }
  void restore(const Bytes &all) const {
    size_t at = 0;
    for (const auto &[start, size] : outputs) {
      std::memcpy(start, all.data() + at, size);
      at += size;
    }
  }
};

Case of_call(int function, const Layout &layout) {
  const std::shared_ptr<Call> call = make(function, layout);
  Case c = {call->function + " at scale " + std::to_string(layout.scale), {}, {}, {}};
  c.run = [call](int32_t threads, void *workspace, uint64_t size) {
    *call->heads[0].threads = threads;
    call->set_workspace(workspace, size);
    return call->run();
  };
  c.workspace = [call](int32_t threads) { return call->workspace_bytes(threads); };
  for (const Slot &slot : call->slots) {
    if (slot.output) {
      c.outputs.push_back({slot.operand->memory.data(), slot.operand->memory.size() * sizeof(double)});
    }
  }
  return c;
}

// Columns contiguous, or rows.
Case of_softmax(const char *name, int64_t rows, int64_t columns, bool by_rows) {
  struct Softmax {
    std::vector<float> x, y;
    attend_tensor tensors[2];
    attend_softmax_options options = {};
  };
  const auto s = std::make_shared<Softmax>();
  s->options.size = sizeof s->options;
  for (std::vector<float> *memory : {&s->x, &s->y}) {
    for (int64_t i = 0; i < rows * columns; ++i) memory->push_back(static_cast<float>(i * 7919 % 1000) / 100);
    s->tensors[memory == &s->y] = {
        memory->data(), ATTEND_F32, 2, {rows, columns}, {by_rows ? columns : 1, by_rows ? 1 : rows}};
  }
  Case c = {name, {}, {}, {{s->y.data(), s->y.size() * sizeof(float)}}};
  c.run = [s](int32_t threads, void *workspace, uint64_t size) {
    s->options.threads = threads;
    s->options.workspace = workspace;
    s->options.workspace_size = size;
    return attend_softmax(&s->tensors[0], &s->tensors[1], &s->options);
  };
  c.workspace = [s](int32_t threads) {
    uint64_t bytes = 0;
    s->options.threads = threads;
    CHECK(attend_softmax_workspace(&s->tensors[0], &s->tensors[1], &s->options, &bytes) == ATTEND_OK);
    return bytes;
  };
  return c;
}

// Of any types: zeros.
Case of_matmul(const char *name, uint32_t a, uint32_t b, uint32_t to, int64_t m, int64_t n, int64_t k) {
  struct Matmul {
    Bytes memory[3];
    attend_tensor tensors[3];
    attend_matmul_options options = ATTEND_MATMUL_OPTIONS_INIT;
  };
  const auto p = std::make_shared<Matmul>();
  const auto lay = [&](size_t i, uint32_t dtype, int64_t rows, int64_t columns) {
    p->memory[i].resize(static_cast<size_t>(rows * columns) * 4);
    p->tensors[i] = {p->memory[i].data(), dtype, 2, {rows, columns}, {columns, 1}};
  };
  lay(0, a, m, k);
  lay(1, b, k, n);
  lay(2, to, m, n);
  std::fill(p->memory[2].begin(), p->memory[2].end(), static_cast<unsigned char>(77));
  Case c = {name, {}, {}, {{p->memory[2].data(), p->memory[2].size()}}};
  c.run = [p](int32_t threads, void *workspace, uint64_t size) {
    p->options.threads = threads;
    p->options.workspace = workspace;
    p->options.workspace_size = size;
    return attend_matmul(1, &p->tensors[0], &p->tensors[1], 0, &p->tensors[2], &p->options);
  };
  c.workspace = [p](int32_t threads) {
    uint64_t bytes = 0;
    p->options.threads = threads;
    CHECK(attend_matmul_workspace(1, &p->tensors[0], &p->tensors[1], 0, &p->tensors[2], &p->options, &bytes) ==
          ATTEND_OK);
    return bytes;
  };
  return c;
}

template <class T>
Case of_attention(const char *name, int64_t queries, int64_t keys, int64_t heads, int64_t features) {
  const auto call = std::make_shared<Interleaved<T>>(queries, keys, heads, features, true);
  Case c = {name, {}, {}, {{call->out.data(), call->out.size() * sizeof(T)}}};
  c.run = [call](int32_t threads, void *workspace, uint64_t size) {
    call->options.threads = threads;
    call->options.workspace = workspace;
    call->options.workspace_size = size;
    return call->run();
  };
  c.workspace = [call](int32_t threads) {
    call->options.threads = threads;
    return call->workspace_bytes();
  };
  return c;
}

Case of_merge() {
  const Layout layout = {ATTEND_F64, 40, true};
  struct Merge {
    Operand a, lse_a, b, lse_b;
    explicit Merge(const Layout &l)
        : a(l, 120, 300, 4, 2), lse_a(l, 1, 300, 4, 2), b(l, 120, 300, 4, 2), lse_b(l, 1, 300, 4, 2) {}
  };
  const auto m = std::make_shared<Merge>(layout);
  Case c = {"attend_attention_merge", {}, {}, {}};
  for (Operand *out : {&m->a, &m->lse_a})
    c.outputs.push_back({out->memory.data(), out->memory.size() * sizeof(double)});
  c.run = [m](int32_t threads, void *, uint64_t) {
    attend_merge_options options = {};
    options.size = sizeof options;
    options.threads = threads;
    return attend_attention_merge(&m->a.view, &m->lse_a.view, &m->b.view, &m->lse_b.view, &options);
  };
  return c;
}

// Slots in falling order, which are sorted.
Case of_append(int64_t tokens) {
  struct Append {
    std::vector<float> k, cache;
    std::vector<int64_t> slots;
    attend_tensor tensors[2];
    attend_kv_append_options options = ATTEND_KV_APPEND_OPTIONS_INIT;
  };
  const auto a = std::make_shared<Append>();
  const int64_t d = 40;
  a->k.assign(static_cast<size_t>(d * tokens), 3.0f);
  a->cache.assign(a->k.size(), 4.0f);
  for (int64_t t = tokens; t > 0; --t) a->slots.push_back(t - 1);
  a->tensors[0] = {a->k.data(), ATTEND_F32, 2, {d, tokens}, {1, d}};
  a->tensors[1] = {a->cache.data(), ATTEND_F32, 2, {d, tokens}, {1, d}};
  a->options.slots = a->slots.data();
  Case c = {"append to slots", {}, {}, {{a->cache.data(), a->cache.size() * sizeof(float)}}};
  c.run = [a](int32_t threads, void *workspace, uint64_t size) {
    a->options.threads = threads;
    a->options.workspace = workspace;
    a->options.workspace_size = size;
    return attend_kv_append(&a->tensors[0], nullptr, &a->tensors[1], nullptr, &a->options);
  };
  c.workspace = [a](int32_t threads) {
    uint64_t bytes = 0;
    a->options.threads = threads;
    CHECK(attend_kv_append_workspace(&a->tensors[0], nullptr, &a->tensors[1], nullptr, &a->options, &bytes) ==
          ATTEND_OK);
    return bytes;
  };
  return c;
}

// Every computing function, and each way of those that have several.
std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (int f = 0; f < kFunctions; ++f) {
    for (const Layout &layout :
         {Layout{ATTEND_F32, 1, true}, Layout{ATTEND_F32, 40, false}, Layout{ATTEND_F64, 40, true}})
      cases.push_back(of_call(f, layout));
  }
  cases.push_back(of_softmax("softmax by rows", 1000, 200, true));
  cases.push_back(of_softmax("softmax of long columns", 70000, 3, false));
  cases.push_back(of_softmax("softmax larger than caches", 1500, 1500, false));
  cases.push_back(of_attention<float>("attention with split keys", 4, 5000, 1, 64));
  cases.push_back(of_attention<double>("attention with copied keys", 70, 530, 8, 128));
  cases.push_back(of_merge());
  cases.push_back(of_append(3000));
  cases.push_back(of_matmul("matmul of bf16", ATTEND_BF16, ATTEND_BF16, ATTEND_BF16, 150, 170, 90));
  cases.push_back(of_matmul("matmul of integers", ATTEND_U8, ATTEND_I8, ATTEND_I32, 150, 170, 90));
  cases.push_back(of_matmul("matmul of weights of 8 bits", ATTEND_I8, ATTEND_F32, ATTEND_BF16, 150, 170, 90));
  return cases;
}

}  // namespace

TEST_CASE("with a workspace, or where a few KiB suffice, nothing is allocated; nothing is kept") {
  int allocating = 0;
  for (const Case &c : all_cases()) {
    INFO(c.name);
    for (const int32_t threads : {1, 4}) {
      const Counted own = counted([&] { return c.run(threads, nullptr, 0); });
      CHECK(own.status == ATTEND_OK);
      CHECK(own.allocations <= 1);
      CHECK(own.kept == 0);
      allocating += own.allocations;
      if (!c.workspace) {
        CHECK(own.allocations == 0);
        continue;
      }
      Bytes workspace(c.workspace(threads) + 1);
      const Counted given = counted([&] { return c.run(threads, workspace.data(), workspace.size()); });
      CHECK(given.status == ATTEND_OK);
      CHECK(given.allocations == 0);
    }
  }
  CHECK(allocating >= 12);  // that the count counts
}

TEST_CASE("every allocation may fail: a status and nothing written, or fewer threads and the same bits") {
  int refused = 0, without = 0, without_copies = 0;
  for (const Case &c : all_cases()) {
    INFO(c.name);
    const Bytes before = c.memory();
    REQUIRE(c.run(1, nullptr, 0) == ATTEND_OK);
    const Bytes expected = c.memory();
    CHECK(expected != before);
    for (const int32_t threads : {1, 4}) {
      // The number-th alone, and all from it on.
      for (const bool alone : {true, false}) {
        bool reached = true;
        for (int number = 0; reached; ++number) {
          INFO("threads " << threads << " allocation " << number << (alone ? " alone" : " and all behind it"));
          c.restore(before);
          const Counted run = counted([&] { return c.run(threads, nullptr, 0); }, number, alone ? number + 1 : INT_MAX);
          reached = run.allocations > number;
          CHECK(run.kept == 0);
          CHECK((run.status == ATTEND_OK || run.status == ATTEND_OUT_OF_MEMORY));
          CHECK(c.memory() == (run.status == ATTEND_OK ? expected : before));
          if (run.status != ATTEND_OK) ++refused;
          if (reached && run.status == ATTEND_OK) ++(threads == 1 ? without_copies : without);
          // One thread asks once, or again without what only makes it faster; several ask again for one.
          CHECK(run.allocations <= 2);
          if (!reached) CHECK(run.status == ATTEND_OK);
        }
      }
    }
    c.restore(before);
  }
  CHECK(refused >= 24);
  CHECK(without_copies >= 1);
  // A library without OpenMP has no threads to do without, only copies.
  REQUIRE(attend_set_threads(4) == ATTEND_OK);
  CHECK(without >= (attend_threads() == 4 ? 4 : 1));
  attend_set_threads(0);
}

TEST_CASE("attention allocates once, at any length, 256 KiB for a thread or, if blocks may be wide, 1 MiB at most") {
  for (const int64_t items : {300, 1000, 5000}) {
    for (const int64_t heads : {1, 4}) {
      Interleaved<float> call(items, items, heads, 128, true);
      const Counted own = counted([&] { return call.run(); });
      CHECK(own.status == ATTEND_OK);
      CHECK(own.allocations == 1);
      const bool may_be_wide = heads > 1 || items >= 2048;  // keys and values of 2 MiB
      CHECK(own.bytes <= static_cast<uint64_t>(may_be_wide ? 1024 : 256) * 1024 + 63);
    }
  }
}

TEST_CASE("what asks the system for the number of threads does without memory") {
  g_everyone = true;
  int most = 0;
  for (int number = 0; number < 20; ++number) {
    const Counted run = counted(
        [] {
          const int threads = attend::default_threads(4);
          attend::is_forked("");
          return static_cast<attend_status>(threads);
        },
        number, INT_MAX);
    most = std::max(most, run.allocations);
    CHECK(run.kept == 0);
    CHECK(run.status >= 1);
    CHECK(run.status <= 4);
  }
  g_everyone = false;
  CHECK(most > 0);  // reading files takes memory
}
#endif
