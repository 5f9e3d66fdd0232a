// What has its number or its place already and belongs to a later version.
#include <cstddef>

#include "operands.hpp"

using namespace operands;

namespace {

struct Field {
  const char *name;
  size_t offset;
};

#define FIELD(type, name) \
  { #name, offsetof(type, name) }

constexpr Field kOfAttention[] = {
    FIELD(attend_attention_options, key_offset), FIELD(attend_attention_options, state)};

#undef FIELD

// Each byte of the fields on its own: none is overlooked, and none is read as if it were of this version.
template <size_t kCount>
void expect_unsupported(const Call &call, const Head &head, const Field (&fields)[kCount]) {
  for (const Field &field : fields) {
    for (size_t i = field.offset; i < field.offset + 8; ++i) {
      INFO(call.function << " " << field.name << " byte " << i);
      head.begin[i] = 1;
      expect_failure(call, ATTEND_UNSUPPORTED, head.name + "." + field.name);
      head.begin[i] = 0;
    }
  }
  expect_success(call);
}

}  // namespace

TEST_CASE("fields of a later version must be zero") {
  if (sizeof(void *) != 8) return;
  for (int f = 0; f < kFunctions; ++f) {
    const auto call = make(f);
    for (const Head &head : call->heads) {
      if (head.struct_size == sizeof(attend_attention_options)) expect_unsupported(*call, head, kOfAttention);
    }
  }
}

TEST_CASE("flags of a later version must be zero") {
  for (const uint32_t flag : {ATTEND_PARTIAL, ATTEND_CONTINUE}) {
    AttentionCall call;
    call.options.value.flags = flag;
    expect_failure(call, ATTEND_UNSUPPORTED, "options.flags");
    SelfAttentionCall self;
    self.attention_options.value.flags = flag;
    expect_failure(self, ATTEND_UNSUPPORTED, "attention_options.flags");
  }
}

TEST_CASE("ATTEND_NATIVE_DOT is accepted by every function, without effect") {
  for (int f = 0; f < kFunctions; ++f) {
    const auto plain = make(f), flagged = make(f);
    INFO(plain->function);
    for (Head &head : flagged->heads) *head.flags |= ATTEND_NATIVE_DOT;
    expect_success(*plain);
    expect_success(*flagged);
    CHECK(plain->memory() == flagged->memory());
  }
}
