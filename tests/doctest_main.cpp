// The main of every test: says which instruction sets this machine tests, and refuses to pass without those that
// ATTEND_REQUIRE_ISA (a comma-separated list) names, so that no CI machine can skip one silently.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <set>
#include <sstream>
#include <string>

#include "attend/attend.h"

int main(int argc, char **argv) {
  std::set<std::string> available;
  std::printf("ISAs:");
  for (int32_t i = 0; const char *name = attend_isa_name(i); ++i) {
    available.insert(name);
    std::printf(" %s", name);
  }
  std::printf("\n");

  const char *required = std::getenv("ATTEND_REQUIRE_ISA");
  std::istringstream names(required != nullptr ? required : "");
  for (std::string name; std::getline(names, name, ',');) {
    if (available.count(name) == 0) {
      std::printf("ATTEND_REQUIRE_ISA asks for %s, which this library or this CPU does not have.\n", name.c_str());
      return EXIT_FAILURE;
    }
  }
  std::fflush(stdout);
  return doctest::Context(argc, argv).run();
}
