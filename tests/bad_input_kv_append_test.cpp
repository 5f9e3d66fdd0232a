// attend_kv_append called wrongly: a status, the argument's name and a sentence; nothing is written.
#include <functional>

#include "support.hpp"

using namespace attend::test;

namespace {

// Small, valid, and whatever may be wrong with it at hand.
struct Spoilable {
  Operand<float> k{{4, 3, 2, 2}, {}}, v{{5, 3, 2, 2}, {}}, k_cache{{4, 8, 2, 2}, {}}, v_cache{{5, 8, 2, 2}, {}},
      cos{{2, 9, 1, 1}, {}}, sin{{2, 9, 1, 1}, {}}, scale{{1, 8, 2, 2}, {}};
  attend_tensor tk = *k.tensor(), tv = *v.tensor(), tkc = *k_cache.tensor(), tvc = *v_cache.tensor(),
                tc = *cos.tensor(), ts = *sin.tensor(), tscale = *scale.tensor();
  const attend_tensor *pv = &tv, *pvc = &tvc;
  std::vector<int32_t> table = {0, 1, 1, 0};
  attend_tensor pages = {table.data(), ATTEND_I32, 2, {2, 2}, {1, 2}};
  std::vector<int64_t> slots = {0, 3, 7, 15, 14, 2}, positions = {8, 0, 1, 2, 3, 4}, offsets = {5, 0},
                       starts = {0, 1, 3};
  attend_kv_append_options options = ATTEND_KV_APPEND_OPTIONS_INIT;

  Spoilable() {
    options.cos = &tc;
    options.sin = &ts;
  }
  attend_status run() { return attend_kv_append(&tk, pv, &tkc, pvc, &options); }
  attend_status workspace(uint64_t *bytes) { return attend_kv_append_workspace(&tk, pv, &tkc, pvc, &options, bytes); }
  void use_slots() {
    options.slots = slots.data();
    options.positions = positions.data();
  }
  void use_pages() {
    options.pages = &pages;
    options.offsets = offsets.data();
  }
  void pack() {
    tk.rank = tv.rank = 3;
    options.sequences = 2;
    options.starts = starts.data();
  }
  void use_bytes() {  // of which there is room for four times as many
    tkc.dtype = tvc.dtype = ATTEND_I8;
    options.flags = ATTEND_COMPUTE_K_SCALE | ATTEND_COMPUTE_V_SCALE;
    options.k_scale = &tscale;
    options.v_scale = nullptr;
  }
  // `of_size`: the ..._workspace function says the same, else it does not look.
  void fails(int reason, const std::string &argument, const std::string &text, bool of_size) {
    char said[300] = "";
    options.message = said;
    options.message_size = sizeof said;
    Operand<float> k_before = k_cache, v_before = v_cache, scale_before = scale;
    const attend_status s = run();
    CHECK(ATTEND_REASON(s) == reason);
    CHECK(attend_status_argument(s) == argument);
    CHECK(said == argument + ": " + text);
    CHECK(k_cache.same_memory(k_before));
    CHECK(v_cache.same_memory(v_before));
    CHECK(scale.same_memory(scale_before));
    uint64_t bytes = 77;
    CHECK(workspace(&bytes) == (of_size ? s : ATTEND_OK));
    CHECK((bytes == 77) == of_size);
  }
};
using S = Spoilable;

void spoil(int reason, const char *argument, const char *text, bool of_size, const std::function<void(S &)> &how) {
  Spoilable call;
  how(call);
  INFO(std::string(argument) << ": " << std::string(text));
  call.fails(reason, argument, text, of_size);
}

}  // namespace

TEST_CASE("kv_append: the calls that are spoiled below are in order") {
  for (const auto &way :
       std::vector<std::function<void(S &)>>{[](S &) {}, [](S &c) { c.use_slots(); }, [](S &c) { c.use_pages(); },
                                             [](S &c) { c.pack(); }, [](S &c) { c.pv = c.pvc = nullptr; }}) {
    Spoilable call;
    way(call);
    CHECK(ok(call.run()));
  }
}

TEST_CASE("kv_append: shapes and options that do not fit are named, and nothing is written") {
  const int value = ATTEND_INVALID_VALUE, shape = ATTEND_INVALID_SHAPE, null = ATTEND_NULL_POINTER;
  spoil(null, "v", "is null, but required.", true, [](S &c) { c.pv = nullptr; });
  spoil(null, "v_cache", "is null, but required.", true, [](S &c) { c.pvc = nullptr; });
  spoil(shape, "v", "has 2 keys, not k's 3.", true, [](S &c) { c.tv.shape[1] = 2; });
  spoil(shape, "k_cache", "has 3 features, not k's 4.", true, [](S &c) { c.tkc.shape[0] = 3; });
  spoil(shape, "k_cache", "has 1 batch, not k's 2.", true, [](S &c) { c.tkc.shape[3] = 1; });
  spoil(shape, "k_cache", "has 1 batch, not 2.", true, [](S &c) {
    c.pack();
    c.tkc.shape[3] = 1;
  });
  spoil(shape, "v_cache", "has 7 keys, not k_cache's 8.", true, [](S &c) { c.tvc.shape[1] = 7; });
  spoil(shape, "v_cache", "has 1 batch, not k_cache's 2.", true, [](S &c) { c.tvc.shape[3] = 1; });
  spoil(shape, "k_cache", "has 3 new keys for batch 0, but a sequence has room for 2.", true,
        [](S &c) { c.tkc.shape[1] = c.tvc.shape[1] = 2; });
  spoil(shape, "options.pages", "has 3 new keys for batch 0, but a sequence has room for 2.", true, [](S &c) {
    c.options.pages = &c.pages;
    c.tkc.shape[1] = c.tvc.shape[1] = 1;
  });
  spoil(value, "options.cos", "has 2 positions for the 3 items of batch 0.", true,
        [](S &c) { c.tc.shape[1] = c.ts.shape[1] = 2; });
  spoil(null, "options.sin", "is null, but cos is given.", true, [](S &c) { c.options.sin = nullptr; });
  spoil(null, "options.cos", "is null, but sin is given.", true, [](S &c) { c.options.cos = nullptr; });
  spoil(shape, "options.cos", "has 2 rows, not 1, one for each pair of rotated features.", true,
        [](S &c) { c.options.rotary_dims = 2; });
  spoil(value, "options.rotary_dims", "is 6 for 4 features, but must be even and at most as many, 0 for all of them.",
        true, [](S &c) { c.options.rotary_dims = 6; });
  spoil(value, "options.rotary_dims", "is given without cos and sin.", true, [](S &c) {
    c.options.cos = c.options.sin = nullptr;
    c.options.rotary_dims = 2;
  });
  spoil(value, "options.positions", "is given without cos and sin.", true, [](S &c) {
    c.options.cos = c.options.sin = nullptr;
    c.options.positions = c.positions.data();
  });
  spoil(value, "options.flags", "has ATTEND_ROTARY_INTERLEAVED without cos and sin.", true, [](S &c) {
    c.options.cos = c.options.sin = nullptr;
    c.options.flags = ATTEND_ROTARY_INTERLEAVED;
  });
  spoil(ATTEND_UNSUPPORTED, "options.flags", "has 0x2, which means nothing here.", true,
        [](S &c) { c.options.flags = ATTEND_ROTARY_INVERSE; });
  spoil(value, "options.offsets", "is given beside slots, which say where each token goes.", true, [](S &c) {
    c.use_slots();
    c.options.offsets = c.offsets.data();
  });
  spoil(value, "options.pages", "is given beside slots, which say where each token goes.", true, [](S &c) {
    c.use_slots();
    c.options.pages = &c.pages;
  });
  spoil(null, "options.positions", "is null, but required where slots say where rotated keys go.", true, [](S &c) {
    c.use_slots();
    c.options.positions = nullptr;
  });
  spoil(shape, "options.pages", "has 1 column, not 2.", true, [](S &c) {
    c.use_pages();
    c.pages.shape[1] = 1;
  });
  spoil(ATTEND_INVALID_DTYPE, "options.pages", "is float32; int32 is needed.", true, [](S &c) {
    c.use_pages();
    c.pages.dtype = ATTEND_F32;
  });
  spoil(ATTEND_INVALID_DTYPE, "k_cache",
        "is uint8; float32, bfloat16, float16, int8 or float8_e4m3 is needed beside the other operands.", true,
        [](S &c) { c.tkc.dtype = ATTEND_U8; });
  spoil(value, "options.sequences", "is 2, but must be 0 without starts.", true, [](S &c) {
    c.pack();
    c.options.starts = nullptr;
  });
  spoil(ATTEND_OVERFLOW, "k", "has more than 2^48 new keys, too many for slots.", true, [](S &c) {
    c.use_slots();
    c.tk.rank = c.tv.rank = 3;
    c.tk.shape[1] = c.tv.shape[1] = int64_t{1} << 50;
    c.tk.stride[1] = c.tv.stride[1] = 0;
  });
}

TEST_CASE("kv_append: scales that do not fit are named, and nothing is written") {
  const int value = ATTEND_INVALID_VALUE, shape = ATTEND_INVALID_SHAPE, null = ATTEND_NULL_POINTER;
  spoil(value, "options.k_scale", "is given, but k_cache's type is float32, not int8 or float8_e4m3.", true,
        [](S &c) { c.options.k_scale = &c.tscale; });
  spoil(value, "options.flags", "wants a scale computed, but v_cache's type is float32, not int8 or float8_e4m3.", true,
        [](S &c) { c.options.flags = ATTEND_COMPUTE_V_SCALE; });
  spoil(null, "options.v_scale", "is null, but required where it is to be computed.", true,
        [](S &c) { c.use_bytes(); });
  spoil(null, "options.v_scale", "is null, but required where the cache's type is int8.", true, [](S &c) {
    c.use_bytes();
    c.options.flags = ATTEND_COMPUTE_K_SCALE;
  });
  spoil(shape, "options.k_scale", "has 1 key, not k_cache's 8.", true, [](S &c) {
    c.use_bytes();
    c.tscale.shape[1] = 1;
  });
  spoil(shape, "options.k_scale", "has 4 features and 8 keys; one of the two must be 1.", true, [](S &c) {
    c.use_bytes();
    c.options.flags = 0;
    c.tscale.shape[0] = 4;
    c.tscale.stride[0] = 0;
  });
  spoil(value, "options.v_scale", "is given without v.", true, [](S &c) {
    c.pv = c.pvc = nullptr;
    c.options.v_scale = &c.tscale;
  });
  spoil(value, "options.flags", "has ATTEND_COMPUTE_V_SCALE without v.", true, [](S &c) {
    c.pv = c.pvc = nullptr;
    c.options.flags = ATTEND_COMPUTE_V_SCALE;
  });
}

TEST_CASE("kv_append: what arrays say wrongly is named, and nothing is written") {
  const int value = ATTEND_INVALID_VALUE;
  for (const int64_t wrong : {int64_t{6}, int64_t{-1}, INT64_MAX}) {
    const std::string said =
        "is " + std::to_string(wrong) + " for batch 0 of 3 new keys, but a sequence has room for 8.";
    spoil(value, "options.offsets", said.c_str(), false, [wrong](S &c) {
      c.offsets[0] = wrong;
      c.options.offsets = c.offsets.data();
    });
  }
  spoil(value, "options.offsets", "is 14 for batch 0 of 3 new keys, but a sequence has room for 16.", false, [](S &c) {
    c.use_pages();
    c.offsets[0] = 14;
  });
  spoil(value, "options.offsets", "is 5 for batch 0 of 3 items, but options.cos has 7 positions, counted from 0.",
        false, [](S &c) {
          c.options.offsets = c.offsets.data();
          c.tc.shape[1] = c.ts.shape[1] = 7;
        });
  for (const int32_t wrong : {2, -1, INT32_MIN}) {
    const std::string said =
        "has " + std::to_string(wrong) + " for page 0 of batch 1, but the pool has 2 pages, counted from 0.";
    spoil(value, "options.pages", said.c_str(), false, [wrong](S &c) {
      c.use_pages();
      c.table[2] = wrong;
    });
  }
  for (const int64_t wrong : {int64_t{16}, int64_t{-2}, INT64_MIN}) {
    const std::string said =
        "is " + std::to_string(wrong) + " for item 4, but must be -1 or one of the cache's 16 slots, counted from 0.";
    spoil(value, "options.slots", said.c_str(), false, [wrong](S &c) {
      c.use_slots();
      c.slots[4] = wrong;
    });
  }
  for (const std::vector<int64_t> &slots :
       {std::vector<int64_t>{3, 4, 5, 6, 7, 3}, {3, 3, -1, -1, -1, -1}, {9, -1, 3, -1, 3, 12}}) {
    spoil(value, "options.slots", "has slot 3 twice, for two keys.", false, [&slots](S &c) {
      c.use_slots();
      c.slots = slots;
      c.options.slots = c.slots.data();
    });
  }
  spoil(value, "options.positions", "is 9 for item 2, but options.cos has 9 positions, counted from 0.", false,
        [](S &c) {
          c.use_slots();
          c.positions[2] = 9;
        });
  spoil(value, "options.starts", "ends with 4, but must end with 3, the number of packed items.", false, [](S &c) {
    c.pack();
    c.starts[2] = 4;
  });
  spoil(value, "options.starts", "has 2 new keys for batch 1, but a sequence has room for 1.", false, [](S &c) {
    c.pack();
    c.tkc.shape[1] = c.tvc.shape[1] = 1;
  });
}

TEST_CASE("kv_append: an output on another operand is refused") {
  const auto spoiled = [](const char *argument, const char *other, const std::function<void(S &)> &how) {
    const std::string said = "overlaps " + std::string(other) + "'s memory, but needs its own.";
    spoil(ATTEND_OVERLAP, argument, said.c_str(), false, how);
  };
  spoiled("k_cache", "k", [](S &c) { c.tk.data = c.tkc.data; });
  spoiled("k_cache", "v", [](S &c) { c.tv.data = c.tkc.data; });
  spoiled("v_cache", "k_cache", [](S &c) { c.tkc.data = c.tvc.data; });  // the smaller onto the larger
  spoiled("v_cache", "k", [](S &c) { c.tk.data = c.tvc.data; });
  spoiled("v_cache", "options.sin", [](S &c) { c.ts.data = c.tvc.data; });
  spoiled("k_cache", "options.positions",
          [](S &c) { c.options.positions = reinterpret_cast<const int64_t *>(&c.k_cache.at(0, 0)); });
  spoiled("options.k_scale", "v_cache", [](S &c) {
    c.tkc.dtype = ATTEND_I8;
    c.options.flags = ATTEND_COMPUTE_K_SCALE;
    c.options.k_scale = &c.tscale;
    c.tscale.data = c.tvc.data;
  });
  spoiled("options.k_scale", "v", [](S &c) {
    c.tkc.dtype = ATTEND_I8;
    c.options.flags = ATTEND_COMPUTE_K_SCALE;
    c.options.k_scale = &c.tscale;
    c.tscale.data = c.tv.data;
  });
}

TEST_CASE("kv_append: nothing to do, and workspaces") {
  for (size_t empty = 1; empty < 4; ++empty) {
    Spoilable call;
    call.tk.shape[empty] = call.tv.shape[empty] = 0;
    if (empty > 1) call.tkc.shape[empty] = call.tvc.shape[empty] = 0;
    call.tk.data = call.tv.data = nullptr;
    CHECK(ok(call.run()));
  }
  Spoilable call;
  uint64_t bytes = 77;
  CHECK(ok(call.workspace(&bytes)));
  CHECK(bytes == 0);
  call.use_slots();
  CHECK(ok(call.workspace(&bytes)));
  CHECK(bytes == 64 + 63);
  std::vector<char> room(bytes);
  call.options.workspace = room.data();
  call.options.workspace_size = bytes;
  CHECK(ok(call.run()));
  call.options.workspace_size = 47;
  CHECK(ATTEND_REASON(call.run()) == ATTEND_WORKSPACE_TOO_SMALL);
}
