// One call of the interface with all that may be wrong with it, and what it must answer: a model of the documented
// errors that shares no code with src/api, and the checks that hold for every function.
#pragma once

#include <deque>
#include <functional>

#include "operand.hpp"

namespace attend::fuzz {

// What is wrong with a call. A certain fault must be answered with an error; any other allows one.
class Faults {
 public:
  void add(int reason, const std::string &argument, bool is_certain = true) {
    all_.push_back({reason, argument});
    certain_ |= is_certain;
  }
  bool certain() const { return certain_; }
  void judge(attend_status status, const std::string &function) const {
    const std::string argument = attend_status_argument(status), reason = attend_status_string(status);
    const std::string told = function + " answers \"" + argument + ": " + reason + "\"";
    if (status == ATTEND_OK) return require(!certain_, told + " where " + text() + " is wrong");
    require(!argument.empty() && !reason.empty() && status > 0, told);
    const bool named = std::any_of(all_.begin(), all_.end(), [&](const Fault &f) {
      return f.reason == ATTEND_REASON(status) && (f.argument == "*" || f.argument == argument);
    });
    require(named, told + " where wrong is: " + text());
  }

 private:
  struct Fault {
    int reason;
    std::string argument;  // "*": any
  };
  std::string text() const {
    std::string list;
    for (const Fault &f : all_) list += f.argument + " (" + std::to_string(f.reason) + ") ";
    return list.empty() ? "nothing" : list;
  }
  std::vector<Fault> all_;
  bool certain_ = false;
};

enum class Purpose { compute, size };

// The fields that all options begin with.
struct Head {
  std::string name;
  size_t struct_size;
  uint32_t known_flags;
  unsigned char *begin;
  uint32_t *size, *flags;
  int32_t *threads;
  uint32_t *reserved;
  void **workspace;
  uint64_t *workspace_size;
  char **message;
  uint64_t *message_size;
  bool *given;
  Bytes *tail;
  std::function<void()> seal;
};

template <class Options>
Head head_of(const std::string &name, uint32_t known_flags, Boxed<Options> &o) {
  return {name,
          sizeof o.value,
          known_flags | ATTEND_NATIVE_DOT,
          reinterpret_cast<unsigned char *>(&o.value),
          &o.value.size,
          &o.value.flags,
          &o.value.threads,
          &o.value.reserved,
          &o.value.workspace,
          &o.value.workspace_size,
          &o.value.message,
          &o.value.message_size,
          &o.given,
          &o.tail,
          [&o] { o.seal(); }};
}

class Call {
 public:
  Call() = default;
  Call(const Call &) = delete;
  Call &operator=(const Call &) = delete;
  virtual ~Call() = default;

  // Decodes everything and checks everything.
  void check(Decoder &d);

 protected:
  virtual attend_status run() = 0;
  virtual attend_status workspace(uint64_t *bytes) = 0;
  // Fields outside their range; and shapes that do not fit together, if every tensor is there and has a rank.
  virtual void find_faults(Faults *) const {}
  virtual void find_shape_faults(Faults *faults) const = 0;
  // Numbers in arrays, which the ..._workspace functions do not look at.
  virtual void find_number_faults(Faults *) const {}
  // Points the arguments at the operands, now that it is known which are given.
  virtual void connect() = 0;
  // Spoils an option of its own.
  virtual void spoil_option(Decoder &) {}
  // The formula, from what the memory holds before the call; then whether the outputs are near it.
  virtual void expect() = 0;
  virtual void compare(const std::string &isa) const = 0;

  Operand &add(const std::string &name, Role role, uint32_t dtype, bool required = true) {
    return operands_.emplace_back(name, role, dtype, required);
  }
  Operand &add(Decoder &d, const std::string &name, Role role, uint32_t dtype, const Shape &shape,
               bool required = true) {
    Operand &o = add(name, role, dtype, required);
    o.lay_out(d, shape);
    return o;
  }
  static void expect_shape(Faults *faults, const Operand &o, const Shape &want, unsigned broadcasts = 0) {
    if (!o.given) return;
    const Shape shape = Extent(o.view).shape;
    for (size_t i = 0; i < 4; ++i) {
      if (shape[i] != want[i] && (shape[i] != 1 || (broadcasts >> i & 1u) == 0)) faults->add(ATTEND_INVALID_SHAPE, "*");
    }
  }

  std::string function_;
  std::deque<Operand> operands_;
  std::vector<Head> heads_;
  bool extremes_ = false;        // the oracle bears denormal and huge numbers
  Operand *in_place_ = nullptr;  // may be the same view as one of the first operands,
  int64_t in_place_with_ = 1;    // so many

 private:
  void spoil(Decoder &d);
  void spoil_operand(Decoder &d, Operand &o);
  void spoil_head(Decoder &d, Head &h);
  void alias(Decoder &d, Operand &o, const Operand &onto);
  Faults faults(Purpose purpose) const;
  void find_faults_of(const Operand &o, Purpose purpose, Faults *faults) const;
  void find_overlaps(Faults *faults);
  void give_workspace(Decoder &d, Faults *faults);
  void give_message(Decoder &d);
  void check_message(attend_status status) const;
  void check_untouched(const std::string &when, bool outputs_too) const;
  void prepare(Decoder &d);
  attend_status check_workspace_function();
  void restore();
  void show() const;
  std::vector<uint64_t> output_bits() const;
  static Bytes marks(const Operand &o);

  bool overlaps_ = false;
  std::unique_ptr<unsigned char[]> workspace_;
  size_t workspace_offset_ = 0;
  std::unique_ptr<char[]> message_;  // exactly as long as it says
  size_t message_size_ = 0;
};

}  // namespace attend::fuzz
