// attend_attention and attend_self_attention with all options of attention.
#pragma once

#include "plain_calls.hpp"

namespace attend::fuzz {

// How far the library's attention may be from the formula, from the largest numbers on the way.
template <class T>
struct AttentionBound {
  double features, keys;
  double partial;          // largest sum of |scale q k|
  double query_error = 0;  // of a score, from errors of Q and K
  double added = 0;        // the largest ALiBi and bias, and the sink
  double values, value_error = 0;

  // A score is a chain of D terms, relative to their sizes; then the softcap, ALiBi, the bias, in a few roundings.
  double score() const { return query_error + kUnit<T> * ((features + 4) * partial + 16 * (partial + added + 1)); }
  double score_at(double s) const { return 2 * score() + 8 * kUnit<T> * (s + 4); }
  // A weight and the sum that it is divided by move by as much, relatively, as scores do absolutely; both sums are
  // chains within a chunk, then chains of chunks.
  double weight() const {
    const double chunk = std::min(keys, 256.0), chunks = keys / 256 + 1;
    return std::expm1(4 * score()) + kUnit<T> * (2 * chunk + 8 * chunks + 32);
  }
  double output() const {
    return values * weight() + value_error + 4 * static_cast<double>(std::numeric_limits<T>::min());
  }
  double lse(double l) const { return weight() + 8 * kUnit<T> * (l + 4); }
};

template <class T>
class AttentionBase : public Call {
 protected:
  struct Sizes {
    int64_t queries, keys, heads, batch;
  };

  void add_options(Decoder &d, const std::string &name, const Sizes &s) {
    const auto optional = [&](const char *field, Role role, uint32_t dtype, const Shape &shape, int64_t odds) {
      Operand *o = &add(d, name + "." + field, role, dtype, shape, false);
      o->given = d.one_in(odds);
      return o;
    };
    const Shape all = {s.keys, s.queries, s.heads, s.batch};
    mask_ = optional("mask", Role::input, ATTEND_BOOL, some_of(d, all), 3);
    bias_ = optional("bias", Role::input, kDtype<T>, some_of(d, all), 3);
    slopes_ = optional("alibi_slopes", Role::input, kDtype<T>, {s.heads, 1, 1, 1}, 4);
    sinks_ = optional("sinks", Role::input, kDtype<T>, {s.heads, 1, 1, 1}, 4);
    lse_ = optional("lse", Role::output, kDtype<T>, {1, s.queries, s.heads, s.batch}, 2);
    scores_ = optional("scores", Role::output, kDtype<T>, all, 3);
    options_name_ = name;
    attend_attention_options &o = attention_.value;
    o.scores_stage = static_cast<uint32_t>(d.in(0, 3));
    o.flags = d.pick<uint32_t>({0, ATTEND_CAUSAL_TOP_LEFT, ATTEND_CAUSAL_BOTTOM_RIGHT});
    const bool bottom_right = o.flags == ATTEND_CAUSAL_BOTTOM_RIGHT;
    if (d.one_in(3)) {
      o.flags |= ATTEND_WINDOW;
      o.window_left = side(d, s.keys);
      o.window_right = side(d, s.keys);
    }
    const int64_t offset = d.in(0, 3);
    if (!bottom_right && offset == 1) o.query_offset = place(d, s.keys);
    if (!bottom_right && offset == 2) {
      offsets_.resize(static_cast<size_t>(s.batch));
      for (int64_t &x : offsets_) x = place(d, s.keys);
      o.query_offsets = offsets_.data();
    }
    if (d.one_in(4)) {
      lengths_.resize(static_cast<size_t>(s.batch));
      for (int64_t &x : lengths_) x = d.in(0, s.keys);
      o.kv_lengths = lengths_.data();
    }
    if (d.one_in(4)) {
      firsts_.resize(static_cast<size_t>(s.batch));
      for (size_t b = 0; b < firsts_.size(); ++b) firsts_[b] = d.in(0, lengths_.empty() ? s.keys : lengths_[b]);
      o.kv_first = firsts_.data();
    }
    o.scale = d.pick({0.0, 0.0, 1.0, 0.4, -0.3});
    o.softcap = d.pick({0.0, 0.0, 0.0, 0.7, 5.0, 50.0});
  }

  void connect() override {
    attend_attention_options &o = attention_.value;
    if (!attention_.given) o = {};
    for (Operand *p : {mask_, bias_, slopes_, sinks_, lse_, scores_}) p->given &= attention_.given;
    o.mask = mask_->tensor();
    o.bias = bias_->tensor();
    o.alibi_slopes = slopes_->tensor();
    o.sinks = sinks_->tensor();
    o.lse = lse_->tensor();
    o.scores = scores_->tensor();
    // One number for each batch, which may not be what it was.
    const auto fits = [this](const std::vector<int64_t> &v) { return batch() == static_cast<int64_t>(v.size()); };
    if (!fits(offsets_)) o.query_offsets = nullptr;
    if (!fits(lengths_)) o.kv_lengths = nullptr;
    if (!fits(firsts_)) o.kv_first = nullptr;
  }
  virtual int64_t batch() const = 0;
  virtual int64_t keys() const = 0;

  void spoil_option(Decoder &d) override {
    attend_attention_options &o = attention_.value;
    switch (d.in(0, 14)) {
      case 0:
        o.scale = d.pick({std::nan(""), kDtype<T> == ATTEND_F32 ? 1e39 : HUGE_VAL});
        break;
      case 1:
        o.softcap = d.pick({-1.0, std::nan(""), kDtype<T> == ATTEND_F32 ? 1e-46 : HUGE_VAL});
        break;
      case 2:
        o.window_left = d.pick<int64_t>({-2, 1, INT64_MIN});
        break;
      case 3:
        o.window_right = d.pick<int64_t>({-2, 1, INT64_MIN});
        break;
      case 4:
        o.reserved2 = 1;
        break;
      case 5:
        o.scores_stage = d.pick<uint32_t>({4, 0xffffffffu});
        break;
      case 6:
        o.query_offset = d.any();
        break;
      case 7:
        if (!lengths_.empty()) lengths_.back() = d.any();
        break;
      case 8:
        if (!offsets_.empty()) offsets_.back() = d.any();
        break;
      case 9:
        if (!firsts_.empty()) firsts_.back() = d.one_in(2) ? d.any() : d.in(-1, 2 * keys());
        break;
      case 10:
        if (o.query_starts == nullptr) o.sequences = d.pick<int64_t>({-1, 1, 3, INT64_MAX});
        break;
      case 11:
        if (o.sequences == 0) o.query_starts = &kStart;
        break;
      case 12:
        o.key_offset = d.pick<int64_t>({100, -256, INT64_MIN, INT64_MAX});
        break;
      case 13:
        o.flags ^= d.pick<uint32_t>({ATTEND_PARTIAL, ATTEND_CONTINUE, ATTEND_PARTIAL | ATTEND_CONTINUE});
        break;
      default:
        o.flags ^= d.pick<uint32_t>({ATTEND_CAUSAL_TOP_LEFT, ATTEND_CAUSAL_BOTTOM_RIGHT, ATTEND_WINDOW});
    }
  }

  void find_faults(Faults *faults) const override {
    const attend_attention_options &o = attention_.value;
    const auto wrong = [&](const char *field, int reason = ATTEND_INVALID_VALUE) {
      faults->add(reason, options_name_ + "." + field);
    };
    if (!is_number_of<T>(o.scale)) wrong("scale");
    if (!(is_number_of<T>(o.softcap) && o.softcap >= 0)) wrong("softcap");
    const bool window = (o.flags & ATTEND_WINDOW) != 0;
    for (const int64_t side : {o.window_left, o.window_right}) {
      if (window ? side < -1 : side != 0) wrong("window_left");
    }
    if (o.reserved2 != 0) wrong("reserved2");
    if (o.scores_stage > ATTEND_SCORES_PROBABILITIES) wrong("scores_stage");
    const bool bottom_right = (o.flags & ATTEND_CAUSAL_BOTTOM_RIGHT) != 0;
    if (bottom_right && (o.flags & ATTEND_CAUSAL_TOP_LEFT) != 0) wrong("flags");
    if (bottom_right && o.query_offset != 0) wrong("query_offset");
    if (o.query_offsets != nullptr && (bottom_right || o.query_offset != 0)) wrong("query_offsets");
    if (o.sequences != 0 || o.query_starts != nullptr) wrong("sequences");  // one without the other, or neither fits
    if (o.key_offset < 0 || o.key_offset % 256 != 0) wrong("key_offset");
    if ((o.flags & (ATTEND_PARTIAL | ATTEND_CONTINUE)) == 0) return;
    wrong("state", ATTEND_NULL_POINTER);
    if (bottom_right) wrong("flags");
    if (o.kv_first != nullptr) wrong("kv_first");
    if (scores_->given && o.scores_stage == ATTEND_SCORES_PROBABILITIES) wrong("scores", ATTEND_UNSUPPORTED);
  }

  // Of the operands of attention and the options that go with them.
  void find_operand_faults(Faults *faults, const Operand &q, const Operand &k, const Operand &v,
                           const Shape &out) const {
    const Shape of_k = Extent(k.view).shape;
    const int64_t features = Extent(q.view).shape[0];
    if (features == 0) faults->add(ATTEND_INVALID_SHAPE, "q");
    expect_shape(faults, q, {features, out[1], out[2], out[3]}, 8);
    expect_shape(faults, k, {features, of_k[1], of_k[2], out[3]}, 8);
    expect_shape(faults, v, {out[0], of_k[1], of_k[2], out[3]}, 8);
    if (out[2] != 0 && (of_k[2] <= 0 || out[2] % of_k[2] != 0)) faults->add(ATTEND_INVALID_SHAPE, "k");
    find_option_faults(faults, of_k[1], out[1], out[2]);
  }
  void find_option_faults(Faults *faults, int64_t keys, int64_t queries, int64_t heads) const {
    const Shape all = {keys, queries, heads, batch()};
    expect_shape(faults, *mask_, all, 15);
    expect_shape(faults, *bias_, all, 15);
    expect_shape(faults, *slopes_, {heads, 1, 1, 1});
    expect_shape(faults, *sinks_, {heads, 1, 1, 1});
    expect_shape(faults, *lse_, {1, queries, heads, batch()});
    expect_shape(faults, *scores_, all);
  }
  void find_number_faults(Faults *faults) const override {
    const attend_attention_options &o = attention_.value;
    if (o.kv_lengths == nullptr && o.kv_first == nullptr) return;
    for (size_t b = 0; b < static_cast<size_t>(batch()); ++b) {
      const int64_t length = o.kv_lengths != nullptr ? lengths_[b] : keys();
      if (length < 0 || length > keys()) faults->add(ATTEND_INVALID_VALUE, options_name_ + ".kv_lengths");
      if (o.kv_first != nullptr && (firsts_[b] < 0 || firsts_[b] > length))
        faults->add(ATTEND_INVALID_VALUE, options_name_ + ".kv_first");
    }
  }

  // The oracle's options; what they point at lives in this object.
  reference::AttentionSpec<Wide<T>> specify(int64_t keys, int64_t queries, int64_t heads) {
    const attend_attention_options &o = attention_.value;
    reference::AttentionSpec<Wide<T>> spec;
    spec.scale = o.scale;
    spec.softcap = o.softcap;
    if ((o.flags & ATTEND_CAUSAL_TOP_LEFT) != 0) spec.causal = reference::Causal::top_left;
    if ((o.flags & ATTEND_CAUSAL_BOTTOM_RIGHT) != 0) spec.causal = reference::Causal::bottom_right;
    spec.query_offset = o.query_offset;
    spec.query_offsets = o.query_offsets;
    spec.window = (o.flags & ATTEND_WINDOW) != 0;
    spec.left = o.window_left;
    spec.right = o.window_right;
    spec.firsts = o.kv_first;
    spec.lengths = o.kv_lengths;
    spec.scores_stage = static_cast<int>(o.scores_stage);
    bound_.keys = static_cast<double>(keys);
    if (mask_->given) {
      const Extent e(mask_->view);
      const reference::View<const uint8_t> mask = {static_cast<const uint8_t *>(mask_->view.data), e.shape, e.stride};
      spec.mask = [mask](int64_t j, int64_t i, int64_t h, int64_t b) { return mask.at(j, i, h, b) != 0; };
    }
    if (bias_->given) {
      wide_bias_ = std::make_unique<WideCopy<T>>(*bias_);
      bound_.added += wide_bias_->largest;
      spec.bias = [this](int64_t j, int64_t i, int64_t h, int64_t b) { return wide_bias_->view.at(j, i, h, b); };
    }
    if (slopes_->given) {
      wide_slopes_ = std::make_unique<WideCopy<T>>(*slopes_);
      spec.slopes = wide_slopes_->values.data();
      double distance = static_cast<double>(keys + queries) + std::fabs(static_cast<double>(o.query_offset));
      for (const int64_t x : offsets_) distance = std::max(distance, std::fabs(static_cast<double>(x)) + bound_.keys);
      bound_.added += wide_slopes_->largest * distance;
    }
    if (sinks_->given) {
      wide_sinks_ = std::make_unique<WideCopy<T>>(*sinks_);
      spec.sinks = wide_sinks_->values.data();
      bound_.added += wide_sinks_->largest;
    }
    want_lse_ = std::make_unique<reference::Buffer<Wide<T>>>(1, queries, heads, batch());
    want_scores_ = std::make_unique<reference::Buffer<Wide<T>>>(keys, queries, heads, batch());
    spec.lse = &want_lse_->view;
    spec.scores = &want_scores_->view;
    return spec;
  }
  // Positions that the oracle cannot count in int64, numbers that no bound follows; a sink of NaN or +inf, of which it
  // is not said what it makes of a query that sees no key.
  bool is_beyond_oracle() const {
    const auto far = [](int64_t x) { return x > 100000 || x < -100000; };
    const bool away = far(attention_.value.query_offset) || std::any_of(offsets_.begin(), offsets_.end(), far);
    bool odd_sink = false;
    for (size_t i = 0; sinks_->given && i < wide_sinks_->values.size(); ++i)
      odd_sink |= !(wide_sinks_->values[i] <= std::numeric_limits<T>::max());
    return odd_sink || (slopes_->given && (away || !wide_slopes_->finite)) || !(bound_.score() < 0.01);
  }

  void compare_options(const std::string &told) const {
    if (lse_->given) {
      compare_with<T>(*lse_, want_lse_->view, told, [&](int64_t, int64_t i, int64_t h, int64_t b) {
        return bound_.lse(std::fabs(static_cast<double>(want_lse_->view.at(0, i, h, b))));
      });
    }
    if (!scores_->given) return;
    const bool probabilities = attention_.value.scores_stage == ATTEND_SCORES_PROBABILITIES;
    compare_with<T>(*scores_, want_scores_->view, told, [&](int64_t j, int64_t i, int64_t h, int64_t b) {
      // Nothing is said of what a query that is NaN gives to keys that it does not see.
      if (probabilities) return std::isnan(want_lse_->view.at(0, i, h, b)) ? kNoBound : bound_.weight();
      return bound_.score_at(std::fabs(static_cast<double>(want_scores_->view.at(j, i, h, b))));
    });
  }

  Operand *mask_ = nullptr, *bias_ = nullptr, *slopes_ = nullptr, *sinks_ = nullptr, *lse_ = nullptr,
          *scores_ = nullptr;
  std::string options_name_;
  Boxed<attend_attention_options> attention_;
  std::vector<int64_t> offsets_, firsts_, lengths_;
  AttentionBound<T> bound_ = {};
  std::unique_ptr<WideCopy<T>> wide_bias_, wide_slopes_, wide_sinks_;
  std::unique_ptr<reference::Buffer<Wide<T>>> want_out_, want_lse_, want_scores_;

 private:
  static constexpr int64_t kStart = 0;

  static int64_t side(Decoder &d, int64_t keys) {
    const int64_t kind = d.in(0, 7);
    return kind == 6 ? -1 : kind == 7 ? d.pick({INT64_MAX, INT64_MAX - 1, int64_t{1} << 60}) : d.in(0, keys);
  }
  static int64_t place(Decoder &d, int64_t keys) {
    if (d.one_in(16)) return d.pick({INT64_MAX, INT64_MIN, INT64_MIN + 1, int64_t{1} << 60, -(int64_t{1} << 61)});
    return d.in(-5, keys + 5);
  }
};

template <class T>
class AttentionCall : public AttentionBase<T> {
  using Base = AttentionBase<T>;

 public:
  explicit AttentionCall(Decoder &d) {
    this->function_ = "attend_attention";
    int64_t features = d.extent(), values = d.extent(), queries = d.extent(), keys = d.extent();
    int64_t kv_heads = few(d), group = d.pick<int64_t>({1, 1, 2, 4, 3}), batch = few(d);
    if (d.one_in(8)) keys = d.pick<int64_t>({255, 256, 257, 300, 511, 512, 513, 770});
    if (d.one_in(8)) queries = 1;
    limit({&features, &values, &queries, &keys, &kv_heads, &batch}, 1 << 15);
    // Enough work, and keys, for the library to share out over threads.
    if (d.one_in(200)) {
      features = values = 33, queries = d.pick<int64_t>({8, 16, 17}), kv_heads = batch = 1, group = 1;
      keys = d.pick<int64_t>({1024, 1025, 1100, 1290});
    }
    const int64_t heads = kv_heads * group;
    q_ = &this->add(d, "q", Role::input, kDtype<T>, some_of(d, {features, queries, heads, batch}, 3));
    k_ = &this->add(d, "k", Role::input, kDtype<T>, some_of(d, {features, keys, kv_heads, batch}, 3));
    v_ = &this->add(d, "v", Role::input, kDtype<T>, some_of(d, {values, keys, kv_heads, batch}, 3));
    out_ = &this->add(d, "out", Role::output, kDtype<T>, {values, queries, heads, batch});
    this->add_options(d, "options", {queries, keys, heads, batch});
    this->attention_.value.threads = static_cast<int32_t>(d.in(0, 3));
    this->heads_ = {head_of("options", 31, this->attention_)};
  }

 private:
  int64_t batch() const override { return Extent(out_->view).shape[3]; }
  int64_t keys() const override { return Extent(k_->view).shape[1]; }
  attend_status run() override {
    return attend_attention(q_->tensor(), k_->tensor(), v_->tensor(), out_->tensor(), this->attention_.pointer());
  }
  attend_status workspace(uint64_t *bytes) override {
    return attend_attention_workspace(q_->tensor(), k_->tensor(), v_->tensor(), out_->tensor(),
                                      this->attention_.pointer(), bytes);
  }
  void find_shape_faults(Faults *faults) const override {
    this->find_operand_faults(faults, *q_, *k_, *v_, Extent(out_->view).shape);
  }
  void expect() override {
    const WideCopy<T> q(*q_), k(*k_), v(*v_);
    const Shape out = Extent(out_->view).shape;
    const int64_t keys = k.view.shape[1];
    spec_ = this->specify(keys, out[1], out[2]);
    AttentionBound<T> &bound = this->bound_;
    bound.features = static_cast<double>(q.view.shape[0]);
    bound.partial = static_cast<double>(std::fabs(spec_.scale_for(q.view.shape[0]))) * longest(q) * longest(k);
    bound.values = v.largest;
    if (this->is_beyond_oracle()) return;
    this->want_out_ = std::make_unique<reference::Buffer<Wide<T>>>(out[0], out[1], out[2], out[3]);
    reference::naive::attention<Wide<T>>(q.view, k.view, v.view, this->want_out_->view, spec_);
    if (!v.finite) mark_unsure(q, k, v);
  }
  // 0 times Inf is NaN: where a key's V is not finite, the result hangs on whether its weight is 0 or only tiny.
  void mark_unsure(const WideCopy<T> &q, const WideCopy<T> &k, const WideCopy<T> &v) {
    const Shape out = this->want_out_->view.shape;
    const int64_t keys = k.view.shape[1], group = out[2] / std::max<int64_t>(1, k.view.shape[2]);
    reference::Buffer<Wide<T>> ignored(out[0], out[1], out[2], out[3]), lse(1, out[1], out[2], out[3]),
        weights(keys, out[1], out[2], out[3]);
    spec_.scores_stage = ATTEND_SCORES_PROBABILITIES;
    spec_.lse = &lse.view;
    spec_.scores = &weights.view;
    reference::naive::attention<Wide<T>>(q.view, k.view, v.view, ignored.view, spec_);
    for (int64_t b = 0; b < out[3]; ++b)
      for (int64_t h = 0; h < out[2]; ++h)
        for (int64_t i = 0; i < out[1]; ++i)
          for (int64_t j = 0; j < keys; ++j) {
            if (!spec_.visible(j, i, keys, out[1], b) || (spec_.mask && !spec_.mask(j, i, h, b))) continue;
            if (spec_.bias && spec_.bias(j, i, h, b) == -std::numeric_limits<Wide<T>>::infinity()) continue;
            if (!(weights.view.at(j, i, h, b) < std::sqrt(std::numeric_limits<T>::min()))) continue;
            for (int64_t f = 0; f < out[0]; ++f) {
              if (!std::isfinite(v.view.at(f, j, h / group, b))) unsure_.push_back({f, i, h, b});
            }
          }
    std::sort(unsure_.begin(), unsure_.end());
  }
  void compare(const std::string &isa) const override {
    if (!this->want_out_) return;
    const std::string told = "attend_attention on " + isa;
    compare_with<T>(*out_, this->want_out_->view, told, [&](int64_t f, int64_t i, int64_t h, int64_t b) {
      return std::binary_search(unsure_.begin(), unsure_.end(), Shape{f, i, h, b}) ? kNoBound : this->bound_.output();
    });
    this->compare_options(told);
  }
  // The largest norm of a column, what is not finite aside.
  static double longest(const WideCopy<T> &x) {
    double most = 0;
    const size_t rows = static_cast<size_t>(x.view.shape[0]);
    for (size_t from = 0; rows > 0 && from < x.values.size(); from += rows) {
      double sum = 0;
      for (size_t i = from; i < from + rows; ++i) {
        const double value = static_cast<double>(x.values[i]);
        if (std::isfinite(value)) sum += value * value;
      }
      most = std::max(most, std::sqrt(sum));
    }
    return most;
  }

  Operand *q_, *k_, *v_, *out_;
  reference::AttentionSpec<Wide<T>> spec_;
  std::vector<Shape> unsure_;
};

}  // namespace attend::fuzz
