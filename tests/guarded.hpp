// Memory between pages that may not be touched.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include "support.hpp"

namespace attend::test {

// Where an operand begins or ends.
struct Place {
  bool end;
  int64_t offset;
};

// `count` elements, the last one right before untouchable pages or the first one right behind one. `beyond` more elements
// lie on untouchable pages behind them.
template <class T>
class Guarded {
 public:
  Guarded(int64_t count, const Place &at, int64_t beyond = 0) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = static_cast<size_t>(count + at.offset) * sizeof(T), pages = (bytes + page - 1) / page + 1;
    size_ = (pages + 2) * page + static_cast<size_t>(beyond) * sizeof(T);
    void *memory = mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    start_ = static_cast<char *>(memory);
    REQUIRE(mprotect(start_ + page, pages * page, PROT_READ | PROT_WRITE) == 0);
    char *first = at.end ? start_ + (pages + 1) * page - bytes : start_ + page;
    // An offset moves the elements off the guard, so that every alignment is met on its far side.
    data = reinterpret_cast<T *>(first) + (at.end ? 0 : at.offset);
    for (int64_t i = 0; i < count; ++i) data[i] = static_cast<T>(i % 3);
  }
  ~Guarded() { munmap(start_, size_); }
  Guarded(const Guarded &) = delete;
  Guarded &operator=(const Guarded &) = delete;

  T *data;

 private:
  char *start_;
  size_t size_;
};

}  // namespace attend::test
