// Calls for gradients of attention that are wrong beyond what the tests of all functions spoil.
#include "operands.hpp"

using namespace operands;

namespace {

// With what only some calls have: a bias and sinks, and their gradients.
struct BiasedCall : AttentionBackwardCall {
  Operand bias, d_bias, sinks, d_sinks;

  BiasedCall() : bias({}, 7, 6, 4, 2), d_bias({}, 7, 6, 4, 2), sinks({}, 4, 1, 1, 1), d_sinks({}, 4, 1, 1, 1) {
    add("attention_options.bias", bias, attention_options.value.bias, kInput, kOptional);
    add("attention_options.sinks", sinks, attention_options.value.sinks, kInput, kOptional);
    add("options.d_bias", d_bias, options.value.d_bias, kOutput, kOptional);
    add("options.d_sinks", d_sinks, options.value.d_sinks, kOutput, kOptional);
  }
};

void wrong(int reason, const char *argument, const std::function<void(BiasedCall &)> &spoil, Twin twin = Twin::agrees) {
  BiasedCall call;
  spoil(call);
  expect_failure(call, reason, argument, twin);
}

}  // namespace

TEST_CASE("a call with all gradients is in order, and each of them may be left out") {
  expect_success(BiasedCall());
  for (size_t i = 0; i < BiasedCall().slots.size(); ++i) {
    BiasedCall call;
    if (call.slots[i].required || call.slots[i].name.find("bias") != std::string::npos ||
        call.slots[i].name.find("sinks") != std::string::npos) {
      continue;
    }
    *call.slots[i].passed = nullptr;
    expect_success(call);
  }
}

TEST_CASE("gradients of what is not there") {
  wrong(ATTEND_INVALID_VALUE, "options.d_bias", [](BiasedCall &c) { c.attention_options.value.bias = nullptr; });
  wrong(ATTEND_INVALID_VALUE, "options.d_sinks", [](BiasedCall &c) { c.attention_options.value.sinks = nullptr; });
}

TEST_CASE("gradients of another shape than their operand's") {
  wrong(ATTEND_INVALID_SHAPE, "options.d_bias", [](BiasedCall &c) { c.d_bias.view.shape[2] = 1; });
  wrong(ATTEND_INVALID_SHAPE, "options.d_sinks", [](BiasedCall &c) { c.d_sinks.view.shape[0] = 3; });
  wrong(ATTEND_INVALID_SHAPE, "d_k", [](BiasedCall &c) { c.d_k.view.shape[2] = 3; });
  wrong(ATTEND_INVALID_SHAPE, "d_v", [](BiasedCall &c) { c.d_v.view.shape[3] = 1; });
  wrong(ATTEND_INVALID_SHAPE, "d_q", [](BiasedCall &c) { c.q.view.shape[3] = 1; });
  wrong(ATTEND_INVALID_SHAPE, "d_out", [](BiasedCall &c) { c.d_out.view.shape[1] = 5; });
  wrong(ATTEND_INVALID_SHAPE, "options.d_lse", [](BiasedCall &c) { c.d_lse.view.shape[0] = 2; });
}

TEST_CASE("types that a gradient cannot have") {
  wrong(ATTEND_INVALID_DTYPE, "k", [](BiasedCall &c) { c.k.view.dtype = ATTEND_I8; });
  wrong(ATTEND_INVALID_DTYPE, "v", [](BiasedCall &c) { c.v.view.dtype = ATTEND_F8E4M3; });
  wrong(ATTEND_INVALID_DTYPE, "d_k", [](BiasedCall &c) { c.d_k.view.dtype = ATTEND_F64; });
  wrong(ATTEND_INVALID_DTYPE, "options.d_bias", [](BiasedCall &c) { c.d_bias.view.dtype = ATTEND_BF16; });
  // A sum over the batch is not rounded after each summand.
  wrong(ATTEND_INVALID_DTYPE, "d_k", [](BiasedCall &c) {
    c.k.view.shape[3] = c.d_k.view.shape[3] = 1;
    c.d_k.view.dtype = ATTEND_BF16;
  });
  BiasedCall shared;
  shared.k.view.shape[3] = shared.d_k.view.shape[3] = 1;
  expect_success(shared);
}

TEST_CASE("options of the forward call that have no gradient") {
  static attend_tensor any = {nullptr, ATTEND_F32, 1, {0, 0, 0, 0}, {1, 1, 1, 1}};
  wrong(ATTEND_UNSUPPORTED, "attention_options.scores", [](BiasedCall &c) { c.attention_options.value.scores = &any; });
  wrong(ATTEND_UNSUPPORTED, "attention_options.k_scale",
        [](BiasedCall &c) { c.attention_options.value.k_scale = &any; });
  wrong(ATTEND_UNSUPPORTED, "attention_options.v_scale",
        [](BiasedCall &c) { c.attention_options.value.v_scale = &any; });
  wrong(ATTEND_UNSUPPORTED, "attention_options.state", [](BiasedCall &c) { c.attention_options.value.state = &any; });
  wrong(ATTEND_UNSUPPORTED, "attention_options.flags", [](BiasedCall &c) {
    c.attention_options.value.state = &any;
    c.attention_options.value.flags = ATTEND_PARTIAL;
  });
  static int64_t lengths[2] = {3, 4};
  wrong(ATTEND_UNSUPPORTED, "attention_options.pages", [](BiasedCall &c) {
    c.attention_options.value.pages = &any;
    c.attention_options.value.kv_lengths = lengths;
  });
  wrong(ATTEND_INVALID_VALUE, "attention_options.threads",
        [](BiasedCall &c) { c.attention_options.value.threads = 2; });
  wrong(ATTEND_UNSUPPORTED, "options.flags", [](BiasedCall &c) { c.options.value.flags = 1; });
}

TEST_CASE("gradients that share memory") {
  wrong(
      ATTEND_OVERLAP, "d_k", [](BiasedCall &c) { c.d_k.view.data = c.d_q.view.data; }, Twin::accepts);
  wrong(
      ATTEND_OVERLAP, "d_v", [](BiasedCall &c) { c.d_v.view.data = c.v.view.data; }, Twin::accepts);
  wrong(
      ATTEND_OVERLAP, "options.d_bias", [](BiasedCall &c) { c.d_bias.view.data = c.bias.view.data; }, Twin::accepts);
  wrong(
      ATTEND_OVERLAP, "d_q", [](BiasedCall &c) { c.d_q.view.data = c.d_out.view.data; }, Twin::accepts);
}

TEST_CASE("pieces of gradients that are wrong") {
  struct PieceCall : AttentionBackwardCall {
    Operand d_q_state{{}, 8, 6, 4, 2}, d_k_state{{}, 4, 7, 2, 2}, d_v_state{{}, 3, 7, 2, 2}, delta{{}, 1, 6, 4, 2};
    int64_t total[2] = {256 + 7, 256 + 7};
    explicit PieceCall(bool of_keys) {
      options.value.flags = ATTEND_PARTIAL | ATTEND_CONTINUE;
      options.value.delta = &delta.view;
      if (of_keys) {
        options.value.d_q_state = &d_q_state.view;
        options.value.total_keys = total;
        attention_options.value.key_offset = 256;
      } else {
        options.value.d_k_state = &d_k_state.view;
        options.value.d_v_state = &d_v_state.view;
      }
    }
  };
  expect_success(PieceCall(true));
  expect_success(PieceCall(false));
  static attend_tensor any = {nullptr, ATTEND_F32, 1, {0, 0, 0, 0}, {1, 1, 1, 1}};
  static int64_t firsts[2];
  const auto wrong_piece = [](bool of_keys, int reason, const char *argument,
                              const std::function<void(PieceCall &)> &spoil, Twin twin = Twin::agrees) {
    PieceCall call(of_keys);
    INFO(std::string(argument) << " for reason " << reason << std::string(of_keys ? ", keys" : ", queries"));
    spoil(call);
    expect_failure(call, reason, argument, twin);
  };
  for (const bool of_keys : {true, false}) {
    const auto both = [&](int reason, const char *argument, const std::function<void(PieceCall &)> &spoil) {
      wrong_piece(of_keys, reason, argument, spoil);
    };
    both(ATTEND_NULL_POINTER, "attention_options.lse", [](PieceCall &c) { c.attention_options.value.lse = nullptr; });
    both(ATTEND_UNSUPPORTED, "options.d_bias", [](PieceCall &c) { c.options.value.d_bias = &any; });
    both(ATTEND_UNSUPPORTED, "options.d_sinks", [](PieceCall &c) { c.options.value.d_sinks = &any; });
    both(ATTEND_INVALID_VALUE, "attention_options.flags",
         [](PieceCall &c) { c.attention_options.value.flags = ATTEND_CAUSAL_BOTTOM_RIGHT; });
    both(ATTEND_UNSUPPORTED, "options.d_q_state", [](PieceCall &c) {
      c.options.value.d_q_state = &c.d_q_state.view, c.options.value.d_k_state = &c.d_k_state.view;
      c.options.value.total_keys = c.total;
    });
    both(ATTEND_NULL_POINTER, "options.d_q_state", [](PieceCall &c) {
      c.options.value.d_q_state = c.options.value.d_k_state = c.options.value.d_v_state = nullptr;
      c.options.value.total_keys = nullptr;
    });
  }
  // Delta, read.
  wrong_piece(true, ATTEND_INVALID_VALUE, "options.d_lse", [](PieceCall &c) { c.pout = nullptr; });
  wrong_piece(true, ATTEND_INVALID_SHAPE, "options.delta", [](PieceCall &c) { c.delta.view.shape[2] = 2; });
  wrong_piece(true, ATTEND_INVALID_DTYPE, "options.delta", [](PieceCall &c) { c.delta.view.dtype = ATTEND_BF16; });
  wrong_piece(true, ATTEND_INVALID_SHAPE, "d_out", [](PieceCall &c) {
    c.pout = nullptr, c.options.value.d_lse = nullptr;
    c.d_out.view.shape[1] = 5;
  });
  wrong_piece(
      true, ATTEND_OVERLAP, "options.delta", [](PieceCall &c) { c.delta.view.data = c.lse.view.data; }, Twin::accepts);
  // States.
  wrong_piece(true, ATTEND_INVALID_VALUE, "options.d_q_state", [](PieceCall &c) { c.pd_q = nullptr; });
  wrong_piece(false, ATTEND_INVALID_VALUE, "options.d_k_state", [](PieceCall &c) { c.pd_k = nullptr; });
  wrong_piece(true, ATTEND_INVALID_SHAPE, "options.d_q_state", [](PieceCall &c) { c.d_q_state.view.shape[0] = 4; });
  wrong_piece(false, ATTEND_INVALID_SHAPE, "options.d_k_state", [](PieceCall &c) { c.d_k_state.view.shape[2] = 1; });
  wrong_piece(false, ATTEND_INVALID_SHAPE, "options.d_v_state", [](PieceCall &c) { c.d_v_state.view.shape[0] = 2; });
  wrong_piece(false, ATTEND_INVALID_DTYPE, "options.d_v_state",
              [](PieceCall &c) { c.d_v_state.view.dtype = ATTEND_F64; });
  wrong_piece(
      false, ATTEND_OVERLAP, "d_k", [](PieceCall &c) { c.d_k.view.data = c.d_k_state.view.data; }, Twin::accepts);
  // What spans follow from.
  wrong_piece(true, ATTEND_NULL_POINTER, "options.total_keys",
              [](PieceCall &c) { c.options.value.total_keys = nullptr; });
  wrong_piece(false, ATTEND_INVALID_VALUE, "options.total_keys",
              [](PieceCall &c) { c.options.value.total_keys = c.total; });
  wrong_piece(
      true, ATTEND_INVALID_VALUE, "options.total_keys", [](PieceCall &c) { c.total[1] = 262; }, Twin::accepts);
  wrong_piece(
      true, ATTEND_INVALID_VALUE, "options.total_keys", [](PieceCall &c) { c.total[1] = 264; }, Twin::accepts);
  wrong_piece(
      true, ATTEND_INVALID_VALUE, "options.total_keys", [](PieceCall &c) { c.total[0] = -1; }, Twin::accepts);
  wrong_piece(true, ATTEND_INVALID_VALUE, "attention_options.kv_first",
              [](PieceCall &c) { c.attention_options.value.kv_first = firsts; });
}
