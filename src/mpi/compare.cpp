// What the ranks of a call must have in common.
#include <cinttypes>

#include "mpi/call.hpp"

namespace attend::mpi {
namespace {

// The sum of a tensor's or array's bits: what must be the same on all ranks without travelling.
struct Hash {
  uint64_t sum = 14695981039346656037u;
  void add(const void *bytes, size_t count) {
    for (size_t i = 0; i < count; ++i) sum = (sum ^ static_cast<const unsigned char *>(bytes)[i]) * 1099511628211u;
  }
  void add(const attend_tensor &t) {
    const size_t size = static_cast<size_t>(bytes_of_element(t));
    for (int64_t b = 0; b < t.shape[3]; ++b)
      for (int64_t h = 0; h < t.shape[2]; ++h)
        for (int64_t j = 0; j < t.shape[1]; ++j)
          for (int64_t i = 0; i < t.shape[0]; ++i)
            add(static_cast<const char *>(t.data) + static_cast<int64_t>(size) * (i * t.stride[0] + j * t.stride[1] +
                                                                                  h * t.stride[2] + b * t.stride[3]),
                size);
  }
  int64_t number() const { return static_cast<int64_t>(sum >> 2); }  // (never what stands for "has none to compare")
};

int64_t bits_of(double x) {
  Hash hash;
  hash.add(&x, sizeof x);
  return hash.number();
}
// Of a vector (H); null: 0.
int64_t hash_of(const attend_tensor *t, Purpose purpose) {
  if (t == nullptr) return 0;
  Hash hash;
  hash.add(&t->dtype, sizeof t->dtype);
  if (purpose == Purpose::compute && t->data != nullptr) hash.add(four_extents(*t));
  return hash.number() | 1;
}
int64_t hash_of(const int64_t *numbers, int64_t count, Purpose purpose) {
  if (numbers == nullptr) return 0;
  Hash hash;
  if (purpose == Purpose::compute) hash.add(numbers, static_cast<size_t>(count) * sizeof *numbers);
  return hash.number() | 1;
}

// Instruction sets with FMA give the same bits, avx512vnni and avx512bf16 too; another one its own.
int64_t arithmetic() {
  const char *const isa = attend_isa();
  for (const char *fused : {"avx512", "avx2", "neon"}) {
    if (std::strncmp(isa, fused, std::strlen(fused)) == 0) return 0;
  }
  Hash hash;
  hash.add(isa, std::strlen(isa));
  return hash.number() | 1;
}

// What the ranks must have in common.
enum Common {
  kContract,
  kArithmetic,
  kFunction,
  kOptionFlags,
  kRoot,
  kKeyRanges,
  kQueryRanges,
  kOperands,  // q, k, v, out, k_scale, v_scale, d_out: type, rows, heads, batches
  kLse = kOperands + 28,
  kWanted,  // d_q, d_k, d_v
  kFlags = kWanted + 3,
  kScale,
  kSoftcap,
  kQueryOffset,
  kQueryOffsets,
  kLengths,
  kLeft,
  kRight,
  kSlopes,
  kSinks,
  kKScale,
  kVScale,
  kCommon
};
constexpr int64_t kNothing = INT64_MIN;  // says nothing

}  // namespace

bool Call::compare(Fault *fault) {
  // (largest, and largest of the complement, which is the smallest), and the rank of a fault
  int64_t numbers[2 * kCommon + 1];
  const auto say = [&numbers](int field, int64_t number) {
    numbers[2 * field] = number;
    numbers[2 * field + 1] = number == kNothing ? kNothing : ~number;
  };
  for (int field = 0; field < kCommon; ++field) say(field, kNothing);
  if (!*fault) {
    const attend_attention_options &a = attention;
    say(kContract, attend_contract());
    say(kArithmetic, arithmetic());
    say(kFunction, 2 * static_cast<int>(function) + static_cast<int>(purpose));
    say(kOptionFlags, options.flags & ATTEND_MPI_ALL_RANKS);
    say(kRoot, options.root);
    if (k.shape[1] > 0) say(kKeyRanges, options.key_ranges != nullptr);
    if (q.shape[1] > 0) say(kQueryRanges, options.query_ranges != nullptr);
    const attend_tensor *const operands[] = {&q, &k, &v, &out};
    for (int i = 0; i < 4; ++i) {
      const attend_tensor &t = *operands[i];
      const int64_t four[] = {t.dtype, t.shape[0], t.shape[2], t.shape[3]};
      for (int j = 0; j < 4; ++j) say(kOperands + 4 * i + j, four[j]);
    }
    const Scales kinds[] = {k_scales, v_scales};
    const attend_tensor *const scales[] = {a.k_scale, a.v_scale};
    for (int i = 0; i < 2; ++i) {
      say(kKScale + i, static_cast<int64_t>(kinds[i]));
      if (scales[i] == nullptr) continue;
      const attend_tensor t = four_extents(*scales[i]);
      say(kOperands + 16 + 4 * i + 2, t.shape[2]);
      say(kOperands + 16 + 4 * i + 3, t.shape[3]);
      // Of features: its bits.
      if (kinds[i] == Scales::of_features) say(kKScale + i, hash_of(scales[i], purpose) | 8);
    }
    if (function == Function::backward) {
      const int64_t four[] = {d_out.dtype, d_out.shape[0], d_out.shape[2], d_out.shape[3]};
      for (int j = 0; j < 4; ++j) say(kOperands + 24 + j, four[j]);
      const attend_tensor *const wanted[] = {&d_q, &d_k, &d_v};
      for (int i = 0; i < 3; ++i) say(kWanted + i, wanted[i]->rank != 0);
    }
    if (function == Function::decode) {
      say(kLse, a.lse != nullptr);
      say(kQueryRanges, q.shape[1]);
    }
    say(kFlags, a.flags);
    say(kScale, bits_of(a.scale));
    say(kSoftcap, bits_of(a.softcap));
    say(kQueryOffset, a.query_offset);
    say(kQueryOffsets, hash_of(a.query_offsets, batch, purpose));
    say(kLengths, hash_of(a.kv_lengths, batch, purpose));
    say(kLeft, a.window_left);
    say(kRight, a.window_right);
    say(kSlopes, hash_of(a.alibi_slopes, purpose));
    say(kSinks, hash_of(a.sinks, purpose));
  }
  numbers[2 * kCommon] = team.fault_number(*fault);
  team.largest(numbers, 2 * kCommon + 1);
  if (numbers[2 * kCommon] != 0) {
    team.agree(fault, numbers[2 * kCommon]);
    return false;
  }
  const auto differ = [&numbers](int field) {
    return numbers[2 * field] != kNothing && numbers[2 * field] != ~numbers[2 * field + 1];
  };
  keys.ordered = numbers[2 * kKeyRanges] <= 0;
  queries.ordered = numbers[2 * kQueryRanges] <= 0;
  const auto most = [&numbers](int field) { return numbers[2 * field]; };
  const auto least = [&numbers](int field) { return ~numbers[2 * field + 1]; };
  static const struct {
    int field;
    Argument argument;
    const char *what;
  } kNames[] = {
      {kContract, Argument::none, "the ranks' libraries differ in attend_contract()"},
      {kArithmetic, Argument::none, "the ranks differ in attend_isa(): some lack fused multiply-add"},
      {kFunction, Argument::none, "the ranks do not call the same function"},
      {kOptionFlags, Argument::options_flags, "the ranks differ"},
      {kRoot, Argument::options_root, "the ranks differ"},
      {kKeyRanges, Argument::options_key_ranges, "some ranks with keys give ranges, some do not"},
      {kLse, Argument::attention_options_lse, "some ranks give it, some do not"},
      {kWanted, Argument::d_q, "some ranks give it, some do not"},
      {kWanted + 1, Argument::d_k, "some ranks give it, some do not"},
      {kWanted + 2, Argument::d_v, "some ranks give it, some do not"},
      {kFlags, Argument::attention_options_flags, "the ranks differ"},
      {kScale, Argument::attention_options_scale, "the ranks differ"},
      {kSoftcap, Argument::attention_options_softcap, "the ranks differ"},
      {kQueryOffset, Argument::attention_options_query_offset, "the ranks differ"},
      {kQueryOffsets, Argument::attention_options_query_offsets, "the ranks differ"},
      {kLengths, Argument::attention_options_kv_lengths, "the ranks differ"},
      {kLeft, Argument::attention_options_window, "the ranks' windows differ"},
      {kRight, Argument::attention_options_window, "the ranks' windows differ"},
      {kSlopes, Argument::attention_options_alibi_slopes, "the ranks differ"},
      {kSinks, Argument::attention_options_sinks, "the ranks differ"},
      {kKScale, Argument::attention_options_k_scale, "the ranks differ in what has a scale, or in scales of features"},
      {kVScale, Argument::attention_options_v_scale, "the ranks differ in what has a scale, or in scales of features"},
  };
  static constexpr Argument kOperandNames[] = {Argument::q,
                                               Argument::k,
                                               Argument::v,
                                               Argument::out,
                                               Argument::attention_options_k_scale,
                                               Argument::attention_options_v_scale,
                                               Argument::d_out};
  static constexpr const char *kExtents[] = {"element types", "features", "heads", "batches"};
  for (const auto &n : kNames) {
    if (n.field == kOptionFlags) {
      for (int i = 0; i < 28; ++i) {
        const int field = kOperands + i;
        if (differ(field)) {
          return !fault->set(ATTEND_RANKS_DIFFER, kOperandNames[i / 4],
                             "the ranks differ in %s, from %" PRId64 " to %" PRId64, kExtents[i % 4], least(field),
                             most(field));
        }
      }
      if (differ(kQueryRanges)) {
        if (function == Function::decode) {
          return !fault->set(ATTEND_RANKS_DIFFER, Argument::q,
                             "the ranks differ in queries, from %" PRId64 " to %" PRId64, least(kQueryRanges),
                             most(kQueryRanges));
        }
        return !fault->set(ATTEND_RANKS_DIFFER, Argument::options_query_ranges,
                           "some ranks with queries give ranges, some do not");
      }
    }
    if (differ(n.field)) return !fault->set(ATTEND_RANKS_DIFFER, n.argument, "%s", n.what);
  }
  return true;
}

}  // namespace attend::mpi
