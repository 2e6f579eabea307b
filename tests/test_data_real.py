"""The real CIFAR-100 and MNIST against independent readings: pandas, torchvision, Avalanche's own split.

Needs ACN_CL_DATA to lead to them (CIFAR-100 as Hugging Face parquet, MNIST as torchvision's gzipped idx files).
"""

import gzip
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image

from acn_cl.benchmarks.datasets import cache
from acn_cl.benchmarks.datasets.inspect import duplicates, verify
from acn_cl.benchmarks.datasets.load import dataset_info, load_dataset
from acn_cl.benchmarks.datasets.parquet import ParquetSource
from acn_cl.benchmarks.datasets.search import find_source
from acn_cl.benchmarks.streams.build import build_stream
from acn_cl.benchmarks.streams.stream import Stream
from acn_cl.seeding import Seeds

Reading = dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]]


def require(name: str) -> Path:
    source = find_source(dataset_info(name)) if os.environ.get("ACN_CL_DATA") else None
    if source is None:
        pytest.skip(f"{name} is not in ACN_CL_DATA")
    return source.folder


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decode once for all the tests here, into a cache of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACN_CL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def cifar100(one_cache: None) -> float:
    """CIFAR-100 is decoded; the CPU seconds that it took (wall-clock seconds on a machine with nothing else to do)."""
    require("cifar100")
    start = time.process_time()
    load_dataset("cifar100")
    return time.process_time() - start


@pytest.fixture(scope="module")
def by_pandas() -> Reading:
    """Images ``(N, H, W, C)``, fine and coarse labels, in the order of the shards; nothing of the suite is used."""
    folder = require("cifar100")
    if not isinstance(find_source(dataset_info("cifar100")), ParquetSource):
        pytest.skip("CIFAR-100 is here, but not as parquet")
    reading = {}
    for part in ("train", "test"):
        rows = pd.concat([pd.read_parquet(file) for file in sorted(folder.rglob(f"{part}-*.parquet"))])
        images = np.stack([np.asarray(Image.open(io.BytesIO(cell["bytes"]))) for cell in rows["img"]])
        reading[part] = images, rows["fine_label"].to_numpy(), rows["coarse_label"].to_numpy()
    return reading


@pytest.fixture(scope="module")
def split20(cifar100: float) -> Stream:
    return build_stream("split-cifar100", seeds=Seeds(0))


def test_first_use_and_opening_are_quick(cifar100: float) -> None:
    assert cifar100 < 15
    seconds = []
    for _ in range(3):
        cache._open_arrays.cache_clear()
        start = time.perf_counter()
        load_dataset("cifar100")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5


def test_the_data_set_is_what_pandas_reads(cifar100: float, by_pandas: Reading) -> None:
    dataset = load_dataset("cifar100")
    for part, (images, fine, _) in by_pandas.items():
        found = dataset.train if part == "train" else dataset.test
        np.testing.assert_array_equal(found.labels, fine)
        np.testing.assert_array_equal(found.images[:], images.transpose(0, 3, 1, 2))


def test_split_cifar100_is_twenty_disjoint_tasks_of_five(split20: Stream, by_pandas: Reading) -> None:
    assert len(split20) == 20
    assert sorted(original for e in split20.experiences for original in e.classes) == list(range(100))
    for experience in split20.experiences:
        for part, size in ((experience.train, 2500), (experience.test, 500)):
            images, fine, _ = by_pandas[part.split]
            rows = np.flatnonzero(pd.Series(fine).isin(experience.classes))
            assert len(rows) == size
            np.testing.assert_array_equal(part.load(), images[rows].transpose(0, 3, 1, 2))
            np.testing.assert_array_equal(part.original_labels, fine[rows])
            assert part.labels.tolist() == [experience.classes.index(label) for label in fine[rows]]


def test_every_seed_has_its_class_order(split20: Stream) -> None:
    assert build_stream("split-cifar100", seeds=Seeds(0)).class_order == split20.class_order
    assert len({build_stream("split-cifar100", seeds=Seeds(seed)).class_order for seed in range(10)}) == 10


@pytest.mark.parametrize(
    ("labels", "flags"),
    [
        ("per-experience", {"class_ids_from_zero_in_each_exp": True}),
        ("seen-order", {"class_ids_from_zero_from_first_exp": True}),
        ("global", {}),
    ],
)
@pytest.mark.parametrize(("experiences", "first"), [(20, None), (6, 50)])
def test_equal_to_avalanches_nc_benchmark(
    labels: Any, flags: dict[str, bool], experiences: int, first: int | None, cifar100: float, by_pandas: Reading
) -> None:
    """What SplitCIFAR100 calls, on the same arrays and class order, experience by experience."""
    import torch
    from avalanche.benchmarks import nc_benchmark
    from torch.utils.data import TensorDataset

    stream = build_stream("split-cifar100", seeds=Seeds(1), labels=labels, experiences=experiences, first=first)
    sets = []
    for images, fine, _ in by_pandas.values():
        data = TensorDataset(torch.from_numpy(images), torch.from_numpy(fine.copy()))
        data.targets = fine.tolist()  # type: ignore[attr-defined]
        sets.append(data)
    theirs = nc_benchmark(
        *sets,
        n_experiences=experiences,
        task_labels=True,
        fixed_class_order=list(stream.class_order),
        per_exp_classes={0: first} if first else None,
        **flags,
    )
    ours = stream.benchmark()
    rng = np.random.default_rng(0)
    for experience in stream.experiences:
        for kind, assignment in (
            ("train", theirs.train_exps_patterns_assignment),
            ("test", theirs.test_exps_patterns_assignment),
        ):
            part = experience.train if kind == "train" else experience.test
            reference, own = (getattr(b, f"{kind}_stream")[experience.index] for b in (theirs, ours))
            rows = np.argsort(assignment[experience.index])
            np.testing.assert_array_equal(np.sort(assignment[experience.index]), part.indices)
            np.testing.assert_array_equal(np.array(list(reference.dataset.targets))[rows], part.labels)
            assert set(own.classes_in_this_experience) == set(reference.classes_in_this_experience)
            assert own.task_label == reference.task_label == experience.index
            for place in rng.choice(len(part), 5, replace=False):
                image, label, task = reference.dataset[int(rows[place])]
                np.testing.assert_array_equal(part.images[place], image.numpy().transpose(2, 0, 1))
                assert (label, task) == (part.labels[place], experience.index)


def test_coarse_labels_are_the_files_own(by_pandas: Reading, cifar100: float) -> None:
    stream = build_stream("split-cifar100-coarse", seeds=Seeds(2))
    for experience in stream.experiences:
        for part in (experience.train, experience.test):
            np.testing.assert_array_equal(part.labels, by_pandas[part.split][2][part.indices])


def test_ten_images_stand_in_both_parts(by_pandas: Reading, cifar100: float) -> None:
    pairs = duplicates(load_dataset("cifar100"))
    trained = {image.tobytes(): row for row, image in reversed(list(enumerate(by_pandas["train"][0])))}
    expected = [
        (trained[image.tobytes()], row) for row, image in enumerate(by_pandas["test"][0]) if image.tobytes() in trained
    ]
    assert len(pairs) == 10
    assert pairs == expected
    (note,) = [finding for finding in verify("cifar100") if finding.level != "ok"]
    assert note.text.startswith("10 images stand in both parts (train row=test row): ")
    assert all(f"{train}={test}" in note.text for train, test in expected)


def test_mnist_is_what_torchvision_reads(tmp_path: Path) -> None:
    from torchvision.datasets import MNIST

    folder = require("mnist")
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for file in folder.glob("*.gz"):
        (tmp_path / "MNIST" / "raw" / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    ours = load_dataset("mnist")
    for part in (ours.train, ours.test):
        reference = MNIST(tmp_path, train=part is ours.train)
        np.testing.assert_array_equal(part.images[:][:, 0], reference.data.numpy())
        np.testing.assert_array_equal(part.labels, reference.targets.numpy())
    assert {finding.level for finding in verify("mnist")} == {"ok"}


def test_permuted_mnist_keeps_every_image(one_cache: None) -> None:
    require("mnist")
    stream = build_stream("permuted-mnist", seeds=Seeds(0), experiences=2)
    source = load_dataset("mnist")
    for experience in stream.experiences:
        assert len(experience.train) == 60_000
        np.testing.assert_array_equal(experience.test.labels, source.test.labels)
        images = experience.test.load()
        np.testing.assert_array_equal(images.sum(axis=(1, 2, 3)), source.test.images[:].sum(axis=(1, 2, 3)))
