"""Other libraries' attention, for python_peers.py."""

import os

# Or NumPy asks for huge pages, which the programs that measure ours do not have; read when NumPy is imported.
os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
