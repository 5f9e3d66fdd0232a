// What the two attention functions do with operands that are wrong in ways of their own, and what they accept.
#include <cmath>
#include <limits>

#include "operands.hpp"

using namespace operands;

namespace {

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
constexpr size_t kRows = 0, kColumns = 1, kHeads = 2, kBatch = 3;

float *floats(const Operand &operand) { return static_cast<float *>(operand.view.data); }

// A view of the elements from `first` on of someone else's memory.
attend_tensor part(void *memory, int64_t first, const int64_t (&shape)[4], const int64_t (&stride)[4]) {
  attend_tensor view = {static_cast<float *>(memory) + first, ATTEND_F32, 4, {}, {}};
  std::memcpy(view.shape, shape, sizeof shape);
  std::memcpy(view.stride, stride, sizeof stride);
  return view;
}

}  // namespace

TEST_CASE("heads that do not divide") {
  for (const int64_t kv_heads : {int64_t{3}, int64_t{0}}) {
    AttentionCall call;
    call.k.view.shape[2] = call.v.view.shape[2] = kv_heads;
    expect_failure(call, ATTEND_INVALID_SHAPE, "k");
    SelfAttentionCall self;
    for (Operand *o : {&self.w_k, &self.w_v, &self.b_k, &self.b_v}) o->view.shape[2] = kv_heads;
    expect_failure(self, ATTEND_INVALID_SHAPE, "weights.w_k");
  }
  AttentionCall fewer;
  for (Operand *o : {&fewer.q, &fewer.out, &fewer.lse, &fewer.scores}) o->view.shape[2] = 1;
  expect_failure(fewer, ATTEND_INVALID_SHAPE, "k");
}

TEST_CASE("no features") {
  AttentionCall call;
  call.q.view.shape[0] = call.k.view.shape[0] = 0;
  expect_failure(call, ATTEND_INVALID_SHAPE, "q");

  SelfAttentionCall heads;
  heads.w_q.view.shape[0] = heads.w_k.view.shape[0] = heads.b_q.view.shape[0] = heads.b_k.view.shape[0] = 0;
  expect_failure(heads, ATTEND_INVALID_SHAPE, "weights.w_q");

  SelfAttentionCall none;
  none.w_q.view.shape[2] = none.b_q.view.shape[2] = 0;
  expect_failure(none, ATTEND_INVALID_SHAPE, "weights.w_q");

  SelfAttentionCall inputs;
  for (Operand *o : {&inputs.w_q, &inputs.w_k, &inputs.w_v}) o->view.shape[1] = 0;
  inputs.x.view.shape[0] = 0;
  expect_failure(inputs, ATTEND_INVALID_SHAPE, "x");
}

TEST_CASE("extents that only a stride of 0 makes possible") {
  // The sizes of the workspace must not overflow where the operands themselves span little.
  AttentionCall call;
  for (Operand *o : {&call.q, &call.k}) o->view = {o->view.data, ATTEND_F32, 1, {kMost, 1, 1, 1}, {}};
  for (Operand *o : {&call.v, &call.out}) o->view = {o->view.data, ATTEND_F32, 1, {1, 1, 1, 1}, {}};
  call.options.value.lse = call.options.value.scores = nullptr;
  uint64_t bytes = 12345;
  CHECK(ATTEND_REASON(call.workspace(&bytes)) == ATTEND_OVERFLOW);
  CHECK(bytes == 12345);

  SelfAttentionCall self;
  for (const int64_t rows : {kMost, kMost / 128}) {
    self.x.view.rank = self.out.view.rank = self.w_v.view.rank = 1;
    self.x.view.shape[0] = self.out.view.shape[0] = self.w_v.view.shape[0] = 1;
    for (Operand *o : {&self.w_q, &self.w_k}) o->view = {o->view.data, ATTEND_F32, 1, {rows, 1, 1, 1}, {}};
    for (const char *name : {"weights.b_q", "weights.b_k", "weights.b_v", "weights.b_o", "weights.w_o",
                             "attention_options.lse", "attention_options.scores"}) {
      *self.slot(name).passed = nullptr;
    }
    INFO("rows " << rows);
    bytes = 12345;
    CHECK(ATTEND_REASON(self.workspace(&bytes)) == ATTEND_OVERFLOW);
    CHECK(bytes == 12345);
  }
}

// Operands that fit by themselves, but what has to be computed of them does not.
TEST_CASE("sizes of the workspace that overflow") {
  const auto expect_overflow = [](const Call &call, const char *argument) {
    uint64_t bytes = 12345;
    const attend_status status = call.workspace(&bytes);
    CHECK(ATTEND_REASON(status) == ATTEND_OVERFLOW);
    CHECK(std::string(attend_status_argument(status)) == argument);
    CHECK(bytes == 12345);
  };
  const auto vector_of = [](int64_t rows) {
    return attend_tensor{nullptr, ATTEND_F32, 1, {rows, 1, 1, 1}, {1, 0, 0, 0}};
  };
  constexpr int64_t kTooMany = int64_t{1} << 31;
  AttentionCall values;
  values.q.view = values.k.view = vector_of(1);
  values.v.view = values.out.view = vector_of(kTooMany);
  values.options.value.lse = values.options.value.scores = nullptr;
  expect_overflow(values, "out");

  const auto one_head = [&](SelfAttentionCall &self) {
    for (Operand *o : {&self.x, &self.w_q, &self.w_k, &self.w_v, &self.w_o, &self.out}) o->view = vector_of(1);
    self.weights.b_q = self.weights.b_k = self.weights.b_v = self.weights.b_o = nullptr;
    self.attention_options.value.lse = self.attention_options.value.scores = nullptr;
  };
  SelfAttentionCall self_values;
  one_head(self_values);
  self_values.w_v.view = vector_of(kTooMany);
  self_values.w_o.view = {nullptr, ATTEND_F32, 2, {1, kTooMany, 1, 1}, {1, 1, 0, 0}};
  expect_overflow(self_values, "weights.w_v");

  // Q alone has 2^30 features times 2^33 items, over one batch or over 2^3.
  for (const int64_t batch : {1, 8}) {
    SelfAttentionCall items;
    one_head(items);
    items.w_q.view = items.w_k.view = vector_of(int64_t{1} << 30);
    const int64_t n = (int64_t{1} << 33) / batch;
    items.x.view = {nullptr, ATTEND_F32, 4, {1, n, 1, batch}, {1, 0, 0, 0}};
    items.out.view = {nullptr, ATTEND_F32, 4, {1, n, 1, batch}, {1, 1, 0, n}};
    INFO("batch " << batch);
    expect_overflow(items, "x");
  }
}

TEST_CASE("self-attention: weights") {
  SelfAttentionCall null;
  null.pweights = nullptr;
  expect_failure(null, ATTEND_NULL_POINTER, "weights");

  SelfAttentionCall reserved;
  reserved.weights.reserved = 1;
  expect_failure(reserved, ATTEND_INVALID_VALUE, "weights.reserved");

  SelfAttentionCall size;
  struct {
    attend_self_attention_weights weights;
    unsigned char tail[8];
  } longer = {size.weights, {}};
  size.pweights = &longer.weights;
  for (const uint32_t wrong : {0u, 4u, static_cast<uint32_t>(sizeof longer.weights) - 8}) {
    longer.weights.size = wrong;
    expect_failure(size, ATTEND_INVALID_STRUCT_SIZE, "weights.size");
  }
  longer.weights.size = sizeof longer;
  expect_success(size);
  longer.tail[7] = 1;
  expect_failure(size, ATTEND_INVALID_STRUCT_SIZE, "weights.size");

  SelfAttentionCall bias_only;
  bias_only.weights.w_o = nullptr;
  Operand heads({}, 3, 6, 4, 2);
  bias_only.pout = &heads.view;
  expect_failure(bias_only, ATTEND_INVALID_VALUE, "weights.b_o");
  bias_only.weights.b_o = nullptr;
  expect_success(bias_only);

  SelfAttentionCall several;
  several.x.view.shape[2] = 2;
  expect_failure(several, ATTEND_INVALID_SHAPE, "x");
}

TEST_CASE("self-attention: attention_options has no threads or workspace") {
  SelfAttentionCall threads;
  threads.attention_options.value.threads = 1;
  expect_failure(threads, ATTEND_INVALID_VALUE, "attention_options.threads");

  unsigned char memory[64];
  for (const uint64_t size : {uint64_t{0}, uint64_t{sizeof memory}}) {
    SelfAttentionCall workspace;
    workspace.attention_options.value.workspace = memory;
    workspace.attention_options.value.workspace_size = size;
    expect_failure(workspace, ATTEND_INVALID_VALUE, "attention_options.workspace", Twin::unspecified);
  }
}

TEST_CASE("empty outputs") {
  for (const size_t d : {kColumns, kHeads, kBatch}) {
    INFO("dimension " << d);
    AttentionCall call;
    for (Slot &slot : call.slots) {
      if (d == kColumns && (slot.name == "k" || slot.name == "v")) continue;
      slot.operand->view.shape[d] = 0;
      slot.operand->view.data = nullptr;
    }
    const Bytes before = call.memory();
    expect_success(call);
    CHECK(call.memory() == before);
  }
  for (const size_t d : {kColumns, kBatch}) {
    INFO("self-attention, dimension " << d);
    SelfAttentionCall self;
    for (Operand *o : {&self.x, &self.out, &self.lse, &self.scores}) {
      o->view.shape[d] = 0;
      o->view.data = nullptr;
    }
    self.scores.view.shape[kRows] = self.x.view.shape[kColumns];
    const Bytes before = self.memory();
    expect_success(self);
    CHECK(self.memory() == before);
  }
}

TEST_CASE("no keys") {
  AttentionCall call;
  call.k.view.shape[1] = call.v.view.shape[1] = call.scores.view.shape[0] = 0;
  call.k.view.data = call.v.view.data = call.scores.view.data = nullptr;
  expect_success(call);
  const attend_tensor &out = call.out.view, &lse = call.lse.view;
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t h = 0; h < 4; ++h) {
      for (int64_t n = 0; n < 6; ++n) {
        const int64_t column = n * out.stride[1] + h * out.stride[2] + b * out.stride[3];
        for (int64_t row = 0; row < 3; ++row) CHECK(floats(call.out)[row + column] == 0);
        CHECK(floats(call.lse)[n * lse.stride[1] + h * lse.stride[2] + b * lse.stride[3]] == -HUGE_VALF);
      }
    }
  }
}

TEST_CASE("Q, K and V side by side in one buffer, and O between other data") {
  // [N, 3, H, D] and [N, 2, H, D] arrays, D contiguous.
  constexpr int64_t d = 4, h = 2, n = 6;
  Operand packed({}, d, 3 * h, n, 1), result({}, d, 2 * h, n, 1);
  const int64_t shape[4] = {d, n, h, 1};
  const int64_t item = packed.view.stride[2], head = packed.view.stride[1], item_out = result.view.stride[2];
  const int64_t stride[4] = {1, item, head, 0}, stride_out[4] = {1, item_out, head, 0};
  AttentionCall call;
  call.options.value.lse = call.options.value.scores = nullptr;
  const attend_tensor q = part(packed.view.data, 0, shape, stride), k = part(packed.view.data, h * head, shape, stride),
                      v = part(packed.view.data, 2 * h * head, shape, stride),
                      out = part(result.view.data, h * head, shape, stride_out);
  call.pq = &q;
  call.pk = &k;
  call.pv = &v;
  call.pout = &out;
  const Bytes before = packed.bytes();
  expect_success(call);
  CHECK(packed.bytes() == before);

  // The same from operands of their own.
  const Layout dense = {ATTEND_F32, 1, false};
  Operand q2(dense, d, n, h, 1), k2(dense, d, n, h, 1), v2(dense, d, n, h, 1), out2(dense, d, n, h, 1);
  const auto each_column = [&](const auto &copy) {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < h; ++j) copy((j * n + i) * d, i, j);
    }
  };
  each_column([&](int64_t to, int64_t i, int64_t j) {
    const float *from = floats(packed) + i * item + j * head;
    std::memcpy(floats(q2) + to, from, d * sizeof(float));
    std::memcpy(floats(k2) + to, from + h * head, d * sizeof(float));
    std::memcpy(floats(v2) + to, from + 2 * h * head, d * sizeof(float));
  });
  call.pq = &q2.view;
  call.pk = &k2.view;
  call.pv = &v2.view;
  call.pout = &out2.view;
  expect_success(call);
  each_column([&](int64_t at, int64_t i, int64_t j) {
    const float *column = floats(result) + h * head + i * item_out + j * head;
    CHECK(std::memcmp(column, floats(out2) + at, d * sizeof(float)) == 0);
  });
}

TEST_CASE("no value features: out is empty, lse and scores are not") {
  AttentionCall values;
  values.v.view.shape[kRows] = values.out.view.shape[kRows] = 0;
  AttentionCall full;
  expect_success(values);
  expect_success(full);
  CHECK(values.lse.bytes() == full.lse.bytes());
  CHECK(values.scores.bytes() == full.scores.bytes());
}
