// What is wrong with a call by attend.h's words, so what the library may and must answer.
#include "call.hpp"

namespace attend::fuzz {

void Call::find_faults_of(const Operand &o, Purpose purpose, Faults *faults) const {
  if (!o.given) {
    if (o.required) faults->add(ATTEND_NULL_POINTER, o.name);
    return;
  }
  const attend_tensor &t = o.view;
  if (t.rank < 1 || t.rank > 4) return faults->add(ATTEND_INVALID_RANK, o.name);
  const bool is_type = t.dtype >= ATTEND_F32 && t.dtype <= ATTEND_F8E4M3;
  if (!is_type || (t.dtype == ATTEND_BOOL) != o.is_mask) faults->add(ATTEND_INVALID_DTYPE, o.name);
  // Which of the narrower types fit depends on the function and the operand; integers may want a scale.
  if (!o.is_mask && is_type && o.is_narrow()) {
    faults->add(ATTEND_INVALID_DTYPE, o.name, false);
    faults->add(ATTEND_NULL_POINTER, "*", false);
  }
  const Extent e(t);
  if (e.negative) return faults->add(ATTEND_INVALID_SHAPE, o.name);
  // Where the library draws the line between 2^57 and 2^63 elements is its own affair.
  const bool overflows = !e.empty && e.span() >= 0x1p63L;
  bool may_overflow = (!e.empty && e.span() >= 0x1p57L) || e.count >= 0x1p57L;
  for (uint32_t i = 0; i < t.rank; ++i) may_overflow |= t.shape[i] > INT32_MAX || e.stride[i] == INT64_MIN;
  if (overflows || may_overflow) faults->add(ATTEND_OVERFLOW, o.name, overflows);
  if (e.empty || overflows) return;
  if (t.data == nullptr && purpose == Purpose::compute) faults->add(ATTEND_NULL_POINTER, o.name);
  if (!o.writes()) return;
  std::vector<std::array<long double, 2>> sorted;
  for (size_t i = 0; i < 4; ++i) {
    if (e.shape[i] > 1) {
      const long double stride = std::fabs(static_cast<long double>(e.stride[i]));
      sorted.push_back({stride, stride * static_cast<long double>(e.shape[i] - 1)});
    }
  }
  std::sort(sorted.begin(), sorted.end());
  long double reach = 0;
  for (const auto &s : sorted) {
    if (s[0] <= reach) return faults->add(ATTEND_INVALID_STRIDE, o.name);
    reach += s[1];
  }
}

Faults Call::faults(Purpose purpose) const {
  Faults all;
  bool comparable = true, single = false, f64 = false;
  for (const Operand &o : operands_) {
    find_faults_of(o, purpose, &all);
    comparable &= o.given ? o.view.rank >= 1 && o.view.rank <= 4 : !o.required;
    if (!o.given || o.is_mask) continue;
    single |= o.view.dtype == ATTEND_F32 || o.is_narrow();
    f64 |= o.view.dtype == ATTEND_F64;
  }
  if (single && f64) all.add(ATTEND_INVALID_DTYPE, "*");
  for (const Head &h : heads_) {
    if (!*h.given) continue;
    const bool longer = std::any_of(h.tail->begin(), h.tail->end(), [](unsigned char b) { return b != 0; });
    if (longer || *h.size < h.struct_size) all.add(ATTEND_INVALID_STRUCT_SIZE, h.name + ".size");
    if ((*h.flags & ~h.known_flags) != 0) all.add(ATTEND_UNSUPPORTED, h.name + ".flags");
    if (*h.threads < 0) all.add(ATTEND_INVALID_VALUE, h.name + ".threads");
    if (*h.reserved != 0) all.add(ATTEND_INVALID_VALUE, h.name + ".reserved");
    if (purpose == Purpose::compute && *h.workspace == nullptr && *h.workspace_size != 0)
      all.add(ATTEND_NULL_POINTER, h.name + ".workspace");
    if (*h.message == nullptr && *h.message_size != 0) all.add(ATTEND_NULL_POINTER, h.name + ".message");
  }
  find_faults(&all);
  if (comparable) {
    find_shape_faults(&all);
    if (purpose == Purpose::compute) find_number_faults(&all);
  } else {
    all.add(ATTEND_INVALID_SHAPE, "*", false);  // of the operands that have a rank, since another has none
  }
  return all;
}

// The bytes of the allocation that hold elements of o.
Bytes Call::marks(const Operand &o) {
  Bytes all(o.allocation->before.size());
  if (!o.present()) return all;
  o.each([&](const unsigned char *at, auto...) {
    std::fill_n(all.begin() + (at - o.allocation->memory.get()), size_of(o.view.dtype), 1);
  });
  return all;
}

void Call::find_overlaps(Faults *faults) {
  for (const Operand &o : operands_) {
    for (const Operand &p : operands_) {
      if (&o == &p || !o.writes() || o.allocation != p.allocation || !o.present() || !p.present()) continue;
      const Bytes of_o = marks(o), of_p = marks(p);
      const auto both = [](unsigned char a, unsigned char b) { return (a & b) != 0; };
      if (std::equal(of_o.begin(), of_o.end(), of_p.begin(), [&](auto a, auto b) { return !both(a, b); })) continue;
      const Extent e(o.view), f(p.view);
      const bool same = o.view.data == p.view.data && e.shape == f.shape && e.stride == f.stride &&
                        size_of(o.view.dtype) == size_of(p.view.dtype);
      const auto is_p = [&](const Operand &first) { return &first == &p; };
      const auto firsts = operands_.begin();
      if (same && &o == in_place_ && std::any_of(firsts, firsts + in_place_with_, is_p)) continue;
      overlaps_ = true;
      faults->add(ATTEND_OVERLAP, "*", o.view.data == p.view.data);
    }
  }
}

}  // namespace attend::fuzz
