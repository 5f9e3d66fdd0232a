// What the header promises about memory: sizes that suffice and depend on nothing, and no allocation besides.
#include <dlfcn.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>

#include "operands.hpp"

// The allocator of the whole program, counted and made to fail while a test asks for it. Sanitizers bring an allocator
// of their own.
#if !defined(__SANITIZE_ADDRESS__)
#define ATTEND_TEST_COUNTS_ALLOCATIONS 1

namespace {

std::atomic<bool> g_counting{false};
std::atomic<int> g_allocations{0};
std::atomic<int> g_failures{0};  // so many of the counted ones fail, the first of them

// Counts an allocation and says whether it may succeed.
bool granted() {
  if (!g_counting.load(std::memory_order_relaxed)) return true;
  return g_allocations.fetch_add(1, std::memory_order_relaxed) >= g_failures.load(std::memory_order_relaxed);
}

template <class Function>
Function *next(const char *name) {
  return reinterpret_cast<Function *>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

void *malloc(size_t size) {
  static void *(*const real)(size_t) = next<void *(size_t)>("malloc");
  return granted() ? real(size) : nullptr;
}

void *realloc(void *memory, size_t size) {
  static void *(*const real)(void *, size_t) = next<void *(void *, size_t)>("realloc");
  return granted() ? real(memory, size) : nullptr;
}

void *aligned_alloc(size_t alignment, size_t size) {
  static void *(*const real)(size_t, size_t) = next<void *(size_t, size_t)>("aligned_alloc");
  return granted() ? real(alignment, size) : nullptr;
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
  static int (*const real)(void **, size_t, size_t) = next<int(void **, size_t, size_t)>("posix_memalign");
  return granted() ? real(memory, alignment, size) : ENOMEM;
}

// Of malloc, since dlsym may call calloc itself.
void *calloc(size_t number, size_t size) {
  size_t bytes = 0;
  if (__builtin_mul_overflow(number, size, &bytes)) return nullptr;
  void *const memory = malloc(bytes);
  // By hand: the compiler would turn malloc and memset into a call of calloc.
  for (volatile unsigned char *p = static_cast<unsigned char *>(memory); p != nullptr && bytes > 0; --bytes) *p++ = 0;
  return memory;
}

}  // extern "C"
#endif

using namespace operands;

namespace {

constexpr uint64_t kSlack = 63;  // what the sizes contain for aligning the start
constexpr unsigned char kGuard = 0xa5;

const Layout kLayouts[] = {{ATTEND_F32, 1, true}, {ATTEND_F32, 40, false}, {ATTEND_F64, 40, true}};

void for_each_call(const std::function<void(Call &)> &test) {
  for (int f = 0; f < kFunctions; ++f) {
    for (const Layout &layout : kLayouts) {
      const auto call = make(f, layout);
      INFO(call->function << " dtype " << layout.dtype << " scale " << layout.scale);
      test(*call);
    }
  }
}

// A workspace with guards around it, `offset` bytes past a 64-byte boundary.
class Guarded {
 public:
  Guarded(uint64_t size, uint64_t offset) : size_(size), memory_(size + 4 * kSlack + 4, kGuard) {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(memory_.data());
    start_ = (begin + kSlack) / (kSlack + 1) * (kSlack + 1) + offset - begin;
  }
  void *start() { return memory_.data() + start_; }
  bool intact() const {
    for (uint64_t i = 0; i < memory_.size(); ++i) {
      if ((i < start_ || i >= start_ + size_) && memory_[i] != kGuard) return false;
    }
    return true;
  }

 private:
  uint64_t size_, start_ = 0;
  Bytes memory_;
};

Bytes result_without_workspace(Call &call) {
  call.set_workspace(nullptr, 0);
  CHECK(call.run() == ATTEND_OK);
  return call.memory(true);
}

void clear_outputs(Call &call) {
  for (Slot &slot : call.slots) {
    if (slot.output) std::memset(slot.operand->memory.data(), 0, slot.operand->memory.size() * sizeof(double));
  }
}

}  // namespace

TEST_CASE("the reported size suffices, at any alignment, for the same bits") {
  for_each_call([](Call &call) {
    clear_outputs(call);
    const Bytes expected = result_without_workspace(call);
    for (const int32_t threads : {0, 1, 2, 4}) {
      for (const uint64_t offset : {0u, 1u, 4u, 63u}) {
        INFO("threads " << threads << " offset " << offset);
        const uint64_t size = call.workspace_bytes(threads);
        Guarded workspace(size, offset);
        *call.heads[0].threads = threads;
        call.set_workspace(workspace.start(), size);
        clear_outputs(call);
        CHECK(call.run() == ATTEND_OK);
        CHECK(workspace.intact());
        CHECK(call.memory(true) == expected);
      }
    }
  });
}

TEST_CASE("the size for one thread suffices when more are asked for") {
  for_each_call([](Call &call) {
    clear_outputs(call);
    const Bytes expected = result_without_workspace(call);
    const uint64_t size = call.workspace_bytes(1);
    for (const uint64_t more : {0u, 1u, 1000u}) {
      Guarded workspace(size + more, 1);
      *call.heads[0].threads = 4;
      call.set_workspace(workspace.start(), size + more);
      clear_outputs(call);
      CHECK(call.run() == ATTEND_OK);
      CHECK(workspace.intact());
      CHECK(call.memory(true) == expected);
    }
  });
}

TEST_CASE("a byte less is too small, and says so") {
  int sized = 0;
  for_each_call([&sized](Call &call) {
    const uint64_t size = call.workspace_bytes(1);
    if (size == 0) return;
    ++sized;
    for (const int32_t threads : {0, 1, 4}) {
      *call.heads[0].threads = threads;
      for (const uint64_t given : {size - kSlack - 1, uint64_t{1}, uint64_t{0}}) {
        Guarded workspace(size, 0);
        call.set_workspace(workspace.start(), given);
        expect_failure(call, ATTEND_WORKSPACE_TOO_SMALL, "options.workspace_size", Twin::accepts);
      }
      Guarded workspace(size, 1);
      call.set_workspace(workspace.start(), size - 1);
      expect_failure(call, ATTEND_WORKSPACE_TOO_SMALL, "options.workspace_size", Twin::accepts);
    }
  });
  CHECK(sized >= 3 * 3);  // all but softmax
}

TEST_CASE("sizes depend on the arguments alone") {
  for_each_call([](Call &call) {
    const uint64_t one = call.workspace_bytes(1), any = call.workspace_bytes(0);
    CHECK(one <= any);
    CHECK(call.workspace_bytes(64) == any);
    for (int32_t i = 0; const char *name = attend_isa_name(i); ++i) {
      CHECK(attend_set_isa(name) == ATTEND_OK);
      for (const int32_t threads : {1, 3, 1000}) {
        CHECK(attend_set_threads(threads) == ATTEND_OK);
        CHECK(call.workspace_bytes(1) == one);
        CHECK(call.workspace_bytes(0) == any);
      }
    }
    CHECK(attend_set_isa(nullptr) == ATTEND_OK);
    CHECK(attend_set_threads(0) == ATTEND_OK);
    for (Slot &slot : call.slots) slot.operand->view.data = nullptr;
    CHECK(call.workspace_bytes(1) == one);
    CHECK(call.workspace_bytes(0) == any);
  });
}

#if defined(ATTEND_TEST_COUNTS_ALLOCATIONS)
namespace {

struct Counted {
  attend_status status;
  int allocations;
};

// The call, while its first `failures` allocations fail.
Counted counted_run(const Call &call, int failures = 0) {
  g_allocations = 0;
  g_failures = failures;
  g_counting = true;
  const attend_status status = call.run();
  g_counting = false;
  return {status, g_allocations.load()};
}

}  // namespace

TEST_CASE("with a workspace and one thread nothing is allocated") {
  // That the count counts: without a workspace the larger calls do allocate.
  int allocations = 0;
  for_each_call([&allocations](Call &call) {
    *call.heads[0].threads = 1;
    allocations += counted_run(call).allocations;
    const uint64_t size = call.workspace_bytes(1);
    Guarded workspace(size, 1);
    call.set_workspace(workspace.start(), size);
    const Counted given = counted_run(call);
    CHECK(given.status == ATTEND_OK);
    CHECK(given.allocations == 0);
  });
  CHECK(allocations > 0);
}

TEST_CASE("memory that the system refuses is a status, or fewer threads") {
  int refused = 0, fewer = 0;
  for_each_call([&](Call &call) {
    clear_outputs(call);
    const Bytes expected = result_without_workspace(call);
    *call.heads[0].threads = 1;
    if (counted_run(call).allocations == 0) return;
    ++refused;
    clear_outputs(call);
    const Bytes before = call.memory();
    // One thread asks once; several ask again for the memory of one.
    CHECK(counted_run(call, 1).status == ATTEND_OUT_OF_MEMORY);
    CHECK(call.memory() == before);
    *call.heads[0].threads = 4;
    CHECK(counted_run(call, 2).status == ATTEND_OUT_OF_MEMORY);
    CHECK(call.memory() == before);
    const Counted second = counted_run(call, 1);
    if (second.allocations == 1) {  // too small a problem for several
      CHECK(second.status == ATTEND_OUT_OF_MEMORY);
    } else {
      ++fewer;
      CHECK(second.status == ATTEND_OK);
      CHECK(call.memory(true) == expected);
    }
  });
  CHECK(refused >= 4);  // attention and self-attention of the larger layouts
  CHECK(attend_set_threads(2) == ATTEND_OK);
  if (attend_threads() == 2) CHECK(fewer >= 4);  // built with OpenMP
  CHECK(attend_set_threads(0) == ATTEND_OK);
}
#endif
