// What every function does with operands and options that are wrong, each wrong in one way.
#include <cmath>
#include <limits>
#include <set>

#include "operands.hpp"

using namespace operands;

namespace {

constexpr int64_t kMost = std::numeric_limits<int64_t>::max(), kLeast = std::numeric_limits<int64_t>::min();

// Which argument is blamed when the extent of an operand's dimension grows by 1.
struct Blame {
  int function;
  const char *operand;
  const char *blamed[4];
};

const Blame kBlame[] = {
    {0, "a", {"c", "b", "b", "b"}},
    {0, "b", {"b", "c", "b", "b"}},
    {0, "c", {"c", "c", "c", "c"}},
    {0, "options.bias", {"options.bias", "options.bias", "options.bias", "options.bias"}},
    {1, "x", {"y", "y", "y", "y"}},
    {1, "y", {"y", "y", "y", "y"}},
    {1, "options.lse", {"options.lse", "options.lse", "options.lse", "options.lse"}},
    {2, "q", {"k", "out", "k", "k"}},
    {2, "k", {"k", "v", "v", "k"}},
    {2, "v", {"out", "v", "v", "v"}},
    {2, "out", {"out", "out", "out", "out"}},
    {2, "options.lse", {"options.lse", "options.lse", "options.lse", "options.lse"}},
    {2, "options.scores", {"options.scores", "options.scores", "options.scores", "options.scores"}},
    {3, "x", {"weights.w_q", "out", "x", "out"}},
    {3, "weights.w_q", {"weights.w_k", "weights.w_q", "weights.w_k", "weights.w_q"}},
    {3, "weights.w_k", {"weights.w_k", "weights.w_k", "weights.w_k", "weights.w_k"}},
    {3, "weights.w_v", {"weights.b_v", "weights.w_v", "weights.w_v", "weights.w_v"}},
    {3, "weights.b_q", {"weights.b_q", "weights.b_q", "weights.b_q", "weights.b_q"}},
    {3, "weights.b_k", {"weights.b_k", "weights.b_k", "weights.b_k", "weights.b_k"}},
    {3, "weights.b_v", {"weights.b_v", "weights.b_v", "weights.b_v", "weights.b_v"}},
    {3, "weights.w_o", {"weights.b_o", "weights.w_o", "weights.w_o", "weights.w_o"}},
    {3, "weights.b_o", {"weights.b_o", "weights.b_o", "weights.b_o", "weights.b_o"}},
    {3, "out", {"out", "out", "out", "out"}},
    {4, "a", {"c", "b", "c", "c"}},
    {4, "b", {"b", "c", "c", "c"}},
    {4, "c", {"c", "c", nullptr, nullptr}},  // one head of A and B fits any number
    {5, "out_a", {"out_b", "lse_a", "lse_a", "lse_a"}},
    {5, "lse_a", {"lse_a", "lse_a", "lse_a", "lse_a"}},
    {5, "out_b", {"out_b", "out_b", "out_b", "out_b"}},
    {5, "lse_b", {"lse_b", "lse_b", "lse_b", "lse_b"}},
    {6, "x", {nullptr, "y", "y", "y"}},  // features that are no pairs are rotary_dims' fault
    {6, "cos", {"cos", "sin", "sin", "sin"}},
    {6, "sin", {"sin", "sin", "sin", "sin"}},
    {6, "y", {"y", "y", "y", "y"}},
    {7, "k", {"k_cache", "v", "v", "v"}},
    {7, "v", {"v_cache", "v", "v", "v"}},
    {7, "k_cache", {"k_cache", "v_cache", "k_cache", "k_cache"}},
    {7, "v_cache", {"v_cache", "v_cache", "v_cache", "v_cache"}},
    {7, "options.cos", {"options.cos", "options.sin", "options.sin", "options.sin"}},
    {7, "options.sin", {"options.sin", "options.sin", "options.sin", "options.sin"}},
};

}  // namespace

TEST_CASE("the calls that the tests spoil are valid") {
  for (int f = 0; f < kFunctions; ++f) {
    for (const uint32_t dtype : {ATTEND_F32, ATTEND_F64}) {
      for (const bool gap : {false, true}) {
        const auto call = make(f, {dtype, 1, gap});
        INFO(call->function);
        const Bytes before = call->memory(true);
        expect_success(*call);
        CHECK(call->memory(true) != before);
        call->default_options = true;
        expect_success(*call);
      }
    }
  }
}

TEST_CASE("null") {
  for_each_operand([](Call &call, size_t i) {
    *call.slots[i].passed = nullptr;
    if (call.slots[i].required) {
      expect_failure(call, ATTEND_NULL_POINTER, call.slots[i].name);
    } else if (call.slots[i].name != "weights.w_o") {  // then out has another shape
      expect_success(call);
    }
  });
  for_each_operand([](Call &call, size_t i) {
    call.slots[i].operand->view.data = nullptr;
    expect_failure(call, ATTEND_NULL_POINTER, call.slots[i].name, Twin::accepts);
  });
  for (int f = 0; f < kFunctions; ++f) {
    const auto call = make(f);
    const attend_status status = call->workspace(nullptr);
    CHECK(ATTEND_REASON(status) == ATTEND_NULL_POINTER);
    CHECK(std::string(attend_status_argument(status)) == "bytes");
  }
}

TEST_CASE("rank") {
  for (const uint32_t rank : {0u, 5u, 0xffffffffu}) {
    for_each_operand([rank](Call &call, size_t i) {
      call.slots[i].operand->view.rank = rank;
      expect_failure(call, ATTEND_INVALID_RANK, call.slots[i].name);
    });
  }
}

TEST_CASE("entries beyond the rank are not looked at") {
  SelfAttentionCall call;
  attend_tensor &view = call.b_o.view;
  view.rank = 1;
  for (size_t d = 1; d < 4; ++d) {
    view.shape[d] = -1;
    view.stride[d] = kLeast;
  }
  expect_success(call);
}

TEST_CASE("element types") {
  const struct {
    uint32_t dtype;
    int reason;
  } wrong[] = {
      {0, ATTEND_INVALID_DTYPE},  {ATTEND_BOOL, ATTEND_INVALID_DTYPE}, {10, ATTEND_INVALID_DTYPE},
      {99, ATTEND_INVALID_DTYPE}, {0x101, ATTEND_INVALID_DTYPE},       {0xffffffff, ATTEND_INVALID_DTYPE},
  };
  for (const auto &w : wrong) {
    for_each_operand([w](Call &call, size_t i) {
      INFO("dtype " << w.dtype);
      call.slots[i].operand->view.dtype = w.dtype;
      expect_failure(call, w.reason, call.slots[i].name);
    });
  }
  // Of the narrower types each operand of an f32 call may have those that its place in it allows.
  for (const uint32_t dtype : {ATTEND_BF16, ATTEND_F16, ATTEND_I8, ATTEND_U8, ATTEND_I32, ATTEND_F8E4M3}) {
    for_each_operand([dtype](Call &call, size_t i) {
      INFO("dtype " << dtype);
      const std::string name = call.slots[i].name;
      call.slots[i].operand->view.dtype = dtype;
      const bool appends = call.function == "attend_kv_append";
      const bool is_half = dtype == ATTEND_BF16 || dtype == ATTEND_F16;
      const bool has_gradient = call.function == "attend_attention_backward";
      const bool is_key =
          appends ? name == "k_cache" || name == "v_cache" : !has_gradient && (name == "k" || name == "v");
      const bool of_arithmetic = (name == "y" && call.function == "attend_softmax") ||
                                 name.find("lse") != std::string::npos || name.find("scores") != std::string::npos;
      const bool is_factor = call.function.find("attend_matmul") == 0 && (name == "a" || name == "b");
      if (is_factor && dtype == ATTEND_I8) {  // weights
        expect_success(call);
      } else if (is_key && dtype == ATTEND_I8) {
        expect_failure(call, ATTEND_NULL_POINTER, "options." + name.substr(0, 1) + "_scale");
      } else if ((is_half && !of_arithmetic) || (is_key && dtype == ATTEND_F8E4M3)) {
        expect_success(call);
      } else {  // beside an a of uint8 it is b that does not fit
        const bool settles = is_factor && name == "a" && dtype == ATTEND_U8;
        expect_failure(call, ATTEND_INVALID_DTYPE, settles ? "b" : name);
      }
    });
  }
  // The first operand settles the type; the second is then the one that differs.
  for_each_operand([](Call &call, size_t i) {
    call.slots[i].operand->view.dtype = ATTEND_F64;
    expect_failure(call, ATTEND_INVALID_DTYPE, call.slots[i == 0 ? 1 : i].name);
  });
}

TEST_CASE("extents") {
  for (size_t d = 0; d < 4; ++d) {
    for (const int64_t extent : {int64_t{-1}, kLeast}) {
      for_each_operand([d, extent](Call &call, size_t i) {
        call.slots[i].operand->view.shape[d] = extent;
        expect_failure(call, ATTEND_INVALID_SHAPE, call.slots[i].name);
      });
    }
  }
  for (const Blame &b : kBlame) {
    for (size_t d = 0; d < 4; ++d) {
      if (b.blamed[d] == nullptr) continue;
      const auto call = make(b.function);
      INFO(call->function << " " << b.operand << " dimension " << d);
      ++call->slot(b.operand).operand->view.shape[d];
      expect_failure(*call, ATTEND_INVALID_SHAPE, b.blamed[d]);
    }
  }
}

TEST_CASE("overflow") {
  for (size_t d = 0; d < 4; ++d) {
    for (const int64_t stride : {kMost, kMost / 4, -kMost / 4, -kMost, kLeast, kLeast + 1, kMost / 8, kMost / 32}) {
      for_each_operand([d, stride](Call &call, size_t i) {
        attend_tensor &view = call.slots[i].operand->view;
        if (view.shape[d] <= 1) return;
        INFO("dimension " << d << " stride " << stride);
        // The last of them spans too much only if it is many elements wide.
        if (stride == kMost / 32 && view.shape[d] < 4) return;
        view.stride[d] = stride;
        expect_failure(call, ATTEND_OVERFLOW, call.slots[i].name);
      });
    }
    for (const int64_t extent : {kMost, kMost / 2 + 2, kMost / 16 + 2}) {
      for_each_operand([d, extent](Call &call, size_t i) {
        INFO("dimension " << d << " extent " << extent);
        call.slots[i].operand->view.shape[d] = extent;
        expect_failure(call, ATTEND_OVERFLOW, call.slots[i].name);
      });
    }
  }
  // Strides of 0 span nothing, but the elements cannot be counted.
  for_each_operand([](Call &call, size_t i) {
    attend_tensor &view = call.slots[i].operand->view;
    view = {view.data, view.dtype, 4, {kMost, kMost, kMost, kMost}, {}};
    expect_failure(call, ATTEND_OVERFLOW, call.slots[i].name);
  });
  // Each dimension fits alone, both together do not.
  for_each_operand([](Call &call, size_t i) {
    attend_tensor &view = call.slots[i].operand->view;
    view = {view.data, view.dtype, 4, {2, 2, 1, 1}, {kMost / 16 - 2, kMost / 16 - 2, 0, 0}};
    expect_failure(call, ATTEND_OVERFLOW, call.slots[i].name);
  });
}

TEST_CASE("outputs whose elements may share memory") {
  for (size_t d = 0; d < 4; ++d) {
    for_each_operand([d](Call &call, size_t i) {
      attend_tensor &view = call.slots[i].operand->view;
      if (!call.slots[i].output || view.shape[d] <= 1) return;
      INFO("dimension " << d);
      const int64_t valid = view.stride[d];
      view.stride[d] = 0;
      expect_failure(call, ATTEND_INVALID_STRIDE, call.slots[i].name);
      for (size_t other = 0; other < 4; ++other) {
        if (other == d || view.shape[other] <= 1) continue;
        for (const int64_t sign : {1, -1}) {
          view.stride[d] = sign * view.stride[other];
          expect_failure(call, ATTEND_INVALID_STRIDE, call.slots[i].name);
        }
      }
      view.stride[d] = valid;
      expect_success(call);
    });
  }
  // One element short of apart, and apart.
  MatmulCall call;
  call.c.view.stride[1] = 2;
  expect_failure(call, ATTEND_INVALID_STRIDE, "c");
  call.c.view.stride[1] = 3;
  expect_success(call);
}

TEST_CASE("strides of 0 and negative strides in inputs, negative strides in outputs") {
  for (size_t d = 0; d < 4; ++d) {
    for_each_operand([d](Call &call, size_t i) {
      Slot &slot = call.slots[i];
      attend_tensor &view = slot.operand->view;
      const int64_t element = view.dtype == ATTEND_F64 ? 8 : 4;
      if (!slot.output) {
        const int64_t stride = view.stride[d];
        view.stride[d] = 0;
        expect_success(call);
        view.stride[d] = stride;
      }
      view.data = static_cast<char *>(view.data) + (view.shape[d] - 1) * view.stride[d] * element;
      view.stride[d] = -view.stride[d];
      expect_success(call);
    });
  }
}

TEST_CASE("the fields that all options begin with") {
  const auto each_head = [](const std::function<void(Call &, Head &)> &test) {
    for (int f = 0; f < kFunctions; ++f) {
      for (size_t h = 0; h < make(f)->heads.size(); ++h) {
        const auto call = make(f);
        INFO(call->function << " " << call->heads[h].name);
        test(*call, call->heads[h]);
      }
    }
  };
  each_head([](Call &call, Head &head) {
    for (const uint32_t size : {0u, 4u, head.struct_size - 1}) {
      *head.size = size;
      expect_failure(call, ATTEND_INVALID_STRUCT_SIZE, head.name + ".size");
    }
    *head.size = head.struct_size + kTail;
    expect_success(call);
    for (const size_t byte : {size_t{0}, kTail - 1}) {
      head.tail[byte] = 1;
      expect_failure(call, ATTEND_INVALID_STRUCT_SIZE, head.name + ".size");
      head.tail[byte] = 0;
    }
    head.tail[8] = 1;
    *head.size = head.struct_size + 8;
    expect_success(call);
  });
  each_head([](Call &call, Head &head) {
    for (const uint32_t flags : {0x4000u, 0x20000u, 0x80000000u, 0xffffffffu}) {
      *head.flags = flags;
      expect_failure(call, ATTEND_UNSUPPORTED, head.name + ".flags");
    }
  });
  each_head([](Call &call, Head &head) {
    for (const int32_t threads : {-1, std::numeric_limits<int32_t>::min()}) {
      *head.threads = threads;
      expect_failure(call, ATTEND_INVALID_VALUE, head.name + ".threads");
    }
  });
  each_head([](Call &call, Head &head) {
    *head.reserved = 1;
    expect_failure(call, ATTEND_INVALID_VALUE, head.name + ".reserved");
  });
  each_head([](Call &call, Head &head) {
    // Those of attention_options must be 0, in the twin too.
    *head.workspace_size = 1;
    expect_failure(call, ATTEND_NULL_POINTER, head.name + ".workspace",
                   head.name == "options" ? Twin::accepts : Twin::unspecified);
  });
}

TEST_CASE("empty outputs are valid and nothing is written") {
  for (size_t d = 0; d < 4; ++d) {
    INFO("dimension " << d);
    MatmulCall matmul;
    matmul.c.view.shape[d] = 0;
    matmul.c.view.data = nullptr;
    (d == 1 ? matmul.b : matmul.a).view.shape[d] = 0;
    if (d >= 2) matmul.b.view.shape[d] = 0;
    matmul.bias.view.shape[d] = 0;
    const Bytes before = matmul.memory();
    expect_success(matmul);
    CHECK(matmul.memory() == before);

    if (d == 0) continue;  // writes lse: above
    SoftmaxCall softmax;
    for (Slot &slot : softmax.slots) {
      slot.operand->view.shape[d] = 0;
      slot.operand->view.data = nullptr;
    }
    const Bytes unchanged = softmax.memory();
    expect_success(softmax);
    CHECK(softmax.memory() == unchanged);
  }
}

TEST_CASE("status texts") {
  std::set<std::string> texts;
  for (attend_status reason = ATTEND_OK; reason <= ATTEND_RANKS_DIFFER; ++reason) {
    const std::string text = attend_status_string(reason);
    CHECK(text != "");
    CHECK(texts.insert(text).second);
    CHECK(attend_status_string(reason | 3 << 8) == text);
  }
  for (const attend_status unknown :
       {ATTEND_RANKS_DIFFER + 1, 0xff, -1, 0x7fffffff, std::numeric_limits<int32_t>::min() + 99}) {
    CHECK(std::string(attend_status_string(unknown)) != "");
    CHECK(attend_status_argument(unknown) != nullptr);
    CHECK(texts.count(attend_status_string(unknown)) == 0);
  }
  CHECK(std::string(attend_status_argument(ATTEND_OK)) == "");
  CHECK(std::string(attend_status_argument(ATTEND_OUT_OF_MEMORY)) == "");
}
