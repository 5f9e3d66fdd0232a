// What a call of any function looks like to a test that spoils one thing of it.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "attend/attend.h"

namespace operands {

using Bytes = std::vector<unsigned char>;

// How a set of operands is made. With `gap`, each dimension has room for one more element than its extent, so that a
// test can let an extent grow by 1 and still have valid strides.
struct Layout {
  uint32_t dtype = ATTEND_F32;
  int64_t scale = 1;  // multiplies features and items
  bool gap = true;
};

struct Operand {
  std::vector<double> memory;  // enough for either type
  attend_tensor view = {};

  // Columns are contiguous, or, with `by_rows`, rows.
  Operand(const Layout &layout, int64_t rows, int64_t columns, int64_t heads, int64_t batch, bool by_rows = false)
      : view{nullptr, layout.dtype, 4, {rows, columns, heads, batch}, {}} {
    int64_t step = 1;
    for (const size_t i : {size_t{by_rows}, size_t{!by_rows}, size_t{2}, size_t{3}}) {
      view.stride[i] = step;
      step *= view.shape[i] + (layout.gap ? 1 : 0);
    }
    // Behind it more room than any other operand of scale 1 needs: a view moved onto another's data touches only that.
    memory.resize(static_cast<size_t>(step) + 4096);
    view.data = memory.data();
    uint32_t state = 1;
    for (size_t i = 0; i < memory.size(); ++i) {
      state = state * 1664525u + 1013904223u;
      const double value = (static_cast<double>(state >> 16) - 32768) / 32768;
      if (layout.dtype == ATTEND_F64) {
        memory[i] = value;
      } else {
        reinterpret_cast<float *>(memory.data())[i] = static_cast<float>(value);
      }
    }
  }
  Operand(const Operand &) = delete;
  Operand &operator=(const Operand &) = delete;

  Bytes bytes() const {
    const unsigned char *begin = reinterpret_cast<const unsigned char *>(memory.data());
    return Bytes(begin, begin + memory.size() * sizeof(double));
  }
};

// One operand of a call: its name in the status, and the pointer that is passed.
struct Slot {
  std::string name;
  Operand *operand;
  const attend_tensor **passed;
  bool output;
  bool required;
};

// The fields that all options begin with, and the bytes behind the struct.
struct Head {
  std::string name;
  unsigned char *begin;
  uint32_t struct_size;
  uint32_t *size, *flags;
  int32_t *threads;
  uint32_t *reserved;
  void **workspace;
  uint64_t *workspace_size;
  char **message;
  uint64_t *message_size;
  unsigned char *tail;
};

constexpr size_t kTail = 16;

template <class Options>
struct Padded {
  Options value = {};
  unsigned char tail[kTail] = {};
  Padded() { value.size = sizeof value; }

  Head head(const std::string &name) {
    return {name,
            reinterpret_cast<unsigned char *>(&value),
            sizeof value,
            &value.size,
            &value.flags,
            &value.threads,
            &value.reserved,
            &value.workspace,
            &value.workspace_size,
            &value.message,
            &value.message_size,
            tail};
  }
};

class Call {
 public:
  std::string function;
  std::vector<Slot> slots;  // in the order in which the library reads them
  std::vector<Head> heads;  // those of `options` first
  bool default_options = false;

  Call() = default;
  Call(const Call &) = delete;
  Call &operator=(const Call &) = delete;
  virtual ~Call() = default;
  virtual attend_status run() const = 0;
  virtual attend_status workspace(uint64_t *bytes) const = 0;

  Slot &slot(const std::string &name) {
    for (Slot &s : slots) {
      if (s.name == name) return s;
    }
    FAIL(function << " has no operand " << name);
    return slots[0];
  }
  Bytes memory(bool outputs_only = false) const {
    Bytes all;
    for (const Slot &s : slots) {
      if (outputs_only && !s.output) continue;
      const Bytes some = s.operand->bytes();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }
  uint64_t workspace_bytes(int32_t threads) const {
    const int32_t before = *heads[0].threads;
    uint64_t bytes = 0;
    *heads[0].threads = threads;
    CHECK(workspace(&bytes) == ATTEND_OK);
    *heads[0].threads = before;
    return bytes;
  }
  void set_workspace(void *start, uint64_t size) {
    *heads[0].workspace = start;
    *heads[0].workspace_size = size;
  }

 protected:
  void add(const std::string &name, Operand &operand, const attend_tensor *&passed, bool output, bool required) {
    passed = &operand.view;
    slots.push_back({name, &operand, &passed, output, required});
  }
  template <class Options>
  const Options *pointer(const Padded<Options> &options) const {
    return default_options ? nullptr : &options.value;
  }
};

constexpr bool kInput = false, kOutput = true, kOptional = false, kRequired = true;

}  // namespace operands
