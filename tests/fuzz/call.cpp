#include "call.hpp"

namespace attend::fuzz {
namespace {

constexpr uint32_t kDtypes[] = {0,         ATTEND_F32,  ATTEND_F64, ATTEND_BF16, ATTEND_F16, ATTEND_I8,
                                ATTEND_U8, ATTEND_BOOL, ATTEND_I32, 0xffffffffu, 10,         ATTEND_F8E4M3};

int64_t nonsense(Decoder &d) {
  const int64_t n = d.pick<int64_t>({-1, 0, 1, 2, INT64_MIN, INT64_MAX, int64_t{1} << 32, int64_t{1} << 58, 0, 0});
  return n != 0 ? n + d.in(0, n == INT64_MAX ? 0 : 2) : d.one_in(2) ? d.any() : 0;
}

}  // namespace

void Call::spoil_operand(Decoder &d, Operand &o) {
  switch (d.in(0, 7)) {
    case 0:
      o.given = !o.given;
      break;
    case 1:
      o.view.dtype = kDtypes[d.in(0, 11)];
      break;
    case 2:
      o.view.rank = d.pick<uint32_t>({0, 5, 1, 2, 3, 4, 0xffffffffu});
      break;
    case 3:
      o.view.shape[d.in(0, 3)] = nonsense(d);
      break;
    case 4:
      o.view.shape[d.in(0, 3)] += d.pick<int64_t>({1, -1});
      break;
    case 5:
      o.view.stride[d.in(0, 3)] = nonsense(d);
      break;
    case 6:
      o.has_data = false;
      break;
    default: {
      const size_t n = static_cast<size_t>(d.in(0, 3)), m = static_cast<size_t>(d.in(0, 3));
      std::swap(o.view.stride[n], o.view.stride[m]);
      break;
    }
  }
}

void Call::spoil_head(Decoder &d, Head &h) {
  switch (d.in(0, 7)) {
    case 0:
      *h.size = d.pick<uint32_t>({0, 4, *h.size - 4, *h.size - 1});
      break;
    case 1:  // of a newer version
      h.tail->assign(static_cast<size_t>(d.in(1, 40)), 0);
      h.tail->back() = static_cast<unsigned char>(d.in(0, 1));
      break;
    case 2:
      *h.flags ^= 1u << d.in(0, 31);
      break;
    case 3:
      *h.threads = static_cast<int32_t>(d.pick<int64_t>({-1, INT32_MIN, 3}));
      break;
    case 4:
      *h.reserved = static_cast<uint32_t>(d.in(0, 2));
      break;
    case 5:
      *h.workspace_size = static_cast<uint64_t>(d.in(0, 100));
      break;
    case 6:
      *h.message_size = static_cast<uint64_t>(d.in(0, 100));
      break;
    default:
      *h.given = false;
  }
}

void Call::spoil(Decoder &d) {
  for (int64_t n = d.pick({0, 0, 0, 0, 0, 1, 1, 2}); n > 0; --n) {
    const int64_t kind = d.in(0, 7);
    if (kind < 4) {
      spoil_operand(d, operands_[static_cast<size_t>(d.in(0, static_cast<int64_t>(operands_.size()) - 1))]);
    } else if (kind < 6) {
      spoil_head(d, heads_[static_cast<size_t>(d.in(0, static_cast<int64_t>(heads_.size()) - 1))]);
    } else {
      spoil_option(d);
    }
  }
}

// Moves o into the memory of another operand, if there is room.
void Call::alias(Decoder &d, Operand &o, const Operand &onto) {
  if (&o == &onto || onto.aliased || !o.present() || !onto.present()) return;
  attend_tensor moved = o.view;
  if (&o == in_place_ && d.in(0, 1) == 0) {
    std::copy_n(onto.view.stride, 4, moved.stride);
    std::copy_n(onto.view.shape, 4, moved.shape);
    moved.rank = onto.view.rank;
  }
  const Extent e(moved);
  const int64_t element = size_of(moved.dtype), room = static_cast<int64_t>(onto.allocation->before.size()) / element;
  if (e.empty || e.span() > static_cast<long double>(room) || onto.view.data == nullptr) return;
  const int64_t low = static_cast<int64_t>(e.low), slack = room - static_cast<int64_t>(e.span());
  unsigned char *const base = onto.allocation->memory.get();
  int64_t at = (static_cast<unsigned char *>(onto.view.data) - base) / element;  // the same data, if that fits
  if (at + low < 0 || at + low > slack || d.one_in(3)) at = d.in(0, slack) - low;
  moved.data = base + at * element;
  o.view = moved;
  o.allocation = onto.allocation;
  o.aliased = true;
}

// None, as much as the library asks for, as much as one thread needs, or too little; at any address.
void Call::give_workspace(Decoder &d, Faults *faults) {
  constexpr uint64_t kMost = 1 << 22;
  Head &h = heads_[0];
  const int64_t mode = d.in(0, 5);
  const size_t offset = static_cast<size_t>(d.in(0, 15));
  if (mode < 2 || !*h.given || *h.workspace_size != 0) return;
  const int32_t threads = *h.threads;
  uint64_t bytes = 0;
  if (mode == 3) *h.threads = 1;
  h.seal();
  const attend_status status = workspace(&bytes);
  *h.threads = threads;
  if (status != ATTEND_OK || bytes > kMost) return;
  if (mode == 4 && bytes > 0) {
    bytes = static_cast<uint64_t>(d.in(0, static_cast<int64_t>(bytes) - 1));
    faults->add(ATTEND_WORKSPACE_TOO_SMALL, h.name + ".workspace_size", false);
  }
  workspace_.reset(new unsigned char[offset + bytes]);
  std::fill_n(workspace_.get(), offset, static_cast<unsigned char>(0x5a));
  workspace_offset_ = offset;
  *h.workspace = workspace_.get() + offset;
  *h.workspace_size = bytes;
}

// None, or room for some of it or for all.
void Call::give_message(Decoder &d) {
  Head &h = heads_[0];
  if (!*h.given || *h.message_size != 0 || d.one_in(3)) return;
  message_size_ = static_cast<size_t>(d.pick<int64_t>({1, 2, 20, 400}));
  message_.reset(new char[message_size_]);
  std::fill_n(message_.get(), message_size_, '?');
  *h.message = message_.get();
  *h.message_size = message_size_;
}

// After a call: untouched, or a sentence that begins with the argument.
void Call::check_message(attend_status status) const {
  if (!message_) return;
  const std::string all(message_.get(), message_size_), argument = attend_status_argument(status);
  const size_t end = all.find('\0');
  if (status == ATTEND_OK || argument == heads_[0].name + ".size") {
    return require(all == std::string(message_size_, '?'), function_ + " says something: " + all);
  }
  require(end != std::string::npos, function_ + " has no end of its message");
  const std::string start = argument.empty() ? "could not allocate " : argument + ": ";
  require(start.compare(0, std::min(end, start.size()), all, 0, std::min(end, start.size())) == 0,
          function_ + " fails on " + argument + " and says " + all);
  require(end + 1 == message_size_ || all[end - 1] == '.', function_ + " stops in mid sentence: " + all);
}

void Call::check_untouched(const std::string &when, bool outputs_too) const {
  for (const Operand &o : operands_) {
    if (o.aliased) continue;
    const Bytes &before = o.allocation->before;
    const unsigned char *const now = o.allocation->memory.get();
    if (before.empty() || std::memcmp(now, before.data(), before.size()) == 0) continue;
    for (size_t i = 0; i < before.size(); ++i) {
      const bool may = !outputs_too && !o.allocation->written.empty() && o.allocation->written[i] != 0;
      if (now[i] != before[i] && !may) fail(when + " wrote byte " + std::to_string(i) + " of the memory of " + o.name);
    }
  }
  for (size_t i = 0; i < workspace_offset_; ++i) {
    if (workspace_[i] != 0x5a) fail(when + " wrote before the workspace");
  }
}

std::vector<uint64_t> Call::output_bits() const {
  std::vector<uint64_t> all;
  for (const Operand &o : operands_) {
    if (!o.present() || !o.writes()) continue;
    o.each([&](const unsigned char *at, auto...) {
      uint64_t bits = 0;
      std::memcpy(&bits, at, static_cast<size_t>(size_of(o.view.dtype)));
      all.push_back(o.holds_nan(at) ? UINT64_MAX : bits);  // its sign and payload are free
    });
  }
  return all;
}

void Call::restore() {
  for (Operand &o : operands_) o.allocation->restore();
}

void Call::prepare(Decoder &d) {
  spoil(d);
  if (d.one_in(4)) {
    for (Operand &o : operands_) {
      const bool is_float = o.view.dtype == ATTEND_F32 && o.name.find("lse") == std::string::npos;
      if (is_float && d.in(0, 1) != 0) o.view.dtype = d.pick<uint32_t>({ATTEND_BF16, ATTEND_F16, ATTEND_F8E4M3});
    }
  }
  connect();
  for (Operand &o : operands_) o.allocate(d);
  // The first operand from a random one on that is there, an output if that is what is asked for.
  const auto any = [&](bool output) -> Operand & {
    const size_t count = operands_.size(), first = static_cast<size_t>(d.in(0, static_cast<int64_t>(count) - 1));
    for (size_t i = first; i < first + count; ++i) {
      Operand &o = operands_[i % count];
      if (o.present() && (o.writes() || !output)) return o;
    }
    return operands_[0];
  };
  if (in_place_ != nullptr && d.one_in(3)) {
    alias(d, *in_place_, operands_[static_cast<size_t>(d.in(0, in_place_with_ - 1))]);
  } else if (d.one_in(12)) {
    Operand &o = any(d.in(0, 3) != 0);
    alias(d, o, any(d.in(0, 1) != 0));
  }
  for (const bool aliased : {false, true}) {
    for (Operand &o : operands_) {
      if (o.aliased == aliased) o.fill(d, extremes_);
    }
  }
  for (Operand &o : operands_) {
    o.allocation->keep();
    if (!o.writes() || !o.present()) continue;
    Bytes &written = o.allocation->written;
    const Bytes some = marks(o);
    written.resize(some.size());
    std::transform(some.begin(), some.end(), written.begin(), written.begin(), std::bit_or<>());
  }
}

attend_status Call::check_workspace_function() {
  constexpr uint64_t kUnset = 12345;
  uint64_t bytes = kUnset;
  const attend_status status = workspace(&bytes);
  faults(Purpose::size).judge(status, function_ + "_workspace");
  check_message(status);
  if (status != ATTEND_OK) require(bytes == kUnset, function_ + "_workspace wrote a size and failed");
  const attend_status nowhere = workspace(nullptr);
  require(status == ATTEND_OK ? ATTEND_REASON(nowhere) == ATTEND_NULL_POINTER : nowhere == status,
          function_ + "_workspace needs no place to answer");
  check_message(nowhere);
  if (message_) std::fill_n(message_.get(), message_size_, '?');
  check_untouched(function_ + "_workspace", true);
  return status;
}

// ATTEND_FUZZ_SHOW=1 says what the bytes of a find mean.
void Call::show() const {
  static const bool wanted = std::getenv("ATTEND_FUZZ_SHOW") != nullptr;
  if (!wanted) return;
  std::fprintf(stderr, "%s\n", function_.c_str());
  for (const Operand &o : operands_) {
    if (!o.given) continue;
    const attend_tensor &t = o.view;
    std::fprintf(stderr, "  %-30s %p dtype %u rank %u %s%s", o.name.c_str(), t.data, t.dtype, t.rank,
                 o.aliased ? "aliased " : "", o.backed ? "" : "without memory ");
    for (size_t i = 0; i < 4; ++i)
      std::fprintf(stderr, " %lld by %lld", static_cast<long long>(t.shape[i]), static_cast<long long>(t.stride[i]));
    std::fprintf(stderr, "\n");
  }
  for (const Head &h : heads_) {
    if (*h.given)
      std::fprintf(stderr, "  %s: flags %u threads %d size %u\n", h.name.c_str(), *h.flags, *h.threads, *h.size);
  }
}

void Call::check(Decoder &d) {
  prepare(d);
  give_message(d);
  show();
  const auto seal = [this] {
    for (const Head &h : heads_) h.seal();
  };
  seal();

  const attend_status size_status = check_workspace_function();
  Faults wrong = faults(Purpose::compute);
  find_overlaps(&wrong);
  const bool backed = std::all_of(operands_.begin(), operands_.end(), [](auto &o) { return !o.given || o.backed; });
  if (!backed && !wrong.certain()) return;  // more memory than there is
  if (size_status == ATTEND_OK) give_workspace(d, &wrong);
  seal();

  attend_set_isa(nullptr);
  const attend_status status = run();
  wrong.judge(status, function_);
  check_message(status);
  if (status != ATTEND_OK) {
    check_untouched(function_ + " failed and", true);
    require(run() == status, function_ + " fails in another way when called again");
    return check_untouched(function_ + " failed and", true);
  }
  require(size_status == ATTEND_OK, function_ + " works where its workspace function does not");
  if (overlaps_) return;  // the caller's duty: nothing is said about the result

  restore();
  // Results of narrower types are compared with those of other threads and instruction sets alone; the tests compare them
  // with the f32 call.
  const bool is_narrow =
      std::any_of(operands_.begin(), operands_.end(), [](auto &o) { return o.given && o.is_narrow(); });
  if (!is_narrow) expect();
  std::vector<uint64_t> fused;
  for (int32_t i = 0; const char *isa = attend_isa_name(i); ++i) {
    const std::string name = isa;
    const bool dots = function_ == "attend_matmul" && name == "avx512bf16" && *heads_[0].given &&
                      (*heads_[0].flags & ATTEND_NATIVE_DOT) != 0;
    const bool has_fma = name != "sse42" && name != "generic" && !dots;
    require(attend_set_isa(isa) == ATTEND_OK, "no " + name);
    std::vector<uint64_t> first;
    for (const int32_t threads : {*heads_[0].threads, *heads_[0].threads == 1 ? 2 : 1}) {
      if (!first.empty() && i != 0) break;  // threads are cut alike for every instruction set
      restore();
      const int32_t given = *heads_[0].threads;
      *heads_[0].threads = threads;
      attend_set_threads(threads == 0 ? 2 : threads);
      seal();
      require(run() == ATTEND_OK, function_ + " fails on " + name);
      *heads_[0].threads = given;
      check_untouched(function_ + " on " + name, false);
      const std::vector<uint64_t> bits = output_bits();
      if (first.empty() && !is_narrow) compare(name);
      require(first.empty() || bits == first, function_ + ": other bits on other threads, " + name);
      first = bits;
    }
    require(!has_fma || fused.empty() || first == fused, function_ + ": other bits on " + name);
    if (has_fma) fused = first;
  }
  attend_set_isa(nullptr);
  attend_set_threads(0);
}

}  // namespace attend::fuzz
