"""The decoded cache: whole or not there, whatever happens to it, to its source or to the process that writes it."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from acn_cl.benchmarks.datasets import cache
from acn_cl.benchmarks.datasets.load import load_dataset
from acn_cl.benchmarks.datasets.search import require_source
from acn_cl.benchmarks.datasets.table import DATASETS, DatasetInfo
from acn_cl.errors import UserError

INFO = replace(DATASETS["cifar10"], train_size=400, test_size=100)  # 1.5 MB decoded


def png(seed: int) -> bytes:
    import io

    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_source(folder: Path, first_seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, size in (("train", 400), ("test", 100)):
        images = [{"bytes": png(first_seed + row), "path": ""} for row in range(size)]
        pq.write_table(pa.table({"img": images, "label": np.arange(size) % 10}), folder / f"{part}.parquet")


@pytest.fixture(scope="module")
def source_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    write_source(data / "cifar10")
    return data


@pytest.fixture(autouse=True)
def folder(source_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("ACN_CL_DATA", str(source_folder))
    monkeypatch.setenv("ACN_CL_CACHE", str(tmp_path / "cache"))
    cache._open_arrays.cache_clear()
    return tmp_path / "cache"


def entry() -> Path:
    return cache.entry_folder(require_source(INFO))


def check_contents(info: DatasetInfo = INFO, first_seed: int = 0) -> None:
    """The data set, read through the cache, is what was encoded."""
    dataset = load_dataset(info)
    for row in (0, 57, 399):
        expected = np.random.default_rng(first_seed + row).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        np.testing.assert_array_equal(dataset.train.images[row], expected.transpose(2, 0, 1))
    assert dataset.train.labels.tolist() == [row % 10 for row in range(400)]
    assert dataset.test.images.shape == (100, 3, 32, 32)


def left_behind(folder: Path) -> list[str]:
    """What is in the cache folder beside the lock."""
    return sorted(file.name for file in folder.iterdir() if file.suffix != ".lock") if folder.exists() else []


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_first_use_decodes_and_later_uses_map(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_contents()
    assert left_behind(folder) == [entry().name]
    stamp = (entry() / "train-images.npy").stat().st_mtime_ns
    cache._open_arrays.cache_clear()
    dataset = load_dataset(INFO)
    assert isinstance(dataset.train.images, np.memmap)
    assert not dataset.train.images.flags.writeable
    assert (entry() / "train-images.npy").stat().st_mtime_ns == stamp
    assert not caplog.records


def test_the_manifest_holds_sha256_of_everything(source_folder: Path) -> None:
    import hashlib

    load_dataset(INFO)
    manifest = json.loads((entry() / "manifest.json").read_text())
    for name, digest in manifest["arrays"].items():
        assert hashlib.sha256((entry() / name).read_bytes()).hexdigest() == digest
    for name, digest in manifest["source"].items():
        assert hashlib.sha256((source_folder / "cifar10" / name).read_bytes()).hexdigest() == digest
    assert set(manifest["arrays"]) == {"train-images.npy", "train-labels.npy", "test-images.npy", "test-labels.npy"}
    assert set(manifest["source"]) == {"train.parquet", "test.parquet"}


def test_the_data_sets_checksum_is_what_the_shell_gives(folder: Path) -> None:
    """The same from a cache that is just made and from one that is opened again."""
    first, again = load_dataset(INFO).checksum, load_dataset(INFO).checksum
    shell = subprocess.run(["sh", "-c", "sha256sum *.npy | sha256sum"], cwd=entry(), capture_output=True, check=True)
    assert first == again == shell.stdout.decode().split()[0]


def flip_a_byte(entry: Path) -> None:
    with (entry / "train-images.npy").open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)[0]
        file.seek(1000)
        file.write(bytes([byte ^ 1]))


def cut_short(entry: Path) -> None:
    os.truncate(entry / "test-images.npy", 5000)


def lose_an_array(entry: Path) -> None:
    (entry / "train-labels.npy").unlink()


def lose_the_manifest(entry: Path) -> None:
    (entry / "manifest.json").unlink()


def garble_the_manifest(entry: Path) -> None:
    (entry / "manifest.json").write_text('{"schema": 1, "arr')


def change_the_schema(entry: Path) -> None:
    (entry / "manifest.json").write_text('{"schema": 2}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_byte, "the checksum of train-images.npy does not match"),
        (cut_short, "the checksum of test-images.npy does not match"),
        (lose_an_array, "is incomplete"),
        (lose_the_manifest, "is incomplete"),
        (garble_the_manifest, "manifest.json is not readable"),
        (change_the_schema, "manifest.json does not follow schema 1"),
    ],
)
def test_damage_is_named_and_mended(
    damage: Callable[[Path], None], message: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_dataset(INFO)
    damage(entry())
    cache._open_arrays.cache_clear()
    check_contents()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert message in caplog.text
    assert str(entry()) in caplog.text
    assert left_behind(folder) == [entry().name]


def test_damage_by_another_process_is_seen_though_the_file_is_open() -> None:
    load_dataset(INFO)
    time.sleep(0.01)
    flip_a_byte(entry())
    check_contents()


def test_a_changed_source_is_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ACN_CL_DATA", str(tmp_path / "own"))
    write_source(tmp_path / "own" / "cifar10")
    check_contents()
    write_source(tmp_path / "own" / "cifar10", first_seed=1000)
    check_contents(first_seed=1000)
    assert "has been changed since it was decoded" in caplog.text


def test_a_source_that_fails_half_way_leaves_nothing(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACN_CL_DATA", str(tmp_path / "own"))
    write_source(tmp_path / "own" / "cifar10")
    images = [{"bytes": png(row), "path": ""} for row in range(99)] + [{"bytes": b"no image", "path": ""}]
    table = pa.table({"img": images, "label": np.arange(100) % 10})
    pq.write_table(table, tmp_path / "own" / "cifar10" / "test.parquet")
    with pytest.raises(UserError, match=r"test.parquet, row 99: not a readable image"):
        load_dataset(INFO)
    assert left_behind(folder) == []


def test_what_a_killed_process_left_is_cleared_away(folder: Path) -> None:
    half = folder / f".{entry().name}.4711"
    half.mkdir(parents=True)
    (half / "train-images.npy").write_bytes(b"half")
    check_contents()
    assert left_behind(folder) == [entry().name]


def test_a_process_killed_while_it_decodes_leaves_no_entry(folder: Path, source_folder: Path) -> None:
    code = (
        "import os, signal\n"
        "from tests_info import INFO\n"
        "from acn_cl.benchmarks.datasets import cache\n"
        "from acn_cl.benchmarks.datasets.search import require_source\n"
        "def die(part, chunks):\n"
        "    if part == 'test': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    yield from chunks\n"
        "cache.open_or_decode(require_source(INFO), die)\n"
    )
    process = run_python(code, folder.parent)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert left_behind(folder) != []
    check_contents()
    assert left_behind(folder) == [entry().name]


def run_python(code: str, folder: Path) -> subprocess.Popen[str]:
    """Start ``code`` in a process of its own; ``tests_info`` gives it INFO."""
    (folder / "tests_info.py").write_text(
        "from dataclasses import replace\n"
        "from acn_cl.benchmarks.datasets.table import DATASETS\n"
        "INFO = replace(DATASETS['cifar10'], train_size=400, test_size=100)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_that_start_together_decode_once(folder: Path) -> None:
    code = (
        "import hashlib, time\n"
        "from tests_info import INFO\n"
        "from acn_cl.benchmarks.datasets import cache\n"
        "from acn_cl.benchmarks.datasets.search import require_source\n"
        "decoded = []\n"
        "def watch(part, chunks):\n"
        "    decoded.append(part)\n"
        "    time.sleep(0.5)\n"
        "    yield from chunks\n"
        "dataset = cache.open_or_decode(require_source(INFO), watch)\n"
        "print(len(decoded), hashlib.sha256(dataset.train.images.tobytes()).hexdigest())\n"
    )
    processes = [run_python(code, folder.parent) for _ in range(2)]
    results = []
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        results.append(out.split())
    assert sorted(int(count) for count, _ in results) == [0, 2]
    assert results[0][1] == results[1][1]
    assert left_behind(folder) == [entry().name]
    check_contents()


@contextmanager
def not_root() -> Iterator[None]:
    """File permissions bind everybody but root: become nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_to_all(tmp_path: Path, source_folder: Path) -> None:
    """Let somebody who is not root reach the folders of this test."""
    for path in (tmp_path, source_folder):
        for parent in (path, *path.parents):
            if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o055)


@pytest.mark.usefixtures("open_to_all")
def test_a_cache_folder_that_cannot_be_written(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o555)
    with not_root(), pytest.raises(UserError, match="Permission denied; set ACN_CL_CACHE") as error:
        load_dataset(INFO)
    assert str(entry()) in one_line(error)
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("open_to_all")
def test_a_whole_cache_is_used_though_it_cannot_be_written(folder: Path) -> None:
    load_dataset(INFO)
    cache._open_arrays.cache_clear()
    for path in (entry(), folder):
        path.chmod(0o555)
    (folder / f"{entry().name}.lock").unlink()
    with not_root():
        check_contents()
    for path in (folder, entry()):
        path.chmod(0o755)


def test_a_cache_folder_that_is_a_file(folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(UserError, match="cannot use the decoded cache") as error:
        load_dataset(INFO)
    one_line(error)


def test_a_full_disk_injected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache, "_flush", full)
    with pytest.raises(UserError, match="No space left on device; set ACN_CL_CACHE to a folder with room") as error:
        load_dataset(INFO)
    one_line(error)
    assert left_behind(folder) == []


def test_a_full_disk_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a 1 MB tmpfs cannot be mounted here")
    try:
        monkeypatch.setenv("ACN_CL_CACHE", str(mount / "cache"))
        with pytest.raises(UserError, match="No space left on device") as error:
            load_dataset(INFO)
        one_line(error)
        assert left_behind(mount / "cache") == []
    finally:
        subprocess.run(["umount", str(mount)], check=True)
