// A shared library of attend, of any revision, opened while the program runs.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_BENCH_AGAINST_LIBRARY_HPP
#define ATTEND_BENCH_AGAINST_LIBRARY_HPP

#include <attend/attend.h>
#include <dlfcn.h>
#include <stdlib.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>

namespace attend::bench::against {

// Opens a copy of the file: a file that is open already would be answered with the same library once more.
inline void *open_copy(const std::string &path) {
  std::string folder = std::filesystem::temp_directory_path() / "attend_against_XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) throw std::runtime_error("cannot make " + folder);
  const std::string copy = folder + "/libattend.so";
  std::error_code error;
  std::filesystem::copy_file(path, copy, error);
  void *const handle = error ? nullptr : dlopen(copy.c_str(), RTLD_NOW | RTLD_LOCAL);
  const std::string why = error ? error.message() : handle == nullptr ? dlerror() : "";
  std::filesystem::remove_all(folder);
  if (handle == nullptr) throw std::runtime_error(path + ": " + why);
  return handle;
}

// Its functions by their names without "attend_"; null where this revision has none of that name.
//
// Options are passed with the size that today's header gives them, or in the layout that a library from before that has
// (see Passed). A library accepts those of a newer version whose unknown part is zero; what it does not accept it says,
// and the row is left out.
struct Library {
  std::string who;
  void *handle;

#define ATTEND_BENCH_FIND(name) \
  decltype(attend_##name) *name = reinterpret_cast<decltype(attend_##name) *>(dlsym(handle, "attend_" #name))
  ATTEND_BENCH_FIND(status_string);
  ATTEND_BENCH_FIND(status_argument);
  ATTEND_BENCH_FIND(isa);
  ATTEND_BENCH_FIND(set_isa);
  ATTEND_BENCH_FIND(matmul);
  ATTEND_BENCH_FIND(matmul_workspace);
  ATTEND_BENCH_FIND(softmax);
  ATTEND_BENCH_FIND(softmax_workspace);
  ATTEND_BENCH_FIND(attention);
  ATTEND_BENCH_FIND(attention_workspace);
  ATTEND_BENCH_FIND(attention_merge);
  ATTEND_BENCH_FIND(attention_merge_workspace);
  ATTEND_BENCH_FIND(self_attention);
  ATTEND_BENCH_FIND(self_attention_workspace);
#undef ATTEND_BENCH_FIND

  Library(std::string name, const std::string &path) : who(std::move(name)), handle(open_copy(path)) {
    if (!status_string || !status_argument || !isa || !set_isa) throw std::runtime_error(path + " is no attend");
  }

  std::string reason(attend_status status) const {
    const std::string argument = status_argument(status);
    return status_string(status) + (argument.empty() ? "" : " (" + argument + ")");
  }

  // Until options took the layout of 0.1.0; the same commit brought this function.
  bool has_old_options() const { return !attention_merge_workspace; }
};

// Options for libraries of either layout. In the old one they had no message and no executor (bytes 32 to 55), and these
// sizes.
template <class Options>
constexpr size_t kOldSize = 0;
template <>
inline constexpr size_t kOldSize<attend_matmul_options> = 40;
template <>
inline constexpr size_t kOldSize<attend_softmax_options> = 64;
template <>
inline constexpr size_t kOldSize<attend_attention_options> = 144;
template <>
inline constexpr size_t kOldSize<attend_merge_options> = 16;
template <>
inline constexpr size_t kOldSize<attend_self_attention_options> = 32;

template <class Options>
class Passed {
 public:
  Options value;

  explicit Passed(const Options &options) : value(options) {}

  // Once `value` is final: nothing is translated while a call is timed.
  void settle() {
    constexpr size_t kFrom = 32, kTo = 56;
    const char *const from = reinterpret_cast<const char *>(&value);
    std::copy(from, from + kFrom, old_);
    std::copy(from + kTo, from + sizeof value, old_ + kFrom);
    // What the old layout has no place for lies behind it, where the library refuses it.
    std::copy(from + kFrom, from + kTo, std::end(old_) - (kTo - kFrom));
    const bool fits = std::all_of(old_ + kOldSize<Options>, std::end(old_), [](char byte) { return byte == 0; });
    const uint32_t size = static_cast<uint32_t>(fits ? kOldSize<Options> : sizeof value);
    std::memcpy(old_, &size, sizeof size);
  }
  const Options *to(const Library &library) const {
    return library.has_old_options() ? reinterpret_cast<const Options *>(old_) : &value;
  }

 private:
  alignas(Options) char old_[sizeof(Options)] = {};
};

}  // namespace attend::bench::against

#endif  // ATTEND_BENCH_AGAINST_LIBRARY_HPP
