// Which kernel table is in use.
#pragma once

#include "kernels/table.hpp"

namespace attend {

// The table in use; chosen at the first call. Never null.
const KernelTable *active_kernels();

// The i-th table that this CPU runs, best first; null past the last.
const KernelTable *available_kernels(int i);

// Use this table from now on; null = choose again. Tests pass tables of their own.
void set_active_kernels(const KernelTable *table);

// The available table of that name, or null.
const KernelTable *find_kernels(const char *name);

// Gives the rows that a table lacks those of a lower one, which every CPU that runs the table runs too.
void fill_holes(KernelTable *table, const KernelTable &lower);

}  // namespace attend
