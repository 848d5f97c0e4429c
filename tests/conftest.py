"""Set before anything heavy is imported: no windows, and OpenMP threads that sleep while they wait."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
