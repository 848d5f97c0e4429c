"""Fetching datasets from a server on this machine that does what servers do: cut, refuse, ignore,
stall and change.
"""

import dataclasses
import errno
import gzip
import hashlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pandas as pd
import pytest
import serve
import standins
from filelock import FileLock

from cpvae import datasets
from cpvae.io.columns import bookkeeping
from cpvae.errors import CpvaeError
from cpvae.profiles.mechanisms import mend_moa
from cpvae.datasets import DATASETS, DataFile, cache_folder, fetch_dataset, known_datasets
from cpvae.datasets import load_dataset
from cpvae.preparation.clean import with_set_aside

CONTENT = np.random.default_rng(7).bytes(200_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "profiles.bin"


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / NAME).write_bytes(CONTENT)
    with serve.serving(tmp_path / "served") as server:
        yield server


@pytest.fixture
def register(tmp_path, monkeypatch):
    "Register one dataset of one file, and keep pauses short and proxies out."
    monkeypatch.setattr(datasets, "_PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("CPVAE_REGISTRY", str(tmp_path / "registry.json"))
    monkeypatch.setenv("CPVAE_CACHE", str(tmp_path / "cache"))

    def write(server="http://127.0.0.1:9", **changes):
        file = (
            dict(
                name=NAME, url=f"{server}/{NAME}", licence="none", sha256=SHA256, size=len(CONTENT)
            )
            | changes
        )
        entry = {"about": "a stand-in", "files": {"profiles": file}}
        (tmp_path / "registry.json").write_text(json.dumps({"small": entry}))
        return tmp_path / "cache"

    return write


def left(cache):
    "What is in the cache."
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def refusal(*args, **kwargs):
    "The line that a refused fetch says."
    with pytest.raises(CpvaeError) as caught:
        fetch_dataset(*(args or ("small",)), **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ranges(server):
    return [wanted for _, wanted in server.asked]


def test_a_file_is_fetched_once(server, register):
    cache = register(server.url)
    paths = fetch_dataset("small")
    assert paths == {"profiles": cache / NAME} and paths["profiles"].read_bytes() == CONTENT
    assert paths == fetch_dataset("small")
    assert (ranges(server), left(cache), server.encodings) == ([None], [NAME], {"identity"})


def test_a_file_in_the_cache_needs_neither_server_nor_writing(server, register, monkeypatch):
    cache = register()
    cache.mkdir()
    (cache / NAME).write_bytes(CONTENT)
    for name in ("replace", "mkdir"):
        monkeypatch.setattr(os, name, lambda *a, **k: pytest.fail("wrote"))
    assert fetch_dataset("small")["profiles"] == cache / NAME
    assert (server.asked, left(cache)) == ([], [NAME])


@pytest.mark.parametrize("cuts", [[1], [70_000], [70_000, 50_000], [70_000, 0, 129_999]])
def test_a_cut_is_resumed_within_the_call(server, register, cuts):
    cache = register(server.url)
    server.script = [{"cut": n} for n in cuts]
    assert fetch_dataset("small")["profiles"].read_bytes() == CONTENT
    starts = np.cumsum(cuts)
    assert ranges(server) == [None] + [f"bytes={n}-" for n in starts]
    assert left(cache) == [NAME]


def test_what_came_is_kept_for_the_next_call(server, register):
    cache = register(server.url)
    server.script = [{"cut": 40_000}, {"cut": 30_000}, {"cut": 0}, {"status": 503}]
    said = refusal()
    assert "broke 4 times (503" in said and "70,000 of 200,000 bytes" in said and "goes on" in said
    assert left(cache) == [f"{NAME}.part"]
    assert (cache / f"{NAME}.part").read_bytes() == CONTENT[:70_000]
    assert fetch_dataset("small")["profiles"].read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=40000-", "bytes=70000-", "bytes=70000-", "bytes=70000-"]
    assert left(cache) == [NAME]


def test_a_server_without_ranges_starts_again(server, register):
    cache = register(server.url)
    server.script = [{"cut": 70_000}, {"ranges": False}]
    assert fetch_dataset("small")["profiles"].read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=70000-"]
    assert left(cache) == [NAME]


def test_another_range_than_asked_for_starts_again(server, register):
    register(server.url)
    server.script = [
        {"cut": 70_000},
        {"headers": {"Content-Range": f"bytes 60000-199999/{len(CONTENT)}"}},
    ]
    assert fetch_dataset("small")["profiles"].read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=70000-", None]


def test_a_length_the_server_does_not_tell_is_checked_too(server, register):
    register(server.url)
    server.script = [{"cut": 70_000, "length": False}, {"length": False}]
    assert fetch_dataset("small")["profiles"].read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=70000-"]


def test_a_gz_file_announced_as_compressed_transport_stays_packed(server, register, tmp_path):
    packed = gzip.compress(CONTENT)
    (tmp_path / "served" / "x.csv.gz").write_bytes(packed)
    register(
        server.url, name="x.csv.gz", sha256=hashlib.sha256(packed).hexdigest(), size=len(packed)
    )
    server.script = [{"headers": {"Content-Encoding": "x-gzip"}}]
    assert fetch_dataset("small", base_url=server.url)["profiles"].read_bytes() == packed


def test_a_stalled_connection_is_given_up_and_resumed(server, register, monkeypatch):
    register(server.url)
    monkeypatch.setattr(datasets, "_TIMEOUT", (1, 0.2))
    server.script = [{"cut": 70_000, "stall": 120}]
    assert fetch_dataset("small")["profiles"].read_bytes() == CONTENT
    assert (len(server.asked), server.sat_out) == (2, 0), "it did not wait for the server to go on"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_passing_failure_is_tried_again(server, register, status):
    cache = register(server.url)
    server.script = [{"status": status}]
    assert fetch_dataset("small")["profiles"].read_bytes() == CONTENT
    assert (ranges(server), left(cache)) == ([None, None], [NAME])


@pytest.mark.parametrize("status", [404, 403])
def test_a_lasting_failure_is_not(server, register, status):
    cache = register(server.url)
    server.script = [{"status": status}]
    assert f"answers {status}" in refusal()
    assert (len(server.asked), left(cache)) == (1, [])


def test_wrong_bytes_are_refused_and_not_kept(server, register):
    cache = register(server.url, sha256="0" * 64)
    server.script = [{"cut": 70_000}]
    said = refusal()
    assert NAME in said and SHA256 in said and "0" * 64 in said
    assert left(cache) == []
    refusal()
    assert ranges(server) == [None, "bytes=70000-", None]


def test_wrong_bytes_in_the_part_do_not_last(server, register):
    cache = register(server.url)
    cache.mkdir()
    (cache / f"{NAME}.part").write_bytes(b"x" * 70_000)
    assert SHA256 in refusal() and left(cache) == []
    assert fetch_dataset("small")["profiles"].read_bytes() == CONTENT


def test_a_part_that_is_whole_or_too_long(server, register):
    cache = register(server.url)
    cache.mkdir()
    (cache / f"{NAME}.part").write_bytes(CONTENT)
    fetch_dataset("small")
    assert (server.asked, left(cache)) == ([], [NAME])
    (cache / NAME).unlink()
    (cache / f"{NAME}.part").write_bytes(CONTENT + b"x")
    fetch_dataset("small")
    assert ranges(server) == [None]


def test_another_size_is_refused_before_the_transfer(server, register):
    cache = register(server.url, size=len(CONTENT) + 1)
    said = refusal()
    assert "200,000" in said and "200,001" in said and left(cache) == []


@pytest.mark.parametrize(
    "part, asked",
    [
        (0, [None]),
        (70_000, ["bytes=70000-"]),
        (200_000, ["bytes=200000-"]),
        (200_001, ["bytes=200001-", None]),
    ],
)
def test_without_size_or_hash_the_server_tells_when_it_is_whole(server, register, part, asked):
    cache = register(server.url, size=None, sha256=None)
    cache.mkdir()
    if part:
        (cache / f"{NAME}.part").write_bytes((CONTENT + b"x")[:part])
    assert fetch_dataset("small")["profiles"].read_bytes() == CONTENT
    assert ranges(server) == asked
    assert json.loads((cache / "recorded_hashes.json").read_text()) == {NAME: SHA256}


def test_a_hash_seen_once_is_required_from_then_on(server, register, tmp_path):
    cache = register(server.url, size=None, sha256=None)
    fetch_dataset("small")
    other = hashlib.sha256(CONTENT[:-1]).hexdigest()
    (cache / NAME).write_bytes(CONTENT[:-1])
    said = refusal()
    assert SHA256 in said and other in said and "recorded_hashes.json" in said
    assert left(cache) == [NAME, "recorded_hashes.json"]
    (cache / NAME).unlink()
    (tmp_path / "served" / NAME).write_bytes(CONTENT[:-1])
    said = refusal()
    assert SHA256 in said and other in said and left(cache) == ["recorded_hashes.json"]


def test_a_file_placed_by_hand(server, register):
    cache = register()
    cache.mkdir()
    (cache / NAME).write_bytes(CONTENT)
    assert fetch_dataset("small") == {"profiles": cache / NAME}
    (cache / NAME).write_bytes(b"something else")
    said = refusal()
    assert (
        SHA256 in said
        and hashlib.sha256(b"something else").hexdigest() in said
        and str(cache / NAME) in said
    )
    assert (cache / NAME).read_bytes() == b"something else"


def test_without_a_network_the_way_by_hand_is_told(register):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    cache = register(url)
    said = refusal()
    for told in (f"{url}/{NAME}", str(cache / NAME), SHA256, "200,000 bytes", "refused"):
        assert told in said
    assert left(cache) == []
    assert "No scheme supplied" in refusal("small", base_url="/mnt/mirror")


def test_a_mirror_is_asked_by_the_name_of_the_file(server, register, tmp_path):
    cache = register(url="http://127.0.0.1:9/files/0123/content?download=1")
    assert (
        fetch_dataset("small", base_url=server.url + "/lincs/", cache=tmp_path / "other")[
            "profiles"
        ].read_bytes()
        == CONTENT
    )
    assert server.asked == [(f"lincs/{NAME}", None)]
    assert (left(tmp_path / "other"), left(cache)) == ([NAME], [])


def test_a_folder_that_cannot_be_written(server, register, tmp_path, monkeypatch):
    cache = register(server.url)
    cache.write_text("a file, not a folder")
    said = refusal()
    assert str(cache) in said and "CPVAE_CACHE" in said
    cache.unlink()

    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(cache))

    monkeypatch.setattr("pathlib.Path.mkdir", denied)
    said = refusal()
    assert str(cache) in said and "Permission denied" in said and "CPVAE_CACHE" in said


def test_a_full_disk_is_seen_beforehand(server, register, monkeypatch):
    cache = register(server.url)
    usage = datasets.shutil.disk_usage(".")
    monkeypatch.setattr(datasets.shutil, "disk_usage", lambda path: usage._replace(free=129_999))
    said = refusal()
    assert NAME in said and "200,000 bytes" in said and "129,999" in said and left(cache) == []
    (cache / f"{NAME}.part").write_bytes(CONTENT[:70_000])
    assert "needs 130,000 bytes" in refusal()
    monkeypatch.setattr(datasets.shutil, "disk_usage", lambda path: usage._replace(free=130_000))
    assert fetch_dataset("small")["profiles"].read_bytes() == CONTENT


class Full(io.FileIO):
    "A file that takes 50,000 bytes and then no more."

    def write(self, block):
        if self.tell() + len(block) > 50_000:
            super().write(block[: 50_000 - self.tell()])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(block)


def test_a_disk_that_fills_up_on_the_way(server, register, monkeypatch):
    cache = register(server.url)
    monkeypatch.setattr(datasets, "open", lambda path, mode: Full(path, mode[0]), raising=False)
    said = refusal()
    assert NAME in said and "No space left" in said and "50,000 of 200,000 bytes" in said
    monkeypatch.delattr(datasets, "open")
    assert fetch_dataset("small")["profiles"].read_bytes() == CONTENT
    assert (ranges(server), left(cache)) == ([None, "bytes=50000-"], [NAME])


def test_two_processes_take_turns(server, register):
    cache = register(server.url)
    server.block, server.pause = 20_000, 0.03
    code = (
        "from cpvae.datasets import fetch_dataset; print(fetch_dataset('small',"
        " progress=True)['profiles'])"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    told = [run.communicate(timeout=120) for run in runs]
    assert [out for out, _ in told] == [f"{cache / NAME}\n"] * 2
    first, second = sorted((err for _, err in told), key=len, reverse=True)
    assert (
        re.fullmatch(rf"downloading {NAME} \(200,000 bytes\)\ndone in \d+ s\n", first)
        and second == ""
    ), "a line a stage where no terminal is; whoever waited has nothing to tell"
    assert (cache / NAME).read_bytes() == CONTENT
    assert (ranges(server), left(cache)) == ([None], [NAME])


def test_unpacking_takes_turns_too(server, register, tmp_path):
    gctx(tmp_path / "served" / "x.gctx.gz", (5, 3))
    cache = register(
        server.url,
        name="x.gctx.gz",
        url=f"{server.url}/x.gctx.gz",
        sha256=None,
        size=None,
        shape=(5, 3),
    )
    whole = fetch_dataset("small")["profiles"]
    whole.unlink()
    with ThreadPoolExecutor(1) as pool:
        with FileLock(f"{whole}.lock"):
            second = pool.submit(fetch_dataset, "small")
            with pytest.raises(TimeoutError):
                second.result(timeout=0.3)
        assert second.result(timeout=120) == {"profiles": whole} and whole.exists()
    assert left(cache) == ["recorded_hashes.json", "x.gctx", "x.gctx.gz"]


def test_a_bar_on_a_terminal(server, register):
    register(server.url)
    server.script = [{"cut": 70_000}]
    pty, termios = map(pytest.importorskip, ("pty", "termios"))  # not on Windows
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    code = "from cpvae.datasets import fetch_dataset; fetch_dataset('small', progress=True)"
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True, timeout=120)
    os.set_blocking(ours, False)
    shown = os.read(ours, 100_000).decode()
    assert NAME in shown and "70.0k/200k" in shown, "the bar goes on from what is there"
    for end in (ours, theirs):
        os.close(end)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_a_process_that_is_killed_leaves_what_it_has(server, register):
    cache = register(server.url)
    server.script = [{"cut": 100_000, "stall": 30}]
    # even where these tests run in the background
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    run = subprocess.Popen(
        [
            sys.executable,
            "-c",
            code + "from cpvae.datasets import fetch_dataset; fetch_dataset('small')",
        ]
    )
    part, until = cache / f"{NAME}.part", time.monotonic() + 120
    while not part.exists() and time.monotonic() < until:
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=120) != 0
    assert left(cache) == [part.name]
    have = part.stat().st_size
    assert fetch_dataset("small")["profiles"].read_bytes() == CONTENT
    assert ranges(server)[1] == (f"bytes={have}-" if have else None)


def test_an_unknown_name_and_its_neighbour(register):
    register()
    said = refusal("lincs_cp5")
    assert all(name in said for name in DATASETS) and "did you mean 'lincs-cp5'?" in said
    assert "did you mean" not in refusal("qqqq")


def test_a_registry_adds_and_replaces(register, monkeypatch, tmp_path):
    register()
    assert known_datasets()["small"].files["profiles"] == DataFile(
        NAME, f"http://127.0.0.1:9/{NAME}", "none", SHA256, len(CONTENT)
    )
    assert known_datasets()["lincs-cp5"] == DATASETS["lincs-cp5"]
    entry = json.loads((tmp_path / "registry.json").read_text())["small"]
    (tmp_path / "registry.json").write_text(json.dumps({"lincs-cp5": entry}))
    assert known_datasets()["lincs-cp5"].about == "a stand-in"
    monkeypatch.delenv("CPVAE_REGISTRY")
    assert known_datasets() == DATASETS


@pytest.mark.parametrize(
    "text, told",
    [
        ("{", "Expecting"),
        ("[]", "registry"),
        ('{"a": {"about": "x"}}', "files"),
        ('{"a": {"about": "x", "files": {"profiles": {"name": "x"}}}}', "url"),
        (
            (
                '{"a": {"about": "x", "files": {"profiles": {"name": "../x", "url": "", "licence":'
                ' ""}}}}'
            ),
            "plain file name",
        ),
        (
            '{"a": {"about": "x", "files": {"table": {"name": "x", "url": "", "licence": ""}}}}',
            "table",
        ),
        ('{"a": {"about": "x", "files": {}, "colour": 1}}', "colour"),
    ],
)
def test_a_registry_that_is_none(register, tmp_path, text, told):
    register()
    (tmp_path / "registry.json").write_text(text)
    with pytest.raises(CpvaeError, match=told) as caught:
        known_datasets()
    assert "registry.json" in str(caught.value)


def test_a_registry_that_is_missing(register, monkeypatch):
    register()
    monkeypatch.setenv("CPVAE_REGISTRY", "nowhere.json")
    assert "nowhere.json: No such file" in refusal()


def test_where_files_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("CPVAE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("CPVAE_CACHE")
    assert cache_folder().is_absolute() and cache_folder().name == "cpvae"


def gctx(path, shape):
    "A matrix where GCTX files have it, packed."
    with h5py.File(path.with_suffix(""), "w") as file:
        file["0/DATA/0/matrix"] = np.zeros(shape, "float32")
    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))


def test_a_packed_gctx_is_unpacked_and_measured(server, register, tmp_path):
    gctx(tmp_path / "served" / "x.gctx.gz", (5, 3))
    cache = register(name="x.gctx.gz", sha256=None, size=None, shape=(5, 3))
    got = fetch_dataset("small", base_url=server.url)["profiles"]
    assert got == cache / "x.gctx" and h5py.File(got)["0/DATA/0/matrix"].shape == (5, 3)
    assert left(cache) == ["recorded_hashes.json", "x.gctx", "x.gctx.gz"]
    assert fetch_dataset("small", base_url=server.url)["profiles"] == got and len(server.asked) == 1


@pytest.mark.parametrize(
    "broken, told",
    [
        ("shape", "5 x 3 values, expected 6 x 3"),
        ("cut", "cannot be unpacked"),
        ("text", "cannot be unpacked"),
    ],
)
def test_a_packed_gctx_that_is_another_or_broken(server, register, tmp_path, broken, told):
    path = tmp_path / "served" / "x.gctx.gz"
    gctx(path, (5, 3))
    if broken != "shape":
        path.write_bytes(path.read_bytes()[:-20] if broken == "cut" else gzip.compress(b"no HDF5"))
    cache = register(
        name="x.gctx.gz", sha256=None, size=None, shape=(6 if broken == "shape" else 5, 3)
    )
    assert told in refusal("small", base_url=server.url)
    assert left(cache) == ["x.gctx.gz"]


def test_importing_fetches_and_loads_nothing_heavy():
    code = (
        "import sys, cpvae.datasets; print([m for m in ('pooch', 'requests', 'h5py', 'anndata',"
        " 'filelock', 'tqdm', 'torch') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "[]"
    )


def told_by(profiles):
    "The notes that came with profiles, as one text."
    return "\n".join(profiles.uns["cpvae"]["notes"])


def stand_in(tmp_path, server, name, served, **changes):
    """Register files that the server has as those of a dataset of the paper, to be read in the same
    way.
    """
    entry = dataclasses.asdict(DATASETS[name]) | changes
    entry["files"] = {
        role: dict(name=file.name, url=f"{server.url}/{file.name}", licence="none")
        for role, file in served.items()
    }
    (tmp_path / "registry.json").write_text(json.dumps({name: entry}))
    return entry


@pytest.fixture
def annotations(server, register):
    "Mechanisms of made-up compounds, served as map.tsv."
    table = standins.made_up_map(32)
    table.to_csv(server.folder / "map.tsv", sep="\t", index=False)
    return table


def test_level_5_is_read_as_the_paper_did(server, annotations, tmp_path):
    path = server.folder / "level5.csv.gz"
    standins.lincs_level5(path, annotations=annotations, bad_map=True, spoiled=False)
    table = pd.read_csv(path)
    bad = table["Metadata_Plate_Map_Name"] == "C-7161-01-LM6-011"
    features = [name for name in table if not name.startswith("Metadata_")]
    table.loc[bad.idxmax(), features[0]] = np.nan  # only on the plate map that is left out
    table.loc[bad.idxmin(), features[1]] = np.nan
    table.to_csv(path, index=False)
    stand_in(
        tmp_path, server, "lincs-cp5", {"profiles": path, "moa_table": server.folder / "map.tsv"}
    )
    profiles = load_dataset("lincs-cp5", zero_control=False, control=None)
    assert profiles.n_obs == (~bad).sum() and bad.sum() > 0
    assert list(profiles.var_names) == [
        name for name in features if name != features[1] and not bookkeeping(name)
    ]
    assert (
        set(with_set_aside(profiles).var_names)
        == {features[0], *features[2:]}
        > set(profiles.var_names)
    )
    np.testing.assert_allclose(profiles.X, table.loc[~bad, profiles.var_names], rtol=1e-6)
    assert f"C-7161-01-LM6-011: {bad.sum()} rows" in told_by(
        profiles
    ) and "Mechanisms from map.tsv" in told_by(profiles)
    moa = dict(zip(annotations["broad_id"], annotations["moa"].map(mend_moa)))
    treated = profiles.obs[~profiles.obs["is_control"]]
    assert (treated["moa"] == treated["compound"].map(moa)).all() and treated["moa"].str.contains(
        "|", regex=False
    ).any()
    assert profiles.uns["cpvae"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(server.asked) == 2
    load_dataset("lincs-cp5")
    assert len(server.asked) == 2


def test_without_its_plate_maps_a_table_is_another(server, annotations, tmp_path):
    path = server.folder / "level5.csv.gz"
    standins.lincs_level5(path, annotations=annotations, spoiled=False)
    pd.read_csv(path).drop(columns="Metadata_Plate_Map_Name").to_csv(path, index=False)
    stand_in(
        tmp_path, server, "lincs-cp5", {"profiles": path, "moa_table": server.folder / "map.tsv"}
    )
    with pytest.raises(CpvaeError, match="level5.csv.gz: has no column Metadata_Plate_Map_Name"):
        load_dataset("lincs-cp5")


@pytest.fixture
def signatures(server, annotations):
    "GSE70138 in small, packed as GEO serves it: 150 signatures, 60 landmark genes of 300."
    truth = standins.gse70138(server.folder / "geo", annotations=annotations.iloc[:20])
    path = server.folder / "level5.gctx.gz"
    path.write_bytes(gzip.compress((server.folder / "geo" / "level5.gctx").read_bytes()))
    for name in ("sig_info.txt.gz", "gene_info.txt.gz"):
        (server.folder / "geo" / name).rename(server.folder / name)
    return truth, {
        "profiles": path,
        "profile_info": server.folder / "sig_info.txt.gz",
        "feature_info": server.folder / "gene_info.txt.gz",
        "moa_table": server.folder / "map.tsv",
    }


def test_signatures_are_read_as_the_paper_did(server, signatures, tmp_path):
    truth, served = signatures
    entry = stand_in(tmp_path, server, "lincs-l1000", served, n_features=60)
    entry["files"]["profiles"]["shape"] = [150, 300]
    (tmp_path / "registry.json").write_text(json.dumps({"lincs-l1000": entry}))
    profiles = load_dataset("lincs-l1000")
    assert profiles.shape == (150, 60)
    assert profiles.obs["is_control"].sum() == truth["control rows"] > 0
    assert ((profiles.obs["Metadata_pert_iname"] == "DMSO") == profiles.obs["is_control"]).all()
    assert (
        not profiles.uns["cpvae"]["zero_control"]
        and load_dataset("lincs-l1000", zero_control=True).uns["cpvae"]["zero_control"]
    )
    assert "Mechanisms from map.tsv" in told_by(profiles) and (profiles.obs["moa"] != "").sum() > 50
    assert load_dataset("lincs-l1000", all_genes=True).n_vars == 300
    with h5py.File(tmp_path / "cache" / "level5.gctx") as file:
        row = list(file["0/META/COL/id"].asstr()).index(profiles.obs["Metadata_id"].iloc[-1])
        raw = file["0/DATA/0/matrix"][row]
    assert np.isin(profiles.X[-1], raw).all()


def test_what_is_not_chosen_stays_the_dataset_s(server, signatures, tmp_path):
    (server.folder / "geo" / "level5.gctx").rename(server.folder / "level5.gctx")
    stand_in(
        tmp_path,
        server,
        "lincs-l1000",
        signatures[1] | {"profiles": server.folder / "level5.gctx"},
        n_features=None,
        options={"zero_control": True},
    )
    assert load_dataset("lincs-l1000", zero_control=False, moa_table=None).uns["cpvae"][
        "zero_control"
    ]


def test_other_landmarks_are_refused(server, signatures, tmp_path):
    whole = (server.folder / "geo" / "level5.gctx").rename(server.folder / "level5.gctx")
    stand_in(tmp_path, server, "lincs-l1000", signatures[1] | {"profiles": whole})
    with pytest.raises(CpvaeError, match="60 features read for lincs-l1000, expected 978"):
        load_dataset("lincs-l1000")


def test_a_map_is_no_table_of_profiles(register):
    register()
    with pytest.raises(CpvaeError, match="moa-map: holds no profiles"):
        load_dataset("moa-map")
