// attend_kv_append with all kinds of caches.
#pragma once

#include "serving_calls.hpp"

namespace attend::fuzz {

template <class T>
class KvAppendCall : public ServingCall<T, attend_kv_append_options> {
  using Base = ServingCall<T, attend_kv_append_options>;

 public:
  explicit KvAppendCall(Decoder &d) {
    this->function_ = "attend_kv_append";
    const auto s = this->draw_tokens(d);
    const int64_t features = d.one_in(12) ? 2 * d.in(380, 420) : d.extent() + 2, values = d.extent(), heads = few(d);
    const int64_t kind = d.in(0, 2), room = d.in(0, 5), tokens = s.columns * s.batches;
    Shape cache = {0, s.columns + room, heads, s.sequences};
    attend_kv_append_options &o = this->options_.value;
    if (kind != 2) {
      for (int64_t b = 0; b < s.sequences; ++b) this->offsets_.push_back(d.in(0, room));
    }
    if (kind == 1) {  // each page once
      const int64_t page = d.in(1, 5), most = (s.columns + room) / page + 1;
      cache = {0, page, heads, most * s.sequences};
      for (int64_t i = 0; i < cache[3]; ++i) pages_.push_back(static_cast<int32_t>(cache[3] - 1 - i));
      table_ = {pages_.data(), ATTEND_I32, 2, {most, s.sequences}, {1, most}};
    } else if (kind == 2) {
      cache[1] = d.in(1, 7);
      cache[3] = tokens / cache[1] + 1;
      for (int64_t t = 0; t < tokens; ++t) slots_.push_back(d.one_in(4) ? -1 : tokens - 1 - t);
    }
    k_ = &this->add(d, "k", Role::input, kDtype<T>, {features, s.columns, heads, s.batches});
    v_ = &this->add(d, "v", Role::input, kDtype<T>, {values, s.columns, heads, s.batches}, false);
    const bool narrow = kDtype<T> == ATTEND_F32 && d.one_in(3);
    const auto type = [&] { return narrow ? d.pick<uint32_t>({ATTEND_I8, ATTEND_F8E4M3}) : kDtype<T>; };
    k_cache_ = &this->add(d, "k_cache", Role::output, type(), {features, cache[1], heads, cache[3]});
    v_cache_ = &this->add(d, "v_cache", Role::output, type(), {values, cache[1], heads, cache[3]}, false);
    v_->given = v_cache_->given = !d.one_in(4);
    const auto scale = [&](const char *name, uint32_t flag, const Operand &of) {
      const bool computes = narrow && d.in(0, 1) == 0;
      const Shape shape = {1, cache[1], heads, cache[3]};
      Operand &x = this->add(d, name, computes ? Role::output : Role::input, ATTEND_F32, shape, false);
      if (computes && of.given) o.flags |= flag;
      x.given = narrow && of.given;
      return &x;
    };
    k_scale_ = scale("options.k_scale", ATTEND_COMPUTE_K_SCALE, *k_cache_);
    v_scale_ = scale("options.v_scale", ATTEND_COMPUTE_V_SCALE, *v_cache_);
    const bool rotates = d.in(0, 2) != 2;
    int64_t dims = features / 2 * 2;
    if (rotates && (features % 2 != 0 || d.one_in(3))) o.rotary_dims = dims = 2 * d.in(1, features / 2);
    const int64_t positions = s.columns + room + 1;
    this->add_tables(d, "options.", false, dims / 2, positions, heads, s.sequences);
    this->cos_->given = this->sin_->given = rotates;
    if (rotates && (kind == 2 || d.one_in(3))) {
      for (int64_t t = 0; t < tokens; ++t) this->positions_.push_back(d.in(0, positions - 1));
    }
    if (rotates && d.in(0, 1) != 0) o.flags |= ATTEND_ROTARY_INTERLEAVED;
    o.threads = static_cast<int32_t>(d.in(0, 3));
    this->heads_ = {head_of("options", 13, this->options_)};
  }

 private:
  bool has_v() const { return v_->given || v_cache_->given; }
  bool computes(uint32_t flag) const { return (this->options_.value.flags & flag) != 0; }

  void connect() override {
    attend_kv_append_options &o = this->options_.value;
    if (!this->options_.given) o = {}, this->starts_.clear(), this->offsets_.clear(), this->positions_.clear();
    for (Operand *p : {k_scale_, v_scale_, this->cos_, this->sin_}) p->given &= this->options_.given;
    this->connect_arrays();
    const bool fits = static_cast<long double>(slots_.size()) == this->tokens() && this->options_.given;
    o.slots = slots_.empty() || !fits ? nullptr : slots_.data();
    o.pages = pages_.empty() || !this->options_.given ? nullptr : &table_;
    o.k_scale = k_scale_->tensor();
    o.v_scale = v_scale_->tensor();
    o.cos = this->cos_->tensor();
    o.sin = this->sin_->tensor();
    // A scale that is written only where it is an output.
    if (k_scale_->role == Role::input) o.flags &= ~ATTEND_COMPUTE_K_SCALE;
    if (v_scale_->role == Role::input) o.flags &= ~ATTEND_COMPUTE_V_SCALE;
  }
  attend_status run() override {
    return attend_kv_append(k_->tensor(), v_->tensor(), k_cache_->tensor(), v_cache_->tensor(),
                            this->options_.pointer());
  }
  attend_status workspace(uint64_t *bytes) override {
    return attend_kv_append_workspace(k_->tensor(), v_->tensor(), k_cache_->tensor(), v_cache_->tensor(),
                                      this->options_.pointer(), bytes);
  }
  void spoil_option(Decoder &d) override {
    switch (d.in(0, 4)) {
      case 0:
        return this->spoil_array(d);
      case 1:
        this->options_.value.rotary_dims = Base::number(d);
        break;
      case 2:
        if (!slots_.empty())
          slots_[static_cast<size_t>(d.in(0, static_cast<int64_t>(slots_.size()) - 1))] = Base::number(d);
        break;
      case 3:
        if (!pages_.empty())
          pages_[static_cast<size_t>(d.in(0, static_cast<int64_t>(pages_.size()) - 1))] =
              static_cast<int32_t>(d.pick<int64_t>({-1, INT32_MIN, INT32_MAX}));
        break;
      default:
        table_.shape[d.in(0, 1)] -= 1;
    }
  }

  void find_scale_faults(Faults *faults, const Operand &scale, uint32_t flag, const Operand &cache) const {
    const bool takes = cache.view.dtype == ATTEND_I8 || cache.view.dtype == ATTEND_F8E4M3;
    if (!takes && computes(flag)) return faults->add(ATTEND_INVALID_VALUE, "options.flags");
    if (!takes && scale.given) return faults->add(ATTEND_INVALID_VALUE, scale.name);
    if (!scale.given && (computes(flag) || cache.view.dtype == ATTEND_I8)) faults->add(ATTEND_NULL_POINTER, scale.name);
  }
  void find_faults(Faults *faults) const override {
    const attend_kv_append_options &o = this->options_.value;
    const bool rotates = o.cos != nullptr || o.sin != nullptr;
    const auto wrong = [&](bool is, const char *name, int reason = ATTEND_INVALID_VALUE) {
      if (is) faults->add(reason, name);
    };
    this->find_packing_faults(faults);
    if (rotates) this->find_dims_faults(faults);
    wrong(o.slots != nullptr && o.offsets != nullptr, "options.offsets");
    wrong(o.slots != nullptr && o.pages != nullptr, "options.pages");
    wrong(rotates && o.cos == nullptr, "options.cos", ATTEND_NULL_POINTER);
    wrong(rotates && o.sin == nullptr, "options.sin", ATTEND_NULL_POINTER);
    wrong(!rotates && o.rotary_dims != 0, "options.rotary_dims");
    wrong(!rotates && o.positions != nullptr, "options.positions");
    wrong(!rotates && computes(ATTEND_ROTARY_INTERLEAVED), "options.flags");
    wrong(rotates && o.slots != nullptr && o.positions == nullptr, "options.positions", ATTEND_NULL_POINTER);
    wrong(has_v() && !v_->given, "v", ATTEND_NULL_POINTER);
    wrong(has_v() && !v_cache_->given, "v_cache", ATTEND_NULL_POINTER);
    wrong(!has_v() && v_scale_->given, "options.v_scale");
    wrong(!has_v() && computes(ATTEND_COMPUTE_V_SCALE), "options.flags");
    find_scale_faults(faults, *k_scale_, ATTEND_COMPUTE_K_SCALE, *k_cache_);
    if (has_v()) find_scale_faults(faults, *v_scale_, ATTEND_COMPUTE_V_SCALE, *v_cache_);
  }
  void find_shape_faults(Faults *faults) const override {
    const Shape k = this->x_shape(), cache = Extent(k_cache_->view).shape, v = Extent(v_->view).shape;
    const attend_kv_append_options &o = this->options_.value;
    this->find_batch_faults(faults);
    this->expect_shape(faults, *v_, {v[0], k[1], k[2], k[3]});
    const bool pool = o.slots != nullptr || o.pages != nullptr;
    this->expect_shape(faults, *k_cache_, {k[0], cache[1], k[2], pool ? cache[3] : this->sequences()});
    this->expect_shape(faults, *v_cache_, {v[0], cache[1], cache[2], cache[3]});
    const auto of_scale = [&](const Operand &scale, uint32_t flag, const Operand &of) {
      Shape s = Extent(of.view).shape;
      if (computes(flag)) s[0] = 1;
      this->expect_shape(faults, scale, s, computes(flag) ? 0 : 15);
      const Shape is = Extent(scale.view).shape;
      if (scale.given && is[0] != 1 && is[1] != 1) faults->add(ATTEND_INVALID_SHAPE, scale.name);
    };
    of_scale(*k_scale_, ATTEND_COMPUTE_K_SCALE, *k_cache_);
    of_scale(*v_scale_, ATTEND_COMPUTE_V_SCALE, *v_cache_);
    if (this->cos_->given && this->sin_->given) this->find_table_faults(faults);
    if (o.pages != nullptr && table_.shape[1] != this->sequences()) faults->add(ATTEND_INVALID_SHAPE, "options.pages");
    if (o.pages != nullptr && table_.shape[0] < 0) faults->add(ATTEND_INVALID_SHAPE, "options.pages");
    const bool columns = !this->is_packed() && o.offsets == nullptr && o.slots == nullptr;
    if (columns && k[1] > capacity())
      faults->add(ATTEND_INVALID_SHAPE, o.pages != nullptr ? "options.pages" : "k_cache", !has_nothing());
  }
  bool has_nothing() const { return this->is_empty() && (!has_v() || Extent(v_->view).empty); }
  int64_t capacity() const {
    const int64_t columns = Extent(k_cache_->view).shape[1];
    return this->options_.value.pages != nullptr ? table_.shape[0] * columns : columns;
  }
  void find_number_faults(Faults *faults) const override {
    const attend_kv_append_options &o = this->options_.value;
    if (has_nothing()) return;
    if (!this->starts_are_right()) return faults->add(ATTEND_INVALID_VALUE, "options.starts");
    const Shape cache = Extent(k_cache_->view).shape;
    if (o.slots != nullptr) {
      std::vector<int64_t> sorted;
      for (const int64_t slot : slots_) {
        if (slot < -1 || slot >= cache[1] * cache[3]) faults->add(ATTEND_INVALID_VALUE, "options.slots");
        if (slot >= 0) sorted.push_back(slot);
      }
      std::sort(sorted.begin(), sorted.end());
      if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())
        faults->add(ATTEND_INVALID_VALUE, "options.slots");
    }
    for (int64_t b = 0; o.slots == nullptr && b < this->sequences(); ++b) {
      const int64_t length = this->length(b), offset = this->offset(b);
      if (length == 0) continue;
      if (offset < 0 || offset > capacity() - length) {
        faults->add(ATTEND_INVALID_VALUE, o.offsets != nullptr ? "options.offsets" : "options.starts");
        continue;
      }
      for (int64_t c = offset; o.pages != nullptr && c < offset + length; ++c) {
        const int32_t page = page_of(b, c / cache[1]);
        if (page < 0 || page >= cache[3]) faults->add(ATTEND_INVALID_VALUE, "options.pages");
      }
    }
    if (this->cos_->given && this->sin_->given)
      this->find_position_faults(faults, [&](size_t t) { return o.slots == nullptr || slots_[t] != -1; });
  }
  int32_t page_of(int64_t sequence, int64_t i) const {
    return pages_[static_cast<size_t>(sequence * table_.stride[1] + i)];
  }

  void expect() override {
    const attend_kv_append_options &o = this->options_.value;
    this->wide_x_ = std::make_unique<WideCopy<T>>(*k_);
    if (this->cos_->given) {
      this->wide_cos_ = std::make_unique<WideCopy<T>>(*this->cos_);
      this->wide_sin_ = std::make_unique<WideCopy<T>>(*this->sin_);
    }
    want_k_ = std::make_unique<WideCopy<T>>(*k_cache_);
    size_ = std::make_unique<WideCopy<T>>(*k_cache_);
    for (auto &x : size_->values) x = 0;
    const std::unique_ptr<WideCopy<T>> v = has_v() ? std::make_unique<WideCopy<T>>(*v_) : nullptr;
    if (has_v()) want_v_ = std::make_unique<WideCopy<T>>(*v_cache_);
    const Shape s = this->x_shape(), cache = Extent(k_cache_->view).shape;
    for (int64_t q = 0; !has_nothing() && q < this->sequences(); ++q) {
      for (int64_t t = this->begin(q); t < this->begin(q + 1); ++t) {
        int64_t column = this->offset(q) + t - this->begin(q), batch = q;
        if (o.slots != nullptr) {
          const int64_t slot = slots_[static_cast<size_t>(t)];
          if (slot < 0) continue;
          column = slot % cache[1];
          batch = slot / cache[1];
        } else if (o.pages != nullptr) {
          batch = page_of(q, column / cache[1]);
          column %= cache[1];
        }
        for (int64_t h = 0; h < s[2]; ++h) {
          for (int64_t i = 0; i < s[0]; ++i) {
            typename Base::Rotated r = {this->wide_x_->view.at(i, t % s[1], h, t / s[1]), 0};
            if (this->cos_->given)
              r = this->rotated(i, t % s[1], h, t / s[1], this->position(t, q), q, computes(ATTEND_ROTARY_INTERLEAVED),
                                false);
            want_k_->view.at(i, column, h, batch) = r.value;
            size_->view.at(i, column, h, batch) = r.size;
          }
          for (int64_t i = 0; has_v() && i < v->view.shape[0]; ++i)
            want_v_->view.at(i, column, h, batch) = v->view.at(i, t % s[1], h, t / s[1]);
        }
      }
    }
  }
  // What is not rotated, and what is no new token's, is exact.
  void compare(const std::string &isa) const override {
    compare_with<T>(*k_cache_, want_k_->view, "attend_kv_append on " + isa,
                    [&](int64_t i, int64_t j, int64_t h, int64_t b) {
                      const Wide<T> size = size_->view.at(i, j, h, b);
                      return size == 0 ? 0 : Base::bound(size);
                    });
    if (!has_v()) return;
    compare_with<T>(*v_cache_, want_v_->view, "attend_kv_append on " + isa, [](auto...) { return 0.0; });
  }

  Operand *k_, *v_, *k_cache_, *v_cache_, *k_scale_, *v_scale_;
  std::vector<int64_t> slots_;
  std::vector<int32_t> pages_;
  attend_tensor table_ = {};
  std::unique_ptr<WideCopy<T>> want_k_, want_v_, size_;
};

}  // namespace attend::fuzz
