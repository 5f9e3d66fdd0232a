// What softmax and its gradient do with options that are wrong, and with operands that are each other or empty.
#include <cmath>
#include <limits>

#include "operands.hpp"

using namespace operands;

TEST_CASE("softmax options") {
  const attend_tensor no_rank = {};
  float number = 0;
  const attend_tensor floats = {&number, ATTEND_F32, 1, {1, 0, 0, 0}, {1, 0, 0, 0}};
  const attend_tensor bools = {&number, ATTEND_BOOL, 1, {1, 0, 0, 0}, {1, 0, 0, 0}};
  const attend_tensor wide = {&number, ATTEND_BOOL, 2, {1, 1000, 0, 0}, {0, 0, 0, 0}};
  const struct {
    const char *argument;
    int reason;
    std::function<void(attend_softmax_options &)> spoil;
  } wrong[] = {
      {"options.mask", ATTEND_INVALID_RANK, [&](attend_softmax_options &o) { o.mask = &no_rank; }},
      {"options.mask", ATTEND_INVALID_DTYPE, [&](attend_softmax_options &o) { o.mask = &floats; }},
      {"options.mask", ATTEND_INVALID_SHAPE, [&](attend_softmax_options &o) { o.mask = &wide; }},
      {"options.bias", ATTEND_INVALID_RANK, [&](attend_softmax_options &o) { o.bias = &no_rank; }},
      {"options.bias", ATTEND_INVALID_DTYPE, [&](attend_softmax_options &o) { o.bias = &bools; }},
      {"options.scale", ATTEND_INVALID_VALUE, [](attend_softmax_options &o) { o.scale = HUGE_VAL; }},
      {"options.scale", ATTEND_INVALID_VALUE, [](attend_softmax_options &o) { o.scale = -HUGE_VAL; }},
      {"options.scale", ATTEND_INVALID_VALUE, [](attend_softmax_options &o) { o.scale = std::nan(""); }},
      {"options.flags", ATTEND_UNSUPPORTED, [](attend_softmax_options &o) { o.flags = ATTEND_LOG | 2u; }},
  };
  for (const auto &w : wrong) {
    INFO(w.argument);
    SoftmaxCall call;
    w.spoil(call.options.value);
    expect_failure(call, w.reason, w.argument);
  }
  // A scale that is infinite or 0 once it is rounded to the element type.
  SoftmaxCall f32, f64({ATTEND_F64});
  for (const double scale : {1e39, -1e39, 1e-46, -1e-300}) {
    f32.options.value.scale = f64.options.value.scale = scale;
    expect_failure(f32, ATTEND_INVALID_VALUE, "options.scale");
    expect_success(f64);
  }
  for (const double scale : {3.4e38, 1e-45}) {
    f32.options.value.scale = scale;
    expect_success(f32);
  }
}

TEST_CASE("softmax backward: options, in place, and of nothing") {
  for (const double scale : {HUGE_VAL, std::nan(""), 1e39, 1e-46}) {
    SoftmaxBackwardCall call;
    call.options.value.scale = scale;
    expect_failure(call, ATTEND_INVALID_VALUE, "options.scale");
  }
  SoftmaxBackwardCall flags;
  flags.options.value.flags = ATTEND_LOG | ATTEND_ACCUMULATE | 4u;
  expect_failure(flags, ATTEND_UNSUPPORTED, "options.flags");

  SoftmaxBackwardCall apart, on_d_y, on_y, narrow;
  expect_success(apart);
  on_d_y.d_x.view.data = on_d_y.d_y.view.data;
  expect_success(on_d_y);
  CHECK(on_d_y.d_y.bytes() == apart.d_x.bytes());  // the gaps hold the same too
  on_y.d_x.view.data = on_y.y.view.data;
  expect_success(on_y);
  CHECK(on_y.y.bytes() == apart.d_x.bytes());
  // Elements of two sizes lie elsewhere.
  narrow.d_x.view.data = narrow.d_y.view.data;
  narrow.d_x.view.dtype = ATTEND_BF16;
  expect_failure(narrow, ATTEND_OVERLAP, "d_x", Twin::accepts);

  for (size_t d = 0; d < 4; ++d) {
    SoftmaxBackwardCall none;
    for (Slot &slot : none.slots) {
      if (d == 0 && slot.name == "options.d_lse") continue;
      slot.operand->view.shape[d] = 0;
      slot.operand->view.data = nullptr;
    }
    const Bytes unchanged = none.memory();
    expect_success(none);
    CHECK(none.memory() == unchanged);
  }
}

TEST_CASE("softmax in place, and of nothing") {
  SoftmaxCall apart, in_place;
  expect_success(apart);
  in_place.y.view.data = in_place.x.view.data;
  expect_success(in_place);
  CHECK(in_place.x.bytes() == apart.y.bytes());  // the gaps hold the same too
  CHECK(in_place.lse.bytes() == apart.lse.bytes());

  SoftmaxCall none;
  none.x.view.shape[0] = none.y.view.shape[0] = 0;
  none.x.view.data = none.y.view.data = nullptr;
  expect_success(none);
  for (int64_t n = 0; n < 5; ++n) CHECK(static_cast<float *>(none.lse.view.data)[2 * n] == -HUGE_VALF);
}
