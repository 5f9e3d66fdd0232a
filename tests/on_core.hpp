// What is chosen by the core's caches (drivers/cache.hpp) on any machine.
#pragma once

#include "drivers/cache.hpp"
#include "support.hpp"

namespace attend::test {

// While it lives the caches are those of some other core: the L1 and L2 of a Zen 4, of an Intel from Sapphire Rapids on, of a
// Zen 5.
class OnCore {
 public:
  explicit OnCore(const Caches &core) : mine_(caches()) { set(core); }
  explicit OnCore(Random &random) : mine_(caches()) {
    set(random.pick<Caches>({{32 << 10, 1 << 20}, {48 << 10, 2 << 20}, {48 << 10, 1 << 20}}));
  }
  ~OnCore() { set(mine_); }
  OnCore(const OnCore &) = delete;
  OnCore &operator=(const OnCore &) = delete;

 private:
  static void set(const Caches &c) {
    g_l1 = c.l1;
    g_l2 = c.l2;
  }
  Caches mine_;
};

}  // namespace attend::test
