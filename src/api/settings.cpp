#include "api/boundary.hpp"
#include "dispatch/registry.hpp"
#include "drivers/parallel.hpp"

using namespace attend;

uint32_t attend_version(void) { return ATTEND_VERSION; }

uint32_t attend_contract(void) { return static_cast<uint32_t>(kContract); }

const char *attend_isa(void) { return active_kernels()->name; }

const char *attend_isa_name(int32_t i) {
  const KernelTable *table = i < 0 ? nullptr : available_kernels(i);
  return table == nullptr ? nullptr : table->name;
}

attend_status attend_set_isa(const char *name) {
  const KernelTable *table = nullptr;
  if (name != nullptr) {
    table = find_kernels(name);
    if (table == nullptr) return failure(ATTEND_UNKNOWN_ISA, Argument::name);
  }
  set_active_kernels(table);
  return ATTEND_OK;
}

int32_t attend_threads(void) { return library_threads(); }

attend_status attend_set_executor(const attend_executor *executor) {
  Executor checked;
  if (executor != nullptr) {
    if (attend_status s = read_executor(*executor, Argument::executor, Message(), &checked)) return s;
  }
  set_library_executor(executor);
  return ATTEND_OK;
}

attend_status attend_set_threads(int32_t threads) {
  if (threads < 0) return failure(ATTEND_INVALID_VALUE, Argument::threads);
  set_library_threads(threads);
  return ATTEND_OK;
}
