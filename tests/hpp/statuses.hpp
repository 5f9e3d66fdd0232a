// attend.hpp as a translation unit without exceptions sees it.
#pragma once

#include <string>

// What is wrong with its statuses and results; empty: nothing.
std::string attend_hpp_statuses();
