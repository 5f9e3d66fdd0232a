// The options of attention, read alike for attend_attention and attend_self_attention.
#pragma once

#include "api/boundary.hpp"
#include "drivers/attention.hpp"

namespace attend {

// What of the options waits for the operands' shapes.
struct AttentionOptions {
  Execution execution;
  Message message;
  const attend_tensor *mask = nullptr, *bias = nullptr, *alibi_slopes = nullptr, *sinks = nullptr;
  const attend_tensor *lse = nullptr, *scores = nullptr, *k_scale = nullptr, *v_scale = nullptr;
  const attend_tensor *pages = nullptr, *state = nullptr;
  Role role_of_lse = Role::output;
};

// Scratch grows with D and Dv; below this its size is countable for any number of threads. (Inputs with strides of 0
// may claim more.)
constexpr int64_t kMostFeatures = INT32_MAX;
attend_status too_many_features(const Message &to, Argument argument, int64_t features);

// The head of attention options beside `options` of their own, whose threads, workspace, message and executor count.
attend_status expect_plain_head(const attend_attention_options *given, const AttentionOptions &read);

// Where the extents of mask, bias, lse and scores come from, and those of slopes and sinks.
struct AttentionAxes {
  Axes scores, lse, heads, state;
  constexpr AttentionAxes(const Axis &keys, const Axis &queries, const Axis &of_heads, const Axis &batches)
      : scores{{keys, queries, of_heads, batches}},
        lse{{{Count::features}, queries, of_heads, batches}},
        heads{{of_heads, {Count::columns}, {Count::heads}, {Count::batches}}},
        state{{{Count::rows}, queries, of_heads, batches}} {}
};

// The numbers go straight into the problem: copying one takes as long as a small attention. `result` says whose message
// it is.
attend_status read_attention_options(const attend_attention_options *given, Purpose purpose, AttentionOptions *result,
                                     Attention *problem);

// Whether nothing but `scale`, threads, a workspace and a message is asked for, and nothing can be wrong.
bool only_scales(const attend_attention_options *given, Dtype dtype, double *scale);

// Settles what depends on the operands: on D and a query's type, and the tensors among the options. `shape` is that of
// `out`; `keys` are those that each sequence has room for. That these outputs overlap no input is for the caller to
// check, who knows all inputs; those among the options it need not name.
attend_status finish_attention(const AttentionOptions &options, Operands *operands, Dtype query, int64_t features,
                               int64_t keys, const std::array<int64_t, 4> &shape, const AttentionAxes &axes,
                               Purpose purpose, Attention *problem);

// ATTEND_OVERLAP if an output provably shares a byte with what the options point at. `batch`: of the sequences.
attend_status expect_apart_from_options(const Tensor &output, Argument argument, const Attention &problem,
                                        int64_t batch, const Message &message);

// Packed sequences: that what begins with `argument` holds the columns that starts say.
attend_status expect_packed(const int64_t *starts, int64_t sequences, const Tensor &of, Argument argument,
                            Argument starts_argument, Purpose purpose, const Message &message);

}  // namespace attend
