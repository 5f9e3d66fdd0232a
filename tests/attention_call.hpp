// One call of attend_attention whose outputs lie over poison.
#pragma once

#include "support.hpp"

namespace attend::test {

template <class T>
struct AttentionCall {
  Operand<T> q, k, v, out, lse;
  attend_attention_options options = options_with<attend_attention_options>(1);

  // Keys and values of one head. Columns are contiguous, or, with `turned`, rows.
  AttentionCall(Random &random, int64_t d, int64_t dv, int64_t nq, int64_t nk, int64_t heads = 1, bool turned = false)
      : q({d, nq, heads, 1}, layout(turned)),
        k({d, nk, 1, 1}, layout(turned)),
        v({dv, nk, 1, 1}, layout(turned)),
        out({dv, nq, heads, 1}, layout(turned)),
        lse({1, nq, heads, 1}, {}) {
    for (Operand<T> *o : {&q, &k, &v}) o->fill(random);
  }
  // With other keys and values, if given.
  bool run(const attend_tensor *keys = nullptr, const attend_tensor *values = nullptr) {
    for (Operand<T> *o : {&out, &lse}) o->fill_with(std::numeric_limits<T>::quiet_NaN());
    options.lse = lse.tensor();
    return ok(attend_attention(q.tensor(), keys != nullptr ? keys : k.tensor(), values != nullptr ? values : v.tensor(),
                               out.tensor(), &options));
  }
  bool same_results(AttentionCall &other) { return out.same_memory(other.out) && lse.same_memory(other.lse); }

 private:
  static typename Operand<T>::Layout layout(bool turned) {
    typename Operand<T>::Layout l;
    if (turned) l.order = {1, 0, 2, 3};
    return l;
  }
};

}  // namespace attend::test
