// Compiled with -fno-exceptions: functions return statuses and results.
#include "statuses.hpp"

#include <attend/attend.hpp>
#include <type_traits>
#include <vector>

#ifndef ATTEND_NO_EXCEPTIONS
#error "this file is to be compiled with -fno-exceptions"
#endif

namespace {

std::string g_wrong;
void expect(bool holds, const char *what) {
  if (!holds) g_wrong += std::string(what) + "; ";
}

}  // namespace

#define EXPECT(condition) expect(condition, #condition)

std::string attend_hpp_statuses() {
  using attend::tensor;
  g_wrong.clear();
  const std::vector<float> x = {1, 2, 3, 4, 5, 6};
  std::vector<float> y(6, 7);
  const tensor t(x, {3, 2});

  attend::result<attend::array<float>> owned = attend::softmax(t);
  EXPECT(owned.ok());
  EXPECT(owned.value().size() == 6);
  const attend::status into = attend::softmax(t, tensor(y, {3, 2}));
  EXPECT(into.ok());
  EXPECT(into.reason() == ATTEND_OK);
  EXPECT(y == std::vector<float>(owned.value().begin(), owned.value().end()));
  const attend::array<float> moved = std::move(owned).value();
  EXPECT(moved.size() == 6);
  EXPECT(owned.value().size() == 0);

  std::vector<float> untouched(4, 7);
  const attend::status wrong = attend::softmax(t, tensor(untouched, {2, 2}));
  EXPECT(!wrong.ok());
  EXPECT(wrong.reason() == ATTEND_INVALID_SHAPE);
  EXPECT(wrong.argument() == std::string("y"));
  EXPECT(wrong.text() == std::string("y: has 2 columns, not x's 3."));
  attend::status copy;
  EXPECT(copy.ok() && copy.text() == std::string(attend_status_string(ATTEND_OK)));
  copy = wrong;
  EXPECT(copy.reason() == ATTEND_INVALID_SHAPE && copy.text() == std::string(wrong.text()));
  EXPECT(copy.text() != wrong.text());
  EXPECT(untouched == std::vector<float>(4, 7));
  const auto none = attend::attention(t, tensor(x, {2, 3}), t);
  EXPECT(none.reason() == ATTEND_INVALID_SHAPE);
  EXPECT(none.argument() == std::string("k"));
  EXPECT(none.text() == std::string("k: has 3 features, not q's 2."));
  EXPECT(none.value().size() == 0);

  // A view of the wrong size cannot throw: the call says so.
  EXPECT(attend::attention(t, tensor(x, {4, 2}), t).reason() == ATTEND_INVALID_SHAPE);
  EXPECT(attend::attention(t, tensor(x, {4, 2}), t).argument() == std::string("k"));
  EXPECT(attend::softmax(tensor(x, {2, 2}, {5, 1})).argument() == std::string("x"));
  const std::vector<std::int64_t> lengths(2);
  EXPECT(attend::attention(t, t, t, attend::attention_options().kv_lengths(lengths)).argument() ==
         std::string("options.kv_lengths"));
  EXPECT(attend::matmul(t, tensor(x, {2, 3}), attend::matmul_options().beta(1)).argument() == std::string("beta"));

  const attend::result<std::uint64_t> bytes = attend::attention_workspace(t, t, t, tensor(y, {3, 2}));
  EXPECT(bytes.ok());
  EXPECT(bytes.value() > 0);
  EXPECT(!attend::softmax_workspace(t, tensor(untouched, {2, 2})).ok());
  EXPECT(attend::self_attention(t, attend::self_attention_weights(t, t, t)).argument() == std::string("weights.w_q"));
  const auto bytes_of_nothing = attend::softmax_workspace(t, tensor(untouched, {2, 2}));
  EXPECT(bytes_of_nothing.text() == std::string(wrong.text()));
  attend::result<attend::attention_gradients<float>> gradients = attend::attention_backward(t, t, t, t, t);
  EXPECT(gradients.ok() && gradients.value().d_v.size() == 6);
  gradients = attend::attention_backward(t, tensor(x, {2, 3}), t, t, t);
  EXPECT(gradients.argument() == std::string("k") && gradients.value().d_q.size() == 0);
  EXPECT(attend::attention_backward(t, t, t, t, t, {}, attend::attention_backward_options().accumulate()).reason() ==
         ATTEND_INVALID_VALUE);
  EXPECT(attend::attention_backward(t, t, t, t, t, tensor(y, {3, 2}), nullptr, nullptr).ok());
  EXPECT(attend::convert<std::int8_t>(t).value().size() == 6);
  EXPECT(attend::convert<bool>(t).argument() == std::string("y"));
  const std::vector<float> table = {1, 2, 3, 4};
  const std::vector<std::int64_t> one = {1};
  EXPECT(attend::rotary(tensor(x, {3, 2}), tensor(table, {4, 1}), tensor(table, {4, 1})).value().size() == 6);
  EXPECT(attend::rotary(t, tensor(table, {4, 1}), tensor(table, {4, 1}), attend::rotary_options().positions(one))
             .argument() == std::string("options.positions"));
  EXPECT(attend::kv_append(t, tensor(y, {3, 2})).ok());
  EXPECT(attend::kv_append(t, tensor(untouched, {2, 2})).argument() == std::string("k_cache"));
  EXPECT(attend::set_isa("mmx").reason() == ATTEND_UNKNOWN_ISA);
  EXPECT(attend::set_isa("mmx").text() == "name: " + std::string(attend_status_string(ATTEND_UNKNOWN_ISA)));
  EXPECT(attend::set_executor(nullptr).ok());

  static_assert(std::is_nothrow_move_constructible_v<attend::result<attend::array<float>>>);
  static_assert(std::is_same_v<decltype(attend::set_threads(0)), attend::status>);
  return g_wrong;
}
