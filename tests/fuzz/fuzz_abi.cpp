// Differential fuzzing of the whole interface: the bytes are decoded into one call with everything that may be wrong
// with it. An error must be one that a model of the documented errors expects and must leave no trace; a result must
// be the formula's, within the bound of its roundings, whatever the instruction set, and the same bits on all that
// have FMA and for any number of threads.
#include <cstdlib>

#include "append_call.hpp"
#include "backward_call.hpp"
#include "ragged_call.hpp"
#include "self_attention_call.hpp"
#include "softmax_backward_call.hpp"

using namespace attend::fuzz;

namespace {

template <class T>
void check_one(Decoder &d) {
  switch (d.in(0, 9)) {
    case 0:
    case 1:
      return MatmulCall<T>(d).check(d);
    case 2:
    case 3:
      return SoftmaxCall<T>(d).check(d);
    case 4:
      return MergeCall<T>(d).check(d);
    case 5:
    case 6:
    case 7:
      return AttentionCall<T>(d).check(d);
    default:
      return SelfAttentionCall<T>(d).check(d);
  }
}

// The settings of the library, which outlive a call.
void check_settings(Decoder &d) {
  const char *const before = attend_isa();
  char name[] = "avx2?";
  for (char &c : name) c = static_cast<char>(c ^ d.pick({0, 0, 0, 1, 0x7f}));
  name[sizeof name - 1] = '\0';
  bool exists = false;
  for (int32_t i = 0; const char *isa = attend_isa_name(i); ++i) exists |= std::strcmp(isa, name) == 0;
  const attend_status named = attend_set_isa(name);
  require((named == ATTEND_OK) == exists, "attend_set_isa takes what does not exist");
  require(std::strcmp(attend_isa(), exists ? name : before) == 0, "attend_set_isa failed and changed the setting");
  require(attend_isa_name(static_cast<int32_t>(d.in(INT32_MIN, -1))) == nullptr, "an instruction set before the best");
  attend_set_isa(nullptr);

  const int32_t threads = static_cast<int32_t>(d.in(-2, 9)), were = attend_threads();
  attend_set_threads(7);
  const bool serial = attend_threads() == 1;  // built without OpenMP
  attend_set_threads(0);
  const attend_status set = attend_set_threads(threads);
  require((set == ATTEND_OK) == (threads >= 0), "attend_set_threads takes a negative number");
  require(threads <= 0 ? attend_threads() == were : attend_threads() == (serial ? 1 : threads),
          "attend_set_threads has no effect");
  attend_set_threads(0);

  // Numbers that no function returned.
  const attend_status any = static_cast<attend_status>(d.any());
  require(std::strlen(attend_status_string(any)) > 0 && attend_status_argument(any) != nullptr, "no text of a status");
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int *, char ***) {
  setenv("OMP_WAIT_POLICY", "passive", 1);  // threads that wait for work must not take the CPU from the one that has it
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Decoder d(data, size);
  // What came later has its place here, so that what was found before still means what it did.
  if (d.one_in(100)) {
    switch (d.in(0, 11)) {
      case 0:
        check_settings(d);
        d.in(0, 1) == 0 ? BackwardCall<float>(d).check(d) : BackwardCall<double>(d).check(d);
        break;
      case 1:
      case 2:
      case 3:
        d.in(0, 1) == 0 ? RotaryCall<float>(d).check(d) : RotaryCall<double>(d).check(d);
        break;
      case 7:
      case 8:
        d.in(0, 1) == 0 ? SoftmaxBackwardCall<float>(d).check(d) : SoftmaxBackwardCall<double>(d).check(d);
        break;
      case 9:
      case 10:
      case 11:
        d.in(0, 1) == 0 ? RaggedCall<float>(d).check(d) : RaggedCall<double>(d).check(d);
        break;
      default:
        d.in(0, 1) == 0 ? KvAppendCall<float>(d).check(d) : KvAppendCall<double>(d).check(d);
    }
  } else if (d.in(0, 1) == 0) {
    check_one<float>(d);
  } else {
    check_one<double>(d);
  }
  return 0;
}
