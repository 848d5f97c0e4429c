"""What the scripts of this folder share: the public tables, and where their fits are kept."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

# The public tables that results are made from: file, and how `read_profiles` reads it.
TABLES = {
    "u2os": ("cell_injury_u2os_8298x346.parquet", {}),
    "l1000": ("l1000_drugbank_1170x978.parquet", {"zero_control": True}),
}
# The Repurposing Hub's map: compounds to mechanisms and targets.
MAP = "repurposing_info_external_moa_map_resolved.tsv"


def keep_fits() -> None:
    """Read fits that were made before, and keep those that are made, in results/fits (see
    `cpvae.model.fits.kept`), here and in processes started from here.
    """
    os.environ.setdefault("CPVAE_FITS", str(ROOT / "results" / "fits"))
