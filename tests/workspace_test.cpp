// What the header promises about memory: sizes that suffice and depend on nothing. What is allocated besides:
// allocation_test.cpp.
#include "interleaved.hpp"
#include "operands.hpp"
#include "support.hpp"

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
    const auto guards = [](unsigned char byte) { return byte == kGuard; };
    const unsigned char *const begin = memory_.data(), *const end = begin + memory_.size();
    return std::all_of(begin, begin + start_, guards) && std::all_of(begin + start_ + size_, end, guards);
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
      constexpr uint64_t kOffsets[] = {1, 63, 0, 4};
      for (int i = 0, count = attend::test::rounds(4, 4); i < count; ++i) {
        const uint64_t offset = kOffsets[i];
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
    for (const int32_t threads : {2, 4}) {
      for (const uint64_t more : {0u, 1u, 1000u}) {
        Guarded workspace(size + more, 1);
        *call.heads[0].threads = threads;
        call.set_workspace(workspace.start(), size + more);
        clear_outputs(call);
        CHECK(call.run() == ATTEND_OK);
        CHECK(workspace.intact());
        CHECK(call.memory(true) == expected);
      }
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

namespace {

constexpr uint64_t kShare = 256 * 1024;

}  // namespace

TEST_CASE_TEMPLATE("attention: at most 256 KiB and copies for a thread, whatever the length and the strides", T, float,
                   double) {
  for (const int64_t features : {1, 32, 64, 100, 128}) {
    for (const int64_t heads : {1, 8, 16, 64}) {
      for (const int64_t queries : {1, 16, 17, 64, 100000}) {
        for (const int64_t keys : {1, 300, 2048, 1 << 20}) {
          INFO(features << " features, " << heads << " heads, " << queries << " queries, " << keys << " keys");
          // Copies of a chunk of keys and values, where heads lie side by side.
          const uint64_t copies = heads > 1 ? 256 * 2 * static_cast<uint64_t>(features) * 4 : 0;
          CHECK(Interleaved<T>(queries, keys, heads, features, false).workspace_bytes() <= kShare + copies + kSlack);
        }
      }
    }
  }
}

TEST_CASE_TEMPLATE("attention: the bits of keys read in place and of copied ones are equal", T, float, double) {
  Interleaved<T> call(70, 530, 8, 128, true);
  REQUIRE(call.run() == ATTEND_OK);
  const std::vector<T> expected = call.out;
  // Half a share is enough to read them in place, four for copies.
  for (const uint64_t bytes : {kShare / 2, call.workspace_bytes(), 4 * kShare}) {
    Guarded workspace(bytes, 1);
    call.options.workspace = workspace.start();
    call.options.workspace_size = bytes;
    call.out.assign(call.out.size(), T(0));
    CHECK(call.run() == ATTEND_OK);
    CHECK(workspace.intact());
    CHECK(std::memcmp(call.out.data(), expected.data(), expected.size() * sizeof(T)) == 0);
  }
}

TEST_CASE("sizes do not overflow") {
  // Inputs with a stride of 0 have as many elements as they say; and a column may be as long as addresses allow.
  const int64_t huge = int64_t{1} << 60;
  float data[4] = {};
  attend_attention_options options = {};
  options.size = sizeof options;
  const attend_tensor q = {data, ATTEND_F32, 3, {2, 1, 1 << 20, 0}, {1, 2, 2, 0}},
                      k = {data, ATTEND_F32, 3, {2, huge, 1, 0}, {1, 0, 0, 0}};
  attend_tensor out = q;
  out.data = nullptr;
  uint64_t one = 0, any = 0;
  options.threads = 1;
  CHECK(attend_attention_workspace(&q, &k, &k, &out, &options, &one) == ATTEND_OK);
  options.threads = 0;
  CHECK(attend_attention_workspace(&q, &k, &k, &out, &options, &any) == ATTEND_OK);
  CHECK(one > 0);
  CHECK(one <= kShare);
  CHECK(any >= 63 * (one - kSlack));
  for (const int64_t columns : {1, 3}) {
    for (const bool by_rows : {false, true}) {
      const int64_t rows = huge / 4 / columns;
      const attend_tensor x = {
          nullptr, ATTEND_F32, 2, {rows, columns, 0, 0}, {by_rows ? columns : 1, by_rows ? 1 : rows, 0, 0}};
      uint64_t bytes = 0;
      CHECK(attend_softmax_workspace(&x, &x, nullptr, &bytes) == ATTEND_OK);
      CHECK(bytes <= (uint64_t{1} << 62));
    }
  }
}
