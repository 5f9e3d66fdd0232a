// Packed sequences and pages that are wrong: a status before anything is written.
#include "operands.hpp"

using namespace operands;

namespace {

// Six columns of queries, seven of keys, of two sequences.
struct PackedCall : AttentionCall {
  int64_t query_starts[3] = {0, 2, 6}, key_starts[3] = {0, 7, 7};

  PackedCall() {
    for (Operand *o : {&q, &k, &v, &out, &lse}) o->view.shape[3] = 1;
    options.value.scores = nullptr;
    options.value.sequences = 2;
    options.value.query_starts = query_starts;
    options.value.key_starts = key_starts;
  }
};

// Two pages of seven keys, of which either batch has up to two.
struct PagedCall : AttentionCall {
  int32_t entries[4] = {1, 0, 0, -9};
  int64_t lengths[2] = {9, 7};
  attend_tensor pages = {entries, ATTEND_I32, 2, {2, 2, 0, 0}, {1, 2, 0, 0}};

  PagedCall() {
    options.value.scores = nullptr;
    options.value.pages = &pages;
    options.value.kv_lengths = lengths;
  }
};

}  // namespace

TEST_CASE("packed sequences") {
  expect_success(PackedCall());
  expect_success(PagedCall());
  const auto wrong = [](int reason, const char *argument, Twin twin, const std::function<void(PackedCall &)> &spoil) {
    PackedCall call;
    spoil(call);
    expect_failure(call, reason, argument, twin);
  };
  const auto contents = [&](const char *argument, const std::function<void(PackedCall &)> &spoil) {
    wrong(ATTEND_INVALID_VALUE, argument, Twin::accepts, spoil);
  };
  contents("options.query_starts", [](PackedCall &c) { c.query_starts[0] = 1; });
  contents("options.query_starts", [](PackedCall &c) { c.query_starts[0] = -1; });
  contents("options.query_starts", [](PackedCall &c) { c.query_starts[1] = 7; });
  contents("options.query_starts", [](PackedCall &c) { c.query_starts[1] = INT64_MIN; });
  contents("options.query_starts", [](PackedCall &c) { c.query_starts[2] = 5; });
  contents("options.query_starts", [](PackedCall &c) { c.query_starts[2] = 7; });
  contents("options.key_starts", [](PackedCall &c) { c.key_starts[0] = 1; });
  contents("options.key_starts", [](PackedCall &c) { c.key_starts[1] = 8; });
  contents("options.key_starts", [](PackedCall &c) { c.key_starts[2] = 6; });
  // Lengths are those of each sequence.
  static int64_t numbers[2];
  const auto lengths = [](PackedCall &c, int64_t first, int64_t second) {
    numbers[0] = first, numbers[1] = second;
    c.options.value.kv_lengths = numbers;
  };
  contents("options.kv_lengths", [&](PackedCall &c) { lengths(c, 8, 0); });
  contents("options.kv_lengths", [&](PackedCall &c) { lengths(c, 7, 1); });
  contents("options.kv_lengths", [&](PackedCall &c) { lengths(c, -1, 0); });
  contents("options.kv_first", [&](PackedCall &c) {
    numbers[0] = 0, numbers[1] = 1;
    c.options.value.kv_first = numbers;
  });

  const auto options = [&](int reason, const char *argument, const std::function<void(PackedCall &)> &spoil) {
    wrong(reason, argument, Twin::agrees, spoil);
  };
  options(ATTEND_INVALID_VALUE, "options.sequences", [](PackedCall &c) { c.options.value.sequences = 0; });
  options(ATTEND_INVALID_VALUE, "options.sequences", [](PackedCall &c) { c.options.value.sequences = -2; });
  options(ATTEND_INVALID_VALUE, "options.sequences",
          [](PackedCall &c) { c.options.value.query_starts = c.options.value.key_starts = nullptr; });
  options(ATTEND_UNSUPPORTED, "options.scores", [](PackedCall &c) {
    c.scores.view.shape[3] = 1;
    c.options.value.scores = &c.scores.view;
  });
  options(ATTEND_INVALID_SHAPE, "q", [](PackedCall &c) { c.q.view.shape[3] = 2; });
  options(ATTEND_INVALID_SHAPE, "k", [](PackedCall &c) { c.k.view.shape[3] = 2; });
  options(ATTEND_INVALID_SHAPE, "v", [](PackedCall &c) { c.v.view.shape[3] = 2; });
  options(ATTEND_INVALID_SHAPE, "out", [](PackedCall &c) { c.out.view.shape[3] = 2; });
  options(ATTEND_INVALID_SHAPE, "options.lse", [](PackedCall &c) { c.lse.view.shape[3] = 2; });
  options(ATTEND_INVALID_SHAPE, "q", [](PackedCall &c) {  // three batches for two sequences
    c.options.value.query_starts = nullptr;
    c.q.view.shape[3] = 3, c.q.view.stride[3] = 0;
  });
  wrong(ATTEND_OVERLAP, "out", Twin::accepts, [](PackedCall &c) {
    int64_t *const over = static_cast<int64_t *>(c.out.view.data);
    std::memcpy(over, c.query_starts, sizeof c.query_starts);
    c.options.value.query_starts = over;
  });
}

TEST_CASE("rows of a mask over packed keys") {
  static unsigned char bytes[64];
  for (const int64_t rows : {1, 6, 7, 9}) {
    PackedCall call;
    const attend_tensor mask = {bytes, ATTEND_BOOL, 2, {rows, 6, 0, 0}, {1, rows, 0, 0}};
    call.options.value.mask = &mask;
    if (rows == 6) {
      expect_failure(call, ATTEND_INVALID_SHAPE, "options.mask", Twin::accepts);
    } else {
      expect_success(call);
    }
  }
}

TEST_CASE("pages") {
  const auto wrong = [](int reason, const char *argument, Twin twin, const std::function<void(PagedCall &)> &spoil) {
    PagedCall call;
    spoil(call);
    expect_failure(call, reason, argument, twin);
  };
  const auto contents = [&](const char *argument, const std::function<void(PagedCall &)> &spoil) {
    wrong(ATTEND_INVALID_VALUE, argument, Twin::accepts, spoil);
  };
  contents("options.pages", [](PagedCall &c) { c.entries[0] = 2; });
  contents("options.pages", [](PagedCall &c) { c.entries[1] = -1; });
  contents("options.pages", [](PagedCall &c) { c.entries[2] = INT32_MIN; });
  contents("options.pages", [](PagedCall &c) { c.lengths[1] = 8; });  // the page that nothing needed so far
  contents("options.kv_lengths", [](PagedCall &c) { c.lengths[0] = 15; });
  const auto options = [&](int reason, const char *argument, const std::function<void(PagedCall &)> &spoil) {
    wrong(reason, argument, Twin::agrees, spoil);
  };
  options(ATTEND_NULL_POINTER, "options.kv_lengths", [](PagedCall &c) { c.options.value.kv_lengths = nullptr; });
  options(ATTEND_INVALID_DTYPE, "options.pages", [](PagedCall &c) { c.pages.dtype = ATTEND_F32; });
  options(ATTEND_INVALID_SHAPE, "options.pages", [](PagedCall &c) { c.pages.shape[1] = 1; });
  options(ATTEND_INVALID_SHAPE, "v", [](PagedCall &c) { c.v.view.shape[3] = 1; });
  options(ATTEND_OVERFLOW, "options.pages", [](PagedCall &c) {
    c.pages.shape[0] = INT64_MAX / 32, c.pages.stride[0] = 0;
    c.k.view.shape[1] = c.v.view.shape[1] = 64;
    c.k.view.stride[1] = c.v.view.stride[1] = 0;
  });
  static int64_t starts[] = {0, 7, 7};
  options(ATTEND_INVALID_VALUE, "options.key_starts", [](PagedCall &c) {
    c.options.value.sequences = 2;
    c.options.value.key_starts = starts;
  });
  wrong(ATTEND_OVERLAP, "out", Twin::accepts, [](PagedCall &c) {
    std::memcpy(c.out.view.data, c.entries, sizeof c.entries);
    c.pages.data = c.out.view.data;
  });
  // Entries that no key needs are not read.
  PagedCall unmapped;
  unmapped.lengths[0] = unmapped.lengths[1] = 0;
  unmapped.pages.data = reinterpret_cast<void *>(64);
  expect_success(unmapped);
}

TEST_CASE("scales of features that would differ between pages") {
  PagedCall call;
  static float scales[64];
  for (float &s : scales) s = 1;
  attend_tensor k_scale = {scales, ATTEND_F32, 4, {4, 1, 1, 2}, {1, 0, 0, 4}};
  static uint8_t keys[4096];
  call.k.view = {keys, ATTEND_I8, 4, {4, 7, 2, 2}, {1, 4, 28, 56}};
  call.options.value.k_scale = &k_scale;
  expect_failure(call, ATTEND_INVALID_SHAPE, "options.k_scale");
  k_scale.shape[3] = 1;
  expect_success(call);
}

TEST_CASE("self-attention packs x by query_starts alone") {
  static const int64_t starts[] = {0, 2, 6};
  SelfAttentionCall call;
  for (Operand *o : {&call.x, &call.out, &call.lse}) o->view.shape[3] = 1;
  attend_attention_options &o = call.attention_options.value;
  o.scores = nullptr;
  o.sequences = 2;
  o.query_starts = starts;
  expect_success(call);
  o.key_starts = starts;
  expect_failure(call, ATTEND_INVALID_VALUE, "attention_options.key_starts");
  o.key_starts = nullptr;
  call.x.view.shape[3] = 2;
  expect_failure(call, ATTEND_INVALID_SHAPE, "x");
  call.x.view.shape[3] = 1;
  static const int64_t short_by_one[] = {0, 2, 5};
  o.query_starts = short_by_one;
  expect_failure(call, ATTEND_INVALID_VALUE, "attention_options.query_starts", Twin::accepts);
  SelfAttentionCall paged;
  paged.attention_options.value.pages = &paged.x.view;
  paged.attention_options.value.kv_lengths = starts;
  expect_failure(paged, ATTEND_INVALID_VALUE, "attention_options.pages");
}
