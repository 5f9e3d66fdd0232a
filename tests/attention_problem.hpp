// A random problem of attend_attention with any combination of its features, and what the formula says of it.
#pragma once

#include "attention_oracle.hpp"

namespace attend::test {

// Of half of the masks, what blocks of keys and of 16 queries see of them; of the others, some of all.
struct Blocks {
  enum Kind { some, none, all };

  Blocks(Random &random, int64_t nk, int64_t nq)
      : keys_(random.pick<int64_t>({64, 100, 256, 512, 700})), across_(nk / keys_ + 1) {
    const bool mixed = random.one_in(2);
    for (int64_t n = 0; n < across_ * (nq / 16 + 1); ++n) {
      kinds_.push_back(mixed ? random.pick({some, none, none, all}) : some);
    }
  }
  Kind at(int64_t key, int64_t query) const { return kinds_[static_cast<size_t>(query / 16 * across_ + key / keys_)]; }

 private:
  int64_t keys_, across_;
  std::vector<Kind> kinds_;
};

template <class T>
struct Problem {
  using O = Operand<T>;
  static constexpr T kInf = std::numeric_limits<T>::infinity(), kNan = std::numeric_limits<T>::quiet_NaN();

  int64_t d, dv, nq, nk, heads, kv_heads, batch;
  O q, k, v, out, lse, scores, bias;
  Shape mask_shape;
  std::vector<uint8_t> mask_bytes;
  std::vector<int64_t> lengths, firsts, offsets;
  std::vector<T> slopes, sinks;
  attend_tensor mask, slopes_view, sinks_view;
  attend_attention_options options = {};
  reference::AttentionSpec<Wide<T>> spec;
  std::vector<Wide<T>> wide_slopes, wide_sinks;
  bool masked, biased;

  static O operand(Random &random, const Shape &shape, bool output) {
    return O(shape, output ? O::random_layout(random) : O::random_input_layout(random, 4));
  }
  static Shape some_of(Random &random, Shape shape) {
    for (int64_t &extent : shape) extent = random.one_in(4) ? 1 : extent;
    return shape;
  }

  // `keys`: 0 = up to 1600, few as a rule; `queries`: 0 = up to 65.
  explicit Problem(Random &random, int64_t keys = 0, int64_t queries = 0)
      : d(random.pick<int64_t>({1, 3, 8, 16, 17, 40, 64})),
        dv(random.pick<int64_t>({1, 2, 8, 16, 33, 64})),
        nq(queries != 0 ? queries : random.pick<int64_t>({1, 1, 2, 7, 15, 16, 17, 33, 65})),
        nk(keys != 0          ? keys
           : random.one_in(8) ? random.in(1023, 1600)
           : random.one_in(4) ? random.in(250, 530)
                              : random.in(1, 70)),
        heads(random.pick<int64_t>({1, 2, 4})),
        kv_heads(heads / random.pick<int64_t>({1, 1, heads})),
        batch(random.in(1, 2)),
        q(operand(random, {d, nq, heads, batch}, false)),
        k(operand(random, {d, nk, kv_heads, batch}, false)),
        v(operand(random, {dv, nk, kv_heads, batch}, false)),
        out(operand(random, {dv, nq, heads, batch}, true)),
        lse(operand(random, {1, nq, heads, batch}, true)),
        scores(operand(random, {nk, nq, heads, batch}, true)),
        bias(operand(random, some_of(random, {nk, nq, heads, batch}), false)),
        mask_shape(some_of(random, {nk, nq, heads, batch})),
        masked(random.one_in(3)),
        biased(random.one_in(3)) {
    q.fill(random);
    k.fill(random);
    v.fill(random);
    bias.fill(random, 2);
    const Blocks blocks(random, nk, nq);
    bias.each([&](T &b, int64_t j, int64_t i, auto...) {
      const Blocks::Kind kind = blocks.at(j, i);
      b = kind == Blocks::none || (kind == Blocks::some && random.one_in(6)) ? -kInf : kind == Blocks::all ? T(0) : b;
    });
    options.size = sizeof options;
    options.threads = static_cast<int32_t>(random.in(0, 3));
    const int causal = static_cast<int>(random.in(0, 3));
    if (causal == 1) options.flags = ATTEND_CAUSAL_TOP_LEFT, spec.causal = reference::Causal::top_left;
    if (causal == 2) options.flags = ATTEND_CAUSAL_BOTTOM_RIGHT, spec.causal = reference::Causal::bottom_right;
    if (causal != 2 && random.one_in(3)) spec.query_offset = options.query_offset = random.in(-5, nk);
    if (causal != 2 && options.query_offset == 0 && random.one_in(6)) {
      for (int64_t b = 0; b < batch; ++b) offsets.push_back(random.in(-5, nk));
      spec.query_offsets = options.query_offsets = offsets.data();
    }
    if (random.one_in(3)) {
      options.flags |= ATTEND_WINDOW;
      spec.window = true;
      spec.left = options.window_left = random.one_in(4) ? -1 : random.in(0, nk);
      spec.right = options.window_right = random.one_in(4) ? -1 : random.one_in(8) ? INT64_MAX : random.in(0, nk);
    }
    if (random.one_in(3)) {
      for (int64_t b = 0; b < batch; ++b) lengths.push_back(random.in(0, nk));
      spec.lengths = options.kv_lengths = lengths.data();
    }
    if (random.one_in(3)) {
      for (size_t b = 0; b < static_cast<size_t>(batch); ++b)
        firsts.push_back(random.in(0, lengths.empty() ? nk : lengths[b]));
      spec.firsts = options.kv_first = firsts.data();
    }
    if (random.one_in(3)) spec.scale = options.scale = random.pick({1.0, 0.4, -0.3});
    if (random.one_in(3)) spec.softcap = options.softcap = random.pick({0.7, 5.0, 50.0});
    for (int64_t h = 0; h < heads; ++h) {
      slopes.push_back(static_cast<T>(std::fabs(random.normal())));
      sinks.push_back(random.one_in(8) ? -kInf : static_cast<T>(2 * random.normal()));
      wide_slopes.push_back(Wide<T>(slopes.back()));
      wide_sinks.push_back(Wide<T>(sinks.back()));
    }
    slopes_view = {slopes.data(), kDtype<T>, 1, {heads, 0, 0, 0}, {1, 0, 0, 0}};
    sinks_view = {sinks.data(), kDtype<T>, 1, {heads, 0, 0, 0}, {1, 0, 0, 0}};
    if (random.one_in(3)) options.alibi_slopes = &slopes_view, spec.slopes = wide_slopes.data();
    if (random.one_in(3)) options.sinks = &sinks_view, spec.sinks = wide_sinks.data();
    if (masked) use_mask(random);
    if (biased) {
      options.bias = bias.tensor();
      spec.bias = [this](int64_t j, int64_t i, int64_t h, int64_t b) {
        const Shape &s = bias.shape();
        return Wide<T>(bias.at(s[0] == 1 ? 0 : j, s[1] == 1 ? 0 : i, s[2] == 1 ? 0 : h, s[3] == 1 ? 0 : b));
      };
    }
    spec.scores_stage = static_cast<int>(random.in(0, 3));
    options.scores_stage = static_cast<uint32_t>(spec.scores_stage);
    poison_missing(random);
  }
  Problem(const Problem &) = delete;
  Problem &operator=(const Problem &) = delete;

  void use_mask(Random &random) {
    int64_t count = 1;
    mask = {nullptr, ATTEND_BOOL, 4, {}, {}};
    for (size_t n = 0; n < 4; ++n) {
      mask.shape[n] = mask_shape[n];
      mask.stride[n] = count;
      count *= mask_shape[n];
    }
    mask_bytes.resize(static_cast<size_t>(count));
    const Blocks blocks(random, nk, nq);
    for (int64_t n = 0; n < count; ++n) {
      const Blocks::Kind kind = blocks.at(n % mask_shape[0], n / mask_shape[0] % mask_shape[1]);
      const bool visible = kind == Blocks::all || (kind == Blocks::some && !random.one_in(3));
      mask_bytes[static_cast<size_t>(n)] = visible ? static_cast<uint8_t>(random.in(1, 255)) : 0;
    }
    mask.data = mask_bytes.data();
    options.mask = &mask;
    spec.mask = [this](int64_t j, int64_t i, int64_t h, int64_t b) {
      const int64_t at[] = {j, i, h, b};
      int64_t offset = 0;
      for (size_t n = 0; n < 4; ++n) offset += mask_shape[n] == 1 ? 0 : at[n] * mask.stride[n];
      return mask_bytes[static_cast<size_t>(offset)] != 0;
    };
  }

  std::string description() const {
    std::string text;
    const auto say = [&text](const char *what, auto value) { text += what + std::to_string(value); };
    say(" D ", d), say(" Dv ", dv), say(" Nq ", nq), say(" Nk ", nk), say(" H ", heads), say(" Hkv ", kv_heads);
    say(" flags ", options.flags), say(" left ", options.window_left), say(" right ", options.window_right);
    say(" offset ", options.query_offset), say(" lengths ", lengths.size()), say(" firsts ", firsts.size());
    say(" mask ", masked), say(" bias ", biased), say(" softcap ", options.softcap),
        say(" alibi ", options.alibi_slopes != nullptr);
    say(" sinks ", options.sinks != nullptr), say(" stage ", options.scores_stage), say(" threads ", options.threads);
    return text;
  }

  // What is there of keys that do not exist is never read.
  void poison_missing(Random &random) {
    const auto poison = [&](T &x, int64_t j, int64_t b) {
      if (!spec.exists(j, b)) x = random.pick({kNan, kInf, -kInf});
    };
    k.each([&](T &x, int64_t, int64_t j, int64_t, int64_t b) { poison(x, j, b); });
    v.each([&](T &x, int64_t, int64_t j, int64_t, int64_t b) { poison(x, j, b); });
    const Shape &s = bias.shape();
    if (s[0] != nk || s[3] != batch) return;
    bias.each([&](T &x, int64_t j, int64_t, int64_t, int64_t b) { poison(x, j, b); });
  }

  // Whether any query of any head that shares it sees the key.
  bool seen(int64_t key, int64_t kv_head, int64_t b) {
    const int64_t group = heads / kv_heads;
    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
      for (int64_t i = 0; i < nq; ++i) {
        if (!spec.visible(key, i, nk, nq, b)) continue;
        if (spec.mask && !spec.mask(key, i, h, b)) continue;
        if (spec.bias && spec.bias(key, i, h, b) == -std::numeric_limits<Wide<T>>::infinity()) continue;
        return true;
      }
    }
    return false;
  }
  void poison_hidden(Random &random) {
    k.each([&](T &x, int64_t, int64_t j, int64_t h, int64_t b) {
      if (!seen(j, h, b)) x = random.one_in(2) ? kNan : kInf;
    });
    v.each([&](T &x, int64_t, int64_t j, int64_t h, int64_t b) {
      if (!seen(j, h, b)) x = random.one_in(2) ? kNan : -kInf;
    });
  }
};

template <class T>
Expected<T> expected_of(Problem<T> &p) {
  const double alibi = p.options.alibi_slopes != nullptr ? 4.0 * static_cast<double>(p.nk + 600) : 0;
  return {p.q, p.k, p.v, p.spec, alibi + (p.biased ? 10 : 0)};
}

// All outputs of a problem, over poison.
template <class T>
struct Results {
  Operand<T> out, lse, scores;

  explicit Results(Problem<T> &p) : out(p.out), lse(p.lse), scores(p.scores) {
    for (Operand<T> *o : {&out, &lse, &scores}) o->fill_with(Problem<T>::kNan);
    p.options.lse = lse.tensor();
    p.options.scores = scores.tensor();
    ok(attend_attention(p.q.tensor(), p.k.tensor(), p.v.tensor(), out.tensor(), &p.options));
    for (Operand<T> *o : {&out, &lse, &scores}) CHECK(o->gaps_untouched());
  }
  // The largest error of `out` over its bound; it and those of lse and scores are checked.
  double compare(const Expected<T> &want) {
    const double ratio = want.of_out(out);
    CHECK(ratio <= 1);
    CHECK(want.of_lse(lse) <= 1);
    CHECK(want.of_scores(scores) <= 1);
    return ratio;
  }
};

// Its output alone, over poison: with few queries threads may share the keys then.
template <class T>
Operand<T> output_alone(Problem<T> &p) {
  Operand<T> out = p.out;
  out.fill_with(Problem<T>::kNan);
  p.options.lse = p.options.scores = nullptr;
  ok(attend_attention(p.q.tensor(), p.k.tensor(), p.v.tensor(), out.tensor(), &p.options));
  return out;
}

}  // namespace attend::test
