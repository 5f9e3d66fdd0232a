// One valid call of each function, with every pointer and field at hand: tests spoil one thing and look at what comes
// back.
#pragma once

#include "test_call.hpp"

namespace operands {

class MatmulCall : public Call {
 public:
  Operand a, b, c, bias;
  const attend_tensor *pa, *pb, *pc;
  Padded<attend_matmul_options> options;

  explicit MatmulCall(const Layout &l = {})
      : a(l, 3 * l.scale, 4 * l.scale, 2, 2, true),  // packed in the workspace
        b(l, 4 * l.scale, 5 * l.scale, 2, 2),
        c(l, 3 * l.scale, 5 * l.scale, 2, 2),
        bias(l, 3 * l.scale, 5 * l.scale, 2, 2) {
    function = "attend_matmul";
    add("a", a, pa, kInput, kRequired);
    add("b", b, pb, kInput, kRequired);
    add("c", c, pc, kOutput, kRequired);
    add("options.bias", bias, options.value.bias, kInput, kOptional);
    heads = {options.head("options")};
  }
  attend_status run() const override { return attend_matmul(0.5, pa, pb, 0, pc, pointer(options)); }
  attend_status workspace(uint64_t *bytes) const override {
    return attend_matmul_workspace(0.5, pa, pb, 0, pc, pointer(options), bytes);
  }
};

// One small matrix without a bias: the library has a shorter way for it, with checks of its own.
class SmallMatmulCall : public Call {
 public:
  Operand a, b, c;
  const attend_tensor *pa, *pb, *pc;
  Padded<attend_matmul_options> options;

  explicit SmallMatmulCall(const Layout &l = {})
      : a(l, 3 * l.scale, 4 * l.scale, 1, 1),
        b(l, 4 * l.scale, 5 * l.scale, 1, 1),
        c(l, 3 * l.scale, 5 * l.scale, 1, 1) {
    function = "attend_matmul, small";
    add("a", a, pa, kInput, kRequired);
    add("b", b, pb, kInput, kRequired);
    add("c", c, pc, kOutput, kRequired);
    heads = {options.head("options")};
  }
  attend_status run() const override { return attend_matmul(0.5, pa, pb, 0, pc, pointer(options)); }
  attend_status workspace(uint64_t *bytes) const override {
    return attend_matmul_workspace(0.5, pa, pb, 0, pc, pointer(options), bytes);
  }
};

class SoftmaxCall : public Call {
 public:
  Operand x, y, lse;
  const attend_tensor *px, *py;
  Padded<attend_softmax_options> options;

  explicit SoftmaxCall(const Layout &l = {})
      : x(l, 6 * l.scale, 5 * l.scale, 2, 2), y(l, 6 * l.scale, 5 * l.scale, 2, 2), lse(l, 1, 5 * l.scale, 2, 2) {
    function = "attend_softmax";
    add("x", x, px, kInput, kRequired);
    add("y", y, py, kOutput, kRequired);
    add("options.lse", lse, options.value.lse, kOutput, kOptional);
    heads = {options.head("options")};
  }
  attend_status run() const override { return attend_softmax(px, py, pointer(options)); }
  attend_status workspace(uint64_t *bytes) const override {
    return attend_softmax_workspace(px, py, pointer(options), bytes);
  }
};

class AttentionCall : public Call {
 public:
  Operand q, k, v, out, lse, scores;
  const attend_tensor *pq, *pk, *pv, *pout;
  Padded<attend_attention_options> options;

  explicit AttentionCall(const Layout &l = {})
      : q(l, 4 * l.scale, 6 * l.scale, 4, 2),
        k(l, 4 * l.scale, 7 * l.scale, 2, 2),
        v(l, 3 * l.scale, 7 * l.scale, 2, 2),
        out(l, 3 * l.scale, 6 * l.scale, 4, 2),
        lse(l, 1, 6 * l.scale, 4, 2),
        scores(l, 7 * l.scale, 6 * l.scale, 4, 2) {
    function = "attend_attention";
    add("q", q, pq, kInput, kRequired);
    add("k", k, pk, kInput, kRequired);
    add("v", v, pv, kInput, kRequired);
    add("out", out, pout, kOutput, kRequired);
    add("options.lse", lse, options.value.lse, kOutput, kOptional);
    add("options.scores", scores, options.value.scores, kOutput, kOptional);
    heads = {options.head("options")};
  }
  attend_status run() const override { return attend_attention(pq, pk, pv, pout, pointer(options)); }
  attend_status workspace(uint64_t *bytes) const override {
    return attend_attention_workspace(pq, pk, pv, pout, pointer(options), bytes);
  }
};

class SelfAttentionCall : public Call {
 public:
  Operand x, w_q, w_k, w_v, b_q, b_k, b_v, w_o, b_o, out, lse, scores;
  const attend_tensor *px, *pout;
  attend_self_attention_weights weights = {};
  const attend_self_attention_weights *pweights = &weights;
  Padded<attend_self_attention_options> options;
  Padded<attend_attention_options> attention_options;

  explicit SelfAttentionCall(const Layout &l = {})
      : x(l, 5 * l.scale, 6 * l.scale, 1, 2),
        w_q(l, 4 * l.scale, 5 * l.scale, 4, 1),
        w_k(l, 4 * l.scale, 5 * l.scale, 2, 1),
        w_v(l, 3 * l.scale, 5 * l.scale, 2, 1),
        b_q(l, 4 * l.scale, 1, 4, 1),
        b_k(l, 4 * l.scale, 1, 2, 1),
        b_v(l, 3 * l.scale, 1, 2, 1),
        w_o(l, 7 * l.scale, 3 * l.scale, 4, 1),
        b_o(l, 7 * l.scale, 1, 1, 1),
        out(l, 7 * l.scale, 6 * l.scale, 1, 2),
        lse(l, 1, 6 * l.scale, 4, 2),
        scores(l, 6 * l.scale, 6 * l.scale, 4, 2) {
    function = "attend_self_attention";
    weights.size = sizeof weights;
    add("x", x, px, kInput, kRequired);
    add("weights.w_q", w_q, weights.w_q, kInput, kRequired);
    add("weights.w_k", w_k, weights.w_k, kInput, kRequired);
    add("weights.w_v", w_v, weights.w_v, kInput, kRequired);
    add("weights.b_q", b_q, weights.b_q, kInput, kOptional);
    add("weights.b_k", b_k, weights.b_k, kInput, kOptional);
    add("weights.b_v", b_v, weights.b_v, kInput, kOptional);
    add("weights.w_o", w_o, weights.w_o, kInput, kOptional);
    add("weights.b_o", b_o, weights.b_o, kInput, kOptional);
    add("out", out, pout, kOutput, kRequired);
    add("attention_options.lse", lse, attention_options.value.lse, kOutput, kOptional);
    add("attention_options.scores", scores, attention_options.value.scores, kOutput, kOptional);
    heads = {options.head("options"), attention_options.head("attention_options")};
  }
  attend_status run() const override {
    return attend_self_attention(px, pweights, pout, pointer(options), pointer(attention_options));
  }
  attend_status workspace(uint64_t *bytes) const override {
    return attend_self_attention_workspace(px, pweights, pout, pointer(options), pointer(attention_options), bytes);
  }
};

class MergeCall : public Call {
 public:
  Operand out_a, lse_a, out_b, lse_b;
  const attend_tensor *pout_a, *plse_a, *pout_b, *plse_b;
  Padded<attend_merge_options> options;

  explicit MergeCall(const Layout &l = {})
      : out_a(l, 3 * l.scale, 5 * l.scale, 2, 2),
        lse_a(l, 1, 5 * l.scale, 2, 2),
        out_b(l, 3 * l.scale, 5 * l.scale, 2, 2),
        lse_b(l, 1, 5 * l.scale, 2, 2) {
    function = "attend_attention_merge";
    add("out_a", out_a, pout_a, kOutput, kRequired);
    add("lse_a", lse_a, plse_a, kOutput, kRequired);
    add("out_b", out_b, pout_b, kInput, kRequired);
    add("lse_b", lse_b, plse_b, kInput, kRequired);
    heads = {options.head("options")};
  }
  attend_status run() const override {
    return attend_attention_merge(pout_a, plse_a, pout_b, plse_b, pointer(options));
  }
  attend_status workspace(uint64_t *bytes) const override {
    return attend_attention_merge_workspace(pout_a, plse_a, pout_b, plse_b, pointer(options), bytes);
  }
};

class RotaryCall : public Call {
 public:
  Operand x, cos, sin, y;
  const attend_tensor *px, *pcos, *psin, *py;
  Padded<attend_rotary_options> options;

  explicit RotaryCall(const Layout &l = {})
      : x(l, 6 * l.scale, 5 * l.scale, 2, 2),
        cos(l, 3 * l.scale, 7 * l.scale, 1, 1),
        sin(l, 3 * l.scale, 7 * l.scale, 1, 1),
        y(l, 6 * l.scale, 5 * l.scale, 2, 2) {
    function = "attend_rotary";
    add("x", x, px, kInput, kRequired);
    add("cos", cos, pcos, kInput, kRequired);
    add("sin", sin, psin, kInput, kRequired);
    add("y", y, py, kOutput, kRequired);
    heads = {options.head("options")};
  }
  attend_status run() const override { return attend_rotary(px, pcos, psin, py, pointer(options)); }
  attend_status workspace(uint64_t *bytes) const override {
    return attend_rotary_workspace(px, pcos, psin, py, pointer(options), bytes);
  }
};

class KvAppendCall : public Call {
 public:
  Operand k, v, k_cache, v_cache, cos, sin;
  const attend_tensor *pk, *pv, *pk_cache, *pv_cache;
  Padded<attend_kv_append_options> options;

  explicit KvAppendCall(const Layout &l = {})
      : k(l, 4 * l.scale, 5 * l.scale, 2, 2),
        v(l, 3 * l.scale, 5 * l.scale, 2, 2),
        k_cache(l, 4 * l.scale, 7 * l.scale, 2, 2),
        v_cache(l, 3 * l.scale, 7 * l.scale, 2, 2),
        cos(l, 2 * l.scale, 8 * l.scale, 1, 1),
        sin(l, 2 * l.scale, 8 * l.scale, 1, 1) {
    function = "attend_kv_append";
    add("k", k, pk, kInput, kRequired);
    add("v", v, pv, kInput, kRequired);
    add("k_cache", k_cache, pk_cache, kOutput, kRequired);
    add("v_cache", v_cache, pv_cache, kOutput, kRequired);
    add("options.cos", cos, options.value.cos, kInput, kRequired);  // one as well as the other
    add("options.sin", sin, options.value.sin, kInput, kRequired);
    heads = {options.head("options")};
  }
  attend_status run() const override { return attend_kv_append(pk, pv, pk_cache, pv_cache, pointer(options)); }
  attend_status workspace(uint64_t *bytes) const override {
    return attend_kv_append_workspace(pk, pv, pk_cache, pv_cache, pointer(options), bytes);
  }
};

class AttentionBackwardCall : public Call {
 public:
  Operand q, k, v, out, lse, d_out, d_lse, d_q, d_k, d_v;
  const attend_tensor *pq, *pk, *pv, *pout, *pd_out, *pd_q, *pd_k, *pd_v;
  Padded<attend_attention_backward_options> options;
  Padded<attend_attention_options> attention_options;

  explicit AttentionBackwardCall(const Layout &l = {})
      : q(l, 4 * l.scale, 6 * l.scale, 4, 2),
        k(l, 4 * l.scale, 7 * l.scale, 2, 2),
        v(l, 3 * l.scale, 7 * l.scale, 2, 2),
        out(l, 3 * l.scale, 6 * l.scale, 4, 2),
        lse(l, 1, 6 * l.scale, 4, 2),
        d_out(l, 3 * l.scale, 6 * l.scale, 4, 2),
        d_lse(l, 1, 6 * l.scale, 4, 2),
        d_q(l, 4 * l.scale, 6 * l.scale, 4, 2),
        d_k(l, 4 * l.scale, 7 * l.scale, 2, 2),
        d_v(l, 3 * l.scale, 7 * l.scale, 2, 2) {
    function = "attend_attention_backward";
    add("q", q, pq, kInput, kRequired);
    add("k", k, pk, kInput, kRequired);
    add("v", v, pv, kInput, kRequired);
    add("out", out, pout, kInput, kRequired);
    add("attention_options.lse", lse, attention_options.value.lse, kInput, kOptional);
    add("d_out", d_out, pd_out, kInput, kRequired);
    add("options.d_lse", d_lse, options.value.d_lse, kInput, kOptional);
    add("d_q", d_q, pd_q, kOutput, kOptional);
    add("d_k", d_k, pd_k, kOutput, kOptional);
    add("d_v", d_v, pd_v, kOutput, kOptional);
    heads = {options.head("options"), attention_options.head("attention_options")};
  }
  attend_status run() const override {
    return attend_attention_backward(pq, pk, pv, pout, pd_out, pd_q, pd_k, pd_v, pointer(options),
                                     pointer(attention_options));
  }
  attend_status workspace(uint64_t *bytes) const override {
    return attend_attention_backward_workspace(pq, pk, pv, pout, pd_out, pd_q, pd_k, pd_v, pointer(options),
                                               pointer(attention_options), bytes);
  }
};

class SoftmaxBackwardCall : public Call {
 public:
  Operand y, d_y, d_x, d_lse;
  const attend_tensor *py, *pd_y, *pd_x;
  Padded<attend_softmax_backward_options> options;

  explicit SoftmaxBackwardCall(const Layout &l = {})
      : y(l, 6 * l.scale, 5 * l.scale, 2, 2, true),  // its sums are in the workspace
        d_y(l, 6 * l.scale, 5 * l.scale, 2, 2, true),
        d_x(l, 6 * l.scale, 5 * l.scale, 2, 2, true),
        d_lse(l, 1, 5 * l.scale, 2, 2) {
    function = "attend_softmax_backward";
    add("y", y, py, kInput, kRequired);
    add("d_y", d_y, pd_y, kInput, kRequired);
    add("d_x", d_x, pd_x, kOutput, kRequired);
    add("options.d_lse", d_lse, options.value.d_lse, kInput, kOptional);
    heads = {options.head("options")};
  }
  attend_status run() const override { return attend_softmax_backward(py, pd_y, pd_x, pointer(options)); }
  attend_status workspace(uint64_t *bytes) const override {
    return attend_softmax_backward_workspace(py, pd_y, pd_x, pointer(options), bytes);
  }
};

constexpr int kFunctions = 10;

inline std::unique_ptr<Call> make(int function, const Layout &layout = {}) {
  if (function == 0) return std::make_unique<MatmulCall>(layout);
  if (function == 1) return std::make_unique<SoftmaxCall>(layout);
  if (function == 2) return std::make_unique<AttentionCall>(layout);
  if (function == 3) return std::make_unique<SelfAttentionCall>(layout);
  if (function == 4) return std::make_unique<SmallMatmulCall>(layout);
  if (function == 5) return std::make_unique<MergeCall>(layout);
  if (function == 6) return std::make_unique<RotaryCall>(layout);
  if (function == 7) return std::make_unique<KvAppendCall>(layout);
  if (function == 8) return std::make_unique<AttentionBackwardCall>(layout);
  return std::make_unique<SoftmaxBackwardCall>(layout);
}

// Calls `test` with each operand of each function, in a valid call of its own.
inline void for_each_operand(const std::function<void(Call &, size_t)> &test, const Layout &layout = {}) {
  for (int f = 0; f < kFunctions; ++f) {
    for (size_t i = 0; i < make(f)->slots.size(); ++i) {
      const std::unique_ptr<Call> call = make(f, layout);
      INFO(call->function << " " << call->slots[i].name);
      test(*call, i);
    }
  }
}

// The ..._workspace twin gives the same answer, or does not look at what is wrong.
enum class Twin { agrees, accepts, unspecified };

// What a call says of itself, given this much room; nothing may be written behind it.
template <class Run>
std::string message_of(const Call &call, const Run &run, uint64_t size = 512) {
  const Head &head = call.heads[0];
  std::vector<char> room(size + 8, '?');
  *head.message = room.data();
  *head.message_size = size;
  run();
  *head.message = nullptr;
  *head.message_size = 0;
  const std::string all(room.begin(), room.end());
  const size_t end = all.find('\0');
  if (end == std::string::npos) {
    CHECK(all == std::string(size + 8, '?'));
    return "";
  }
  CHECK(end < size);
  CHECK(all.find_first_not_of('?', end + 1) == std::string::npos);
  return all.substr(0, end);
}
inline std::string message_of(const Call &call, uint64_t size = 512) {
  return message_of(
      call, [&call] { (void)call.run(); }, size);
}

inline void expect_failure(const Call &call, int reason, const std::string &argument, Twin twin = Twin::agrees) {
  const Bytes before = call.memory();
  const attend_status status = call.run();
  CHECK(ATTEND_REASON(status) == reason);
  CHECK(std::string(attend_status_argument(status)) == argument);
  uint64_t bytes = 12345;
  // The same with a message, but where what is wrong is the size of the struct that has it, or the message itself.
  const bool can_say = *call.heads[0].message == nullptr && *call.heads[0].message_size == 0;
  if (can_say && !call.default_options && argument != "options.size") {
    const std::string message = message_of(call, [&] { CHECK(call.run() == status); });
    CHECK(message.substr(0, argument.size() + 2) == argument + ": ");
    CHECK(message.size() > argument.size() + 8);
    CHECK(message.back() == '.');
    CHECK(message.find("..") == std::string::npos);
    if (twin == Twin::agrees) CHECK(message_of(call, [&] { (void)call.workspace(&bytes); }) == message);
  }
  CHECK(call.memory() == before);
  if (twin == Twin::unspecified) return;
  CHECK(call.workspace(&bytes) == (twin == Twin::agrees ? status : ATTEND_OK));
  if (twin == Twin::agrees) CHECK(bytes == 12345);
}

inline void expect_success(const Call &call) {
  CHECK(call.run() == ATTEND_OK);
  uint64_t bytes = 0;
  CHECK(call.workspace(&bytes) == ATTEND_OK);
}

}  // namespace operands
