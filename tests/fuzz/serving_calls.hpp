// attend_rotary and attend_kv_append: arguments, formula, bound.
#pragma once

#include "plain_calls.hpp"

namespace attend::fuzz {

// What both have: tables, and arrays with numbers of tokens and of sequences.
template <class T, class Options>
class ServingCall : public Call {
 protected:
  // Of a batch, or of packed sequences: their shape is (features, columns, heads, batches).
  struct Sizes {
    int64_t columns, batches, sequences;
  };
  Sizes draw_tokens(Decoder &d) {
    Sizes s = {d.extent(), few(d), 0};
    limit({&s.columns, &s.batches}, 60);
    if (d.one_in(3)) {
      s.batches = 1;
      starts_ = {0};
      for (int64_t n = d.in(1, 4); n > 1; --n) starts_.push_back(d.in(starts_.back(), s.columns));
      starts_.push_back(s.columns);
      s.sequences = static_cast<int64_t>(starts_.size()) - 1;
      options_.value.sequences = s.sequences;
    } else {
      s.sequences = s.batches;
    }
    return s;
  }
  void add_tables(Decoder &d, const std::string &before, bool required, int64_t pairs, int64_t positions, int64_t heads,
                  int64_t sequences) {
    const Shape shape = {pairs, positions, d.one_in(4) ? heads : 1, d.one_in(4) ? sequences : 1};
    cos_ = &add(d, before + "cos", Role::input, kDtype<T>, shape, required);
    sin_ = &add(d, before + "sin", Role::input, kDtype<T>, shape, required);
  }

  bool is_packed() const { return options_.value.starts != nullptr; }
  Shape x_shape() const { return Extent(operands_[0].view).shape; }
  bool is_empty() const { return Extent(operands_[0].view).empty; }
  long double tokens() const { return static_cast<long double>(x_shape()[1]) * static_cast<long double>(x_shape()[3]); }
  int64_t sequences() const { return is_packed() ? options_.value.sequences : x_shape()[3]; }
  int64_t begin(int64_t sequence) const {
    return is_packed() ? starts_[static_cast<size_t>(sequence)] : sequence * x_shape()[1];
  }
  int64_t length(int64_t sequence) const { return begin(sequence + 1) - begin(sequence); }
  int64_t offset(int64_t sequence) const {
    return options_.value.offsets == nullptr ? 0 : offsets_[static_cast<size_t>(sequence)];
  }
  bool starts_are_right() const {
    return !is_packed() ||
           (starts_[0] == 0 && std::is_sorted(starts_.begin(), starts_.end()) && starts_.back() == x_shape()[1]);
  }
  // What was drawn for other shapes than those that there are now is left out.
  void connect_arrays() {
    Options &o = options_.value;
    const bool packs = !starts_.empty() && o.sequences == static_cast<int64_t>(starts_.size()) - 1;
    o.starts = packs ? starts_.data() : nullptr;
    const auto fits = [](const std::vector<int64_t> &v, long double count) {
      return !v.empty() && static_cast<long double>(v.size()) == count;
    };
    o.offsets = fits(offsets_, static_cast<long double>(sequences())) ? offsets_.data() : nullptr;
    o.positions = fits(positions_, tokens()) ? positions_.data() : nullptr;
  }
  void spoil_array(Decoder &d) {
    std::vector<int64_t> *const arrays[] = {&starts_, &offsets_, &positions_};
    std::vector<int64_t> &one = *arrays[d.in(0, 2)];
    if (!one.empty()) one[static_cast<size_t>(d.in(0, static_cast<int64_t>(one.size()) - 1))] = number(d);
  }
  static int64_t number(Decoder &d) {
    return d.one_in(2) ? d.any() : d.pick({INT64_MAX, INT64_MIN, int64_t{-1}, int64_t{-2}, d.in(0, 70)});
  }
  void find_packing_faults(Faults *faults) const {
    const Options &o = options_.value;
    if (o.sequences < 0 || o.sequences > (int64_t{1} << 48) || (o.sequences == 0) != (o.starts == nullptr))
      faults->add(ATTEND_INVALID_VALUE, "options.sequences");
  }
  void find_batch_faults(Faults *faults) const {
    if (is_packed() && x_shape()[3] != 1) faults->add(ATTEND_INVALID_SHAPE, "*");
  }
  int64_t rotated_dims() const { return options_.value.rotary_dims == 0 ? x_shape()[0] : options_.value.rotary_dims; }
  bool dims_are_right() const {
    return rotated_dims() >= 0 && rotated_dims() <= x_shape()[0] && rotated_dims() % 2 == 0;
  }
  // Which x alone tells, whatever another operand is.
  void find_dims_faults(Faults *faults) const {
    if (!dims_are_right()) faults->add(ATTEND_INVALID_VALUE, "options.rotary_dims", false);
  }
  void find_table_faults(Faults *faults) const {
    const Shape x = x_shape(), c = Extent(cos_->view).shape;
    if (!dims_are_right()) return faults->add(ATTEND_INVALID_VALUE, "options.rotary_dims");
    expect_shape(faults, *cos_, {rotated_dims() / 2, c[1], x[2], sequences()}, 12);
    expect_shape(faults, *sin_, c);
    const bool columns = !is_packed() && options_.value.offsets == nullptr && options_.value.positions == nullptr;
    if (columns && x[1] > c[1]) faults->add(ATTEND_INVALID_VALUE, cos_->name, !is_empty());
  }
  // `goes(token)`: whether it goes anywhere.
  template <class Goes>
  void find_position_faults(Faults *faults, const Goes &goes) const {
    const int64_t positions = Extent(cos_->view).shape[1];
    if (options_.value.positions != nullptr) {
      for (size_t t = 0; t < positions_.size(); ++t) {
        if (goes(t) && (positions_[t] < 0 || positions_[t] >= positions))
          faults->add(ATTEND_INVALID_VALUE, "options.positions");
      }
      return;
    }
    for (int64_t b = 0; b < sequences(); ++b) {
      if (length(b) == 0 || (offset(b) >= 0 && offset(b) <= positions - length(b))) continue;
      faults->add(ATTEND_INVALID_VALUE, options_.value.offsets != nullptr ? "options.offsets" : cos_->name);
    }
  }
  int64_t position(int64_t token, int64_t sequence) const {
    if (options_.value.positions != nullptr) return positions_[static_cast<size_t>(token)];
    return offset(sequence) + token - begin(sequence);
  }

  // The rotated feature and how large what it is made of is.
  struct Rotated {
    Wide<T> value, size;
  };
  Rotated rotated(int64_t i, int64_t j, int64_t h, int64_t b, int64_t at, int64_t sequence, bool interleaved,
                  bool inverse) const {
    const int64_t pairs = wide_cos_->view.shape[0];
    const Wide<T> own = wide_x_->view.at(i, j, h, b);
    if (i >= 2 * pairs) return {own, 0};
    const int64_t pair = interleaved ? i / 2 : i % pairs;
    const bool first = interleaved ? i % 2 == 0 : i < pairs;
    const Wide<T> other = wide_x_->view.at(interleaved ? i ^ 1 : first ? i + pairs : i - pairs, j, h, b);
    const auto of = [&](const WideCopy<T> &table) {
      const Shape &s = table.view.shape;
      return table.view.at(pair, at, s[2] == 1 ? 0 : h, s[3] == 1 ? 0 : sequence);
    };
    const Wide<T> c = of(*wide_cos_), s = first != inverse ? -of(*wide_sin_) : of(*wide_sin_);
    return {own * c + other * s, std::fabs(own * c) + std::fabs(other * s)};
  }
  static double bound(Wide<T> size) {
    return 4 * (kUnit<T> * static_cast<double>(size) + static_cast<double>(std::numeric_limits<T>::min()));
  }

  Operand *cos_ = nullptr, *sin_ = nullptr;
  std::vector<int64_t> starts_, offsets_, positions_;
  Boxed<Options> options_;
  std::unique_ptr<WideCopy<T>> wide_x_, wide_cos_, wide_sin_;
};

template <class T>
class RotaryCall : public ServingCall<T, attend_rotary_options> {
  using Base = ServingCall<T, attend_rotary_options>;

 public:
  explicit RotaryCall(Decoder &d) {
    this->function_ = "attend_rotary";
    const auto s = this->draw_tokens(d);
    const int64_t features = d.one_in(12) ? 2 * d.in(380, 420) : d.extent() + 2, heads = few(d);
    int64_t dims = features / 2 * 2;
    if (features % 2 != 0 || d.one_in(3)) this->options_.value.rotary_dims = dims = 2 * d.in(1, features / 2);
    const int64_t positions = s.columns + d.in(0, 9);
    x_ = &this->add(d, "x", Role::input, kDtype<T>, {features, s.columns, heads, s.batches});
    this->add_tables(d, "", true, dims / 2, positions, heads, s.sequences);
    y_ = &this->add(d, "y", Role::output, kDtype<T>, {features, s.columns, heads, s.batches});
    this->in_place_ = y_;
    const int64_t kind = d.in(0, 2);
    if (kind == 1) this->offsets_.assign(static_cast<size_t>(s.sequences), d.in(0, positions - s.columns));
    if (kind == 2) {
      this->positions_.resize(static_cast<size_t>(s.columns * s.batches));
      for (int64_t &p : this->positions_) p = d.in(0, std::max<int64_t>(0, positions - 1));
    }
    this->options_.value.flags = static_cast<uint32_t>(d.in(0, 3));
    this->options_.value.threads = static_cast<int32_t>(d.in(0, 3));
    this->heads_ = {head_of("options", 3, this->options_)};
  }

 private:
  void connect() override {
    if (!this->options_.given) this->options_.value = {}, this->starts_.clear();
    this->connect_arrays();
    if (!this->options_.given) this->options_.value.offsets = this->options_.value.positions = nullptr;
  }
  attend_status run() override {
    return attend_rotary(x_->tensor(), this->cos_->tensor(), this->sin_->tensor(), y_->tensor(),
                         this->options_.pointer());
  }
  attend_status workspace(uint64_t *bytes) override {
    return attend_rotary_workspace(x_->tensor(), this->cos_->tensor(), this->sin_->tensor(), y_->tensor(),
                                   this->options_.pointer(), bytes);
  }
  void spoil_option(Decoder &d) override {
    if (d.in(0, 1) == 0) return this->spoil_array(d);
    (d.in(0, 1) == 0 ? this->options_.value.rotary_dims : this->options_.value.sequences) = Base::number(d);
  }
  void find_faults(Faults *faults) const override {
    this->find_packing_faults(faults);
    this->find_dims_faults(faults);
    if (this->options_.value.positions != nullptr && this->options_.value.offsets != nullptr)
      faults->add(ATTEND_INVALID_VALUE, "options.offsets");
  }
  void find_shape_faults(Faults *faults) const override {
    this->find_batch_faults(faults);
    this->find_table_faults(faults);
    this->expect_shape(faults, *y_, this->x_shape());
  }
  void find_number_faults(Faults *faults) const override {
    if (this->is_empty()) return;
    if (!this->starts_are_right()) return faults->add(ATTEND_INVALID_VALUE, "options.starts");
    this->find_position_faults(faults, [](size_t) { return true; });
  }
  void expect() override {
    this->wide_x_ = std::make_unique<WideCopy<T>>(*x_);
    this->wide_cos_ = std::make_unique<WideCopy<T>>(*this->cos_);
    this->wide_sin_ = std::make_unique<WideCopy<T>>(*this->sin_);
    want_ = std::make_unique<WideCopy<T>>(*x_);
    size_ = std::make_unique<WideCopy<T>>(*x_);
    const uint32_t flags = this->options_.value.flags;
    for (int64_t q = 0; !this->is_empty() && q < this->sequences(); ++q) {
      for (int64_t t = this->begin(q); t < this->begin(q + 1); ++t) {
        const Shape s = this->x_shape();
        const int64_t j = t % s[1], b = t / s[1];
        for (int64_t h = 0; h < s[2]; ++h) {
          for (int64_t i = 0; i < s[0]; ++i) {
            const auto r = this->rotated(i, j, h, b, this->position(t, q), q, (flags & ATTEND_ROTARY_INTERLEAVED) != 0,
                                         (flags & ATTEND_ROTARY_INVERSE) != 0);
            want_->view.at(i, j, h, b) = r.value;
            size_->view.at(i, j, h, b) = r.size;
          }
        }
      }
    }
  }
  void compare(const std::string &isa) const override {
    compare_with<T>(*y_, want_->view, "attend_rotary on " + isa, [&](int64_t i, int64_t j, int64_t h, int64_t b) {
      return Base::bound(size_->view.at(i, j, h, b));
    });
  }

  Operand *x_, *y_;
  std::unique_ptr<WideCopy<T>> want_, size_;
};

}  // namespace attend::fuzz
