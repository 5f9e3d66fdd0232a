// attend_attention over packed sequences and over pages: arguments, formula, bound.
#pragma once

#include "attention_calls.hpp"

namespace attend::fuzz {

template <class T>
class RaggedCall : public Call {
 public:
  explicit RaggedCall(Decoder &d) {
    function_ = "attend_attention";
    const int64_t features = d.extent() + 1, values = d.extent(), kv_heads = few(d), heads = kv_heads * d.in(1, 3);
    const int64_t sequences = d.in(1, 4);
    paged_ = d.one_in(2);
    page_ = d.pick<int64_t>({1, 3, 16});
    const int64_t row = d.in(1, 3);
    starts_ = key_starts_ = {0};
    for (int64_t b = 0; b < sequences; ++b) {
      const int64_t keys = d.one_in(8) ? d.in(250, 270) : d.in(0, 12);
      starts_.push_back(starts_.back() + d.in(0, 6));
      key_starts_.push_back(key_starts_.back() + keys);
      lengths_.push_back(d.in(0, row * page_));
    }
    const int64_t pool = sequences * row + 1;
    for (int64_t i = 0; i < sequences * row; ++i) table_.push_back(static_cast<int32_t>((i * 5 + 1) % pool));
    pages_ = {table_.data(), ATTEND_I32, 2, {row, sequences, 0, 0}, {1, row, 0, 0}};
    const int64_t columns = paged_ ? page_ : key_starts_.back(), batches = paged_ ? pool : 1;
    q_ = &add(d, "q", Role::input, kDtype<T>, {features, starts_.back(), heads, 1});
    k_ = &add(d, "k", Role::input, kDtype<T>, {features, columns, kv_heads, batches});
    v_ = &add(d, "v", Role::input, kDtype<T>, {values, columns, kv_heads, batches});
    out_ = &add(d, "out", Role::output, kDtype<T>, {values, starts_.back(), heads, 1});
    attend_attention_options &o = options_.value;
    o.threads = static_cast<int32_t>(d.in(0, 3));
    o.flags = d.pick<uint32_t>({0, ATTEND_CAUSAL_TOP_LEFT, ATTEND_CAUSAL_BOTTOM_RIGHT});
    o.sequences = sequences;
    heads_ = {head_of("options", 31, options_)};
  }

 private:
  int64_t sequences() const { return static_cast<int64_t>(lengths_.size()); }
  // (Without options, or with a number that no array has, nothing is packed: then shapes do not fit.)
  bool packs() const { return options_.given && options_.value.sequences == sequences(); }

  void connect() override {
    attend_attention_options &o = options_.value;
    if (!options_.given) o = {};
    o.query_starts = packs() ? starts_.data() : nullptr;
    o.key_starts = packs() && !paged_ ? key_starts_.data() : nullptr;
    o.pages = packs() && paged_ ? &pages_ : nullptr;
    o.kv_lengths = packs() && paged_ ? lengths_.data() : nullptr;
  }
  attend_status run() override {
    return attend_attention(q_->tensor(), k_->tensor(), v_->tensor(), out_->tensor(), options_.pointer());
  }
  attend_status workspace(uint64_t *bytes) override {
    return attend_attention_workspace(q_->tensor(), k_->tensor(), v_->tensor(), out_->tensor(), options_.pointer(),
                                      bytes);
  }
  void spoil_option(Decoder &d) override {
    const auto some = [&](auto &array) -> auto & {
      return array[static_cast<size_t>(d.in(0, static_cast<int64_t>(array.size()) - 1))];
    };
    const auto number = [&] { return d.one_in(2) ? d.any() : d.in(-1, 20); };
    switch (d.in(0, 4)) {
      case 0:
        some(starts_) = number();
        break;
      case 1:
        some(key_starts_) = number();
        break;
      case 2:
        some(lengths_) = number();
        break;
      case 3:
        some(table_) = static_cast<int32_t>(number());
        break;
      default:
        options_.value.sequences = d.pick<int64_t>({-1, 0, INT64_MAX});
    }
  }
  void find_faults(Faults *faults) const override {
    const attend_attention_options &o = options_.value;
    if (o.sequences != 0 && !packs()) faults->add(ATTEND_INVALID_VALUE, "options.sequences");
    constexpr uint32_t kBoth = ATTEND_CAUSAL_TOP_LEFT | ATTEND_CAUSAL_BOTTOM_RIGHT;
    if ((o.flags & kBoth) == kBoth) faults->add(ATTEND_INVALID_VALUE, "options.flags");
    if ((o.flags & (ATTEND_PARTIAL | ATTEND_CONTINUE)) == 0) return;
    faults->add(ATTEND_NULL_POINTER, "options.state");
    if ((o.flags & ATTEND_CAUSAL_BOTTOM_RIGHT) != 0) faults->add(ATTEND_INVALID_VALUE, "options.flags");
  }
  void find_shape_faults(Faults *faults) const override {
    const Shape q = Extent(q_->view).shape, k = Extent(k_->view).shape, v = Extent(v_->view).shape;
    if (q[0] == 0) faults->add(ATTEND_INVALID_SHAPE, "q");
    if (q[2] != 0 && (k[2] <= 0 || q[2] % k[2] != 0)) faults->add(ATTEND_INVALID_SHAPE, "k");
    if (!packs()) {
      const int64_t batch = q[3] != 1 ? q[3] : k[3] != 1 ? k[3] : v[3] != 1 ? v[3] : Extent(out_->view).shape[3];
      expect_shape(faults, *k_, {q[0], k[1], k[2], batch}, 8);
      expect_shape(faults, *v_, {v[0], k[1], k[2], batch}, 8);
      return expect_shape(faults, *out_, {v[0], q[1], q[2], batch});
    }
    expect_shape(faults, *q_, {q[0], q[1], q[2], 1});
    expect_shape(faults, *k_, {q[0], k[1], k[2], paged_ ? k[3] : 1});
    expect_shape(faults, *v_, {v[0], k[1], k[2], paged_ ? k[3] : 1});
    expect_shape(faults, *out_, {v[0], q[1], q[2], 1});
  }
  static bool right(const std::vector<int64_t> &starts, int64_t total) {
    return starts[0] == 0 && std::is_sorted(starts.begin(), starts.end()) && starts.back() == total;
  }
  void find_number_faults(Faults *faults) const override {
    if (!packs()) return;
    const Shape k = Extent(k_->view).shape;
    if (!right(starts_, Extent(q_->view).shape[1])) faults->add(ATTEND_INVALID_VALUE, "options.query_starts");
    if (!paged_) {
      if (!right(key_starts_, k[1])) faults->add(ATTEND_INVALID_VALUE, "options.key_starts");
      return;
    }
    for (size_t b = 0; b < lengths_.size(); ++b) {
      const int64_t row = pages_.shape[0];
      if (lengths_[b] < 0 || lengths_[b] > row * k[1]) {
        faults->add(ATTEND_INVALID_VALUE, "options.kv_lengths");
        continue;
      }
      for (int64_t j = 0; j < lengths_[b]; j += k[1]) {
        const int64_t page = table_[b * static_cast<size_t>(row) + static_cast<size_t>(j / k[1])];
        if (page < 0 || page >= k[3]) faults->add(ATTEND_INVALID_VALUE, "options.pages");
      }
    }
  }

  void expect() override {
    const WideCopy<T> q(*q_), k(*k_), v(*v_);
    known_ = packs() && q.finite && k.finite && v.finite;
    if (!known_) return;
    bound_.features = static_cast<double>(q.view.shape[0]);
    bound_.partial = q.largest * k.largest * std::sqrt(bound_.features);
    bound_.values = v.largest;
    bound_.keys = 300;
    const Shape shape = Extent(out_->view).shape;
    want_ = std::make_unique<reference::Buffer<Wide<T>>>(shape[0], shape[1], shape[2]);
    for (int64_t b = 0; b < sequences(); ++b) expect_sequence(b, q, k, v);
  }
  void expect_sequence(int64_t b, const WideCopy<T> &q, const WideCopy<T> &k, const WideCopy<T> &v) {
    const size_t at = static_cast<size_t>(b);
    const int64_t first = starts_[at], queries = starts_[at + 1] - first, key = paged_ ? 0 : key_starts_[at],
                  keys = paged_ ? lengths_[at] : key_starts_[at + 1] - key;
    const Shape of_q = q.view.shape, of_out = want_->view.shape;
    reference::Buffer<Wide<T>> q1(of_q[0], queries, of_q[2]), k1(of_q[0], keys, k.view.shape[2]),
        v1(of_out[0], keys, k.view.shape[2]), out1(of_out[0], queries, of_out[2]);
    const auto fill = [](auto &to, const auto &value) {
      const Shape s = to.view.shape;
      for (int64_t h = 0; h < s[2]; ++h)
        for (int64_t j = 0; j < s[1]; ++j)
          for (int64_t i = 0; i < s[0]; ++i) to.view.at(i, j, h) = value(i, j, h);
    };
    const auto of_key = [&](const WideCopy<T> &from) {
      return [&, this](int64_t i, int64_t j, int64_t h) {
        if (!paged_) return from.view.at(i, key + j, h);
        const int64_t size = k.view.shape[1],
                      page = table_[at * static_cast<size_t>(pages_.shape[0]) + static_cast<size_t>(j / size)];
        return from.view.at(i, j % size, h, page);
      };
    };
    fill(q1, [&](int64_t i, int64_t j, int64_t h) { return q.view.at(i, first + j, h); });
    fill(k1, of_key(k));
    fill(v1, of_key(v));
    reference::AttentionSpec<Wide<T>> spec;
    const uint32_t flags = options_.value.flags;
    if ((flags & ATTEND_CAUSAL_TOP_LEFT) != 0) spec.causal = reference::Causal::top_left;
    if ((flags & ATTEND_CAUSAL_BOTTOM_RIGHT) != 0) spec.causal = reference::Causal::bottom_right;
    reference::naive::attention<Wide<T>>(q1.view, k1.view, v1.view, out1.view, spec);
    for (int64_t h = 0; h < of_out[2]; ++h)
      for (int64_t j = 0; j < queries; ++j)
        for (int64_t i = 0; i < of_out[0]; ++i) want_->view.at(i, first + j, h) = out1.view.at(i, j, h);
  }
  void compare(const std::string &isa) const override {
    if (!known_ || !(bound_.score() < 0.01)) return;
    compare_with<T>(*out_, want_->view, "attend_attention of sequences on " + isa,
                    [&](auto...) { return bound_.output(); });
  }

  bool paged_, known_ = false;
  int64_t page_;
  Operand *q_, *k_, *v_, *out_;
  std::vector<int64_t> starts_, key_starts_, lengths_;
  std::vector<int32_t> table_;
  attend_tensor pages_ = {};
  Boxed<attend_attention_options> options_;
  AttentionBound<T> bound_ = {};
  std::unique_ptr<reference::Buffer<Wide<T>>> want_;
};

}  // namespace attend::fuzz
