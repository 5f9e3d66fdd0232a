// What is known of the caches of this machine. It may decide how work is cut, never what is computed.
#pragma once

namespace attend {

// Whether the L1 data cache has at least 48 KiB; found once. Unknown counts as small.
bool has_large_l1();

}  // namespace attend
