"""Data sets: the table, every layout against independent readings, and one clear line for every fault of a source.

The sets here are tiny and made up, in the layouts of the real ones; tests/test_data_real.py reads the real ones.
"""

import gzip
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from acn_cl.benchmarks.datasets import classes, idx, pickles
from acn_cl.benchmarks.datasets.arrays import PARTS, Labels, Pixels
from acn_cl.benchmarks.datasets.encoded import decode
from acn_cl.benchmarks.datasets.inspect import list_datasets, path, verify
from acn_cl.benchmarks.datasets.load import load_dataset
from acn_cl.benchmarks.datasets.own import own_folder
from acn_cl.benchmarks.datasets.search import require_source
from acn_cl.benchmarks.datasets.table import DATASETS, DatasetInfo
from acn_cl.errors import UserError
from acn_cl.tables import resolve

Arrays = dict[str, tuple[Pixels, Labels]]
SIZES = {"train": 12, "test": 7}


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder and an empty cache; returns the data folder."""
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setenv("ACN_CL_DATA", str(data))
    monkeypatch.setenv("ACN_CL_CACHE", str(tmp_path / "cache"))
    return data


def tiny(name: str, classes: int = 3) -> DatasetInfo:
    """The table's line, but small."""
    return replace(DATASETS[name], classes=classes, train_size=SIZES["train"], test_size=SIZES["test"])


def arrays(info: DatasetInfo) -> Arrays:
    """Random images and labels of both parts; every class occurs in both."""
    rng = np.random.default_rng(7)
    return {
        part: (
            rng.integers(0, 256, (n, *info.image_shape), dtype=np.uint8),
            np.arange(n, dtype=np.int64)[::-1] % info.classes,
        )
        for part, n in SIZES.items()
    }


def encoded(image: Pixels, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    picture.save(file, form, lossless=True)
    return file.getvalue()


def write_parquet(
    folder: Path, data: Arrays, form: str = "PNG", shards: int = 1, columns: tuple[str, str] = ("img", "label")
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, (images, labels) in data.items():
        for shard, rows in enumerate(np.array_split(np.arange(len(labels)), shards)):
            table = pa.table(
                {
                    columns[0]: [{"bytes": encoded(images[row], form), "path": f"{row}.png"} for row in rows],
                    columns[1]: labels[rows],
                }
            )
            pq.write_table(table, folder / f"{part}-{shard:05d}-of-{shards:05d}.parquet", row_group_size=2)


def write_idx(folder: Path, data: Arrays, gz: bool, monkeypatch: pytest.MonkeyPatch, name: str = "mnist") -> None:
    folder.mkdir(parents=True)
    md5 = {}
    for part, stem in (("train", "train"), ("test", "t10k")):
        images, labels = data[part]
        for file, array in ((f"{stem}-images-idx3-ubyte", images[:, 0]), (f"{stem}-labels-idx1-ubyte", labels)):
            header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
            content = header + array.astype(np.uint8).tobytes()
            if gz:
                file, content = f"{file}.gz", gzip.compress(content)
                md5[file] = hashlib.md5(content).hexdigest()
            (folder / file).write_bytes(content)
    monkeypatch.setitem(idx.MD5, name, md5)


def write_pickles(folder: Path, data: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10's five batches and its test batch."""
    folder.mkdir(parents=True)
    batches = {f"data_batch_{n + 1}": ("train", rows) for n, rows in enumerate(np.array_split(np.arange(12), 5))}
    batches["test_batch"] = ("test", np.arange(7))
    for file, (part, rows) in batches.items():
        images, labels = data[part]
        batch = {"data": images[rows].reshape(len(rows), -1), "labels": labels[rows].tolist()}
        (folder / file).write_bytes(pickle.dumps(batch))
    md5 = {file: hashlib.md5((folder / file).read_bytes()).hexdigest() for file in batches}
    monkeypatch.setitem(pickles.MD5, "cifar10", md5)


def write_folders(folder: Path, data: Arrays, test: str = "val", form: str = "PNG") -> None:
    for part, (images, labels) in data.items():
        for row, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = folder / (test if part == "test" else "train") / f"class-{label}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{row:03d}.{form.lower()}").write_bytes(encoded(image, form))


def write_tiny_imagenet(folder: Path, data: Arrays) -> None:
    """Tiny ImageNet's own layout."""
    images, labels = data["train"]
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / "train" / f"n{label:08d}" / "images"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"n{label:08d}_{row}.JPEG").write_bytes(encoded(image))
    (folder / "val" / "images").mkdir(parents=True)
    images, labels = data["test"]
    lines = []
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / "val" / "images" / f"val_{row}.JPEG").write_bytes(encoded(image))
        lines.append(f"val_{row}.JPEG\tn{label:08d}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))


def same(found: Arrays, expected: Arrays) -> None:
    """Equal images and labels, whatever their order."""
    for part in PARTS:
        rows = [
            sorted((int(label), image.tobytes()) for image, label in zip(*side[part], strict=True))
            for side in (found, expected)
        ]
        assert rows[0] == rows[1]


def loaded(info: DatasetInfo) -> Arrays:
    dataset = load_dataset(info)
    return {part: (np.asarray(dataset.part(part).images[:]), dataset.part(part).labels) for part in PARTS}


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# The table


@pytest.mark.parametrize("info", DATASETS.values(), ids=DATASETS.keys())
def test_every_line_is_complete(info: DatasetInfo) -> None:
    assert len(info.mean) == len(info.std) == info.channels
    assert all((info.about, info.licence, info.citation, info.url))
    assert len(info.class_names) in (0, info.classes)
    assert callable(resolve(info.loader))


def test_the_table_imports_no_torch() -> None:
    code = "import sys, acn_cl.benchmarks.datasets.table; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_coarse_labels_are_consistent() -> None:
    assert classes.CIFAR100[0] == "apple"
    assert classes.CIFAR100[99] == "worm"
    assert np.bincount(classes.CIFAR100_COARSE).tolist() == [5] * 20


def test_checksums_are_torchvisions() -> None:
    from torchvision import datasets

    for name, reference in (("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)):
        assert dict(reference.train_list + reference.test_list) == pickles.MD5[name]
        assert reference.base_folder == pickles.FOLDERS[name]
    assert dict(datasets.MNIST.resources) == idx.MD5["mnist"]
    assert dict(datasets.FashionMNIST.resources) == idx.MD5["fashion-mnist"]


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown data set 'cifar-100'; did you mean 'cifar100'\?"):
        load_dataset("cifar-100")


# Digits


def test_digits_are_scikit_learns_and_every_fifth_of_a_class_is_a_test_image() -> None:
    from sklearn.datasets import load_digits

    reference = load_digits()
    pixels = (reference.images * 255 / 16).round().astype(np.uint8)[:, None]
    digits = load_dataset("digits")
    assert (len(digits.train), len(digits.test)) == (1442, 355)
    for label in range(10):
        of_class = pixels[reference.target == label]
        test, train = digits.test, digits.train
        np.testing.assert_array_equal(test.images[test.labels == label], of_class[4::5])
        np.testing.assert_array_equal(train.images[train.labels == label], np.delete(of_class, np.s_[4::5], axis=0))


def test_digits_have_the_checksum_of_their_arrays_as_files(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    for part in PARTS:
        np.save(tmp_path / f"{part}-images.npy", digits.part(part).images)
        np.save(tmp_path / f"{part}-labels.npy", digits.part(part).labels)
    shell = subprocess.run(["sh", "-c", "sha256sum *.npy | sha256sum"], cwd=tmp_path, capture_output=True, check=True)
    assert digits.checksum == shell.stdout.decode().split()[0]


def test_digits_mean_and_deviation() -> None:
    pixels = load_dataset("digits").train.images / 255
    assert DATASETS["digits"].mean == (pytest.approx(pixels.mean(), abs=5e-5),)
    assert DATASETS["digits"].std == (pytest.approx(pixels.std(), abs=5e-5),)


# Layouts


@pytest.mark.parametrize("form", ["PNG", "WebP"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("inner", ["", "data", "plain_text"])
def test_parquet(folders: Path, form: str, shards: int, inner: str) -> None:
    info = tiny("cifar10")
    data = arrays(info)
    write_parquet(folders / "cifar10" / inner, data, form, shards)
    found = loaded(info)
    for part in PARTS:
        np.testing.assert_array_equal(found[part][0], data[part][0])
        np.testing.assert_array_equal(found[part][1], data[part][1])
    assert load_dataset(info).layout == "parquet"


def test_parquet_of_jpeg_bytes_is_what_pillow_decodes(folders: Path) -> None:
    info = tiny("cifar10")
    data = arrays(info)
    write_parquet(folders / "cifar10", data, "JPEG")
    expected = {
        part: (
            np.stack(
                [np.asarray(Image.open(io.BytesIO(encoded(image, "JPEG")))).transpose(2, 0, 1) for image in images]
            ),
            labels,
        )
        for part, (images, labels) in data.items()
    }
    same(loaded(info), expected)


def test_parquet_in_a_hub_cache_may_link_within_it(folders: Path) -> None:
    """The hub's cache keeps files in ``blobs/`` and links to them from ``snapshots/``."""
    info = tiny("mnist")
    data = arrays(info)
    hub = folders / "datasets--ylecun--mnist"
    write_parquet(hub / "blobs", data, columns=("image", "label"))
    snapshot = hub / "snapshots" / "0123abc" / "mnist"
    snapshot.mkdir(parents=True)
    for file in (hub / "blobs").iterdir():
        (snapshot / file.name).symlink_to(file)
    same(loaded(info), data)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("inner", ["MNIST/raw", "mnist", "mnist/MNIST/raw"])
def test_idx(folders: Path, monkeypatch: pytest.MonkeyPatch, gz: bool, inner: str) -> None:
    info = tiny("mnist")
    data = arrays(info)
    write_idx(folders / inner, data, gz, monkeypatch)
    same(loaded(info), data)
    assert load_dataset(info).layout == "idx"


@pytest.mark.parametrize("inner", ["", "cifar10"])
def test_pickles_are_read_as_torchvision_reads_them(folders: Path, monkeypatch: pytest.MonkeyPatch, inner: str) -> None:
    from torchvision.datasets import CIFAR10

    info = tiny("cifar10")
    folder = folders / inner / "cifar-10-batches-py"
    write_pickles(folder, arrays(info), monkeypatch)
    md5 = pickles.MD5["cifar10"]
    monkeypatch.setattr(CIFAR10, "train_list", [[file, md5[file]] for file, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    meta = pickle.dumps({"label_names": ["a", "b", "c"]})
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": hashlib.md5(meta).hexdigest()})
    found = loaded(info)
    for part in PARTS:
        reference = CIFAR10(folders / inner, train=part == "train")
        np.testing.assert_array_equal(found[part][0], reference.data.transpose(0, 3, 1, 2))
        assert found[part][1].tolist() == reference.targets


def test_image_folders_are_read_as_torchvision_reads_them(folders: Path) -> None:
    from torchvision.datasets import ImageFolder

    info = replace(tiny("cifar10"), test_parts=("val",))
    write_folders(folders / "cifar10", arrays(info))
    found = loaded(info)
    for part, name in (("train", "train"), ("test", "val")):
        reference = ImageFolder(folders / "cifar10" / name)
        assert found[part][1].tolist() == reference.targets
        for image, (picture, _) in zip(found[part][0], reference, strict=True):
            np.testing.assert_array_equal(image, np.asarray(picture).transpose(2, 0, 1))


def test_tiny_imagenets_own_layout(folders: Path) -> None:
    info = tiny("tiny-imagenet")
    data = arrays(info)
    write_tiny_imagenet(folders / "tiny-imagenet-200", data)
    same(loaded(info), data)
    assert load_dataset(info).layout == "image folder"


def test_grey_images_of_a_colour_set_become_colour(folders: Path) -> None:
    """Tiny ImageNet and ImageNet hold some grey JPEGs."""
    grey = np.arange(64 * 64, dtype=np.uint8).reshape(1, 64, 64)
    image = decode(encoded(grey), "here", DATASETS["tiny-imagenet"])
    np.testing.assert_array_equal(image, np.repeat(grey, 3, axis=0))


def test_an_earlier_data_folder_wins(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tiny("cifar10")
    write_parquet(folders / "cifar10", arrays(info))
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("ACN_CL_DATA", os.pathsep.join([str(tmp_path / "absent"), str(empty), str(folders)]))
    assert load_dataset(info).folder == folders / "cifar10"


# Images of any size


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (300, 300), (256, 1000), (227, 333)])
def test_imagenet_images_are_fitted_as_torchvision_fits_them(size: tuple[int, int]) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize

    from acn_cl.benchmarks.datasets.fit import fit_imagenet

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    expected = Compose([Resize(256), CenterCrop(224)])(picture)
    np.testing.assert_array_equal(np.asarray(fit_imagenet(picture, (224, 224))), np.asarray(expected))


@pytest.mark.parametrize("layout", ["folder", "parquet"])
def test_imagenet_is_decoded_when_it_is_read(folders: Path, tmp_path: Path, layout: str) -> None:
    info = tiny("imagenet")
    rng = np.random.default_rng(1)
    data = {
        part: (rng.integers(0, 256, (n, 3, 240, 250), dtype=np.uint8), np.arange(n) % 3) for part, n in SIZES.items()
    }
    if layout == "folder":
        write_folders(folders / "imagenet", data, test="val")
    else:
        data["validation"] = data.pop("test")
        write_parquet(folders / "imagenet" / "data", data, shards=2, columns=("image", "label"))
    dataset = load_dataset(info)
    assert dataset.train.images.shape == (12, 3, 224, 224)
    rows = np.array([5, 0, 5])
    images = dataset.train.images[rows]
    assert images.shape == (3, 3, 224, 224)
    np.testing.assert_array_equal(images[0], images[2])
    np.testing.assert_array_equal(images[1], dataset.train.images[:1][0])
    assert not (tmp_path / "cache").exists()
    assert dataset.checksum is None, "it would take hours"


@pytest.mark.parametrize("size", [16, 80])
def test_somebodys_own_folder(folders: Path, size: int) -> None:
    rng = np.random.default_rng(2)
    data = {
        part: (rng.integers(0, 256, (n, 3, 90, 100), dtype=np.uint8), np.arange(n) % 2) for part, n in SIZES.items()
    }
    write_folders(folders / "flowers", data, test="test")
    info = own_folder("flowers", size)
    dataset = load_dataset(info)
    assert info.class_names == ("class-0", "class-1")
    assert dataset.train.images[np.array([3])].shape == (1, 3, size, size)
    assert len(dataset.test) == 7


# Faults


def test_not_found_says_where_and_how(folders: Path) -> None:
    with pytest.raises(UserError) as error:
        load_dataset("cifar100")
    text = one_line(error)
    for part in (str(folders), "cifar100/", "Hugging Face parquet", "download: true", "ACN_CL_DATA"):
        assert part in text


def test_a_truncated_parquet_file(folders: Path) -> None:
    info = tiny("cifar10")
    write_parquet(folders / "cifar10", arrays(info))
    file = folders / "cifar10" / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="is damaged or not a whole parquet file") as error:
        load_dataset(info)
    assert str(file) in one_line(error)


def test_an_image_of_the_wrong_size(folders: Path) -> None:
    info = tiny("cifar10")
    data = arrays(info)
    write_parquet(folders / "cifar10", {part: (images[..., :31], labels) for part, (images, labels) in data.items()})
    with pytest.raises(UserError, match=r"row 0: the image is 31x32 pixels, cifar10 has 32x32") as error:
        load_dataset(info)
    one_line(error)


def test_a_damaged_image_is_named_by_its_row_in_its_shard(folders: Path) -> None:
    info = tiny("cifar10")
    write_parquet(folders / "cifar10", arrays(info), shards=3)
    file = folders / "cifar10" / "train-00001-of-00003.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[3]["img"]["bytes"] = b"no image"
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=2)
    with pytest.raises(UserError, match=r"train-00001-of-00003.parquet, row 3: not a readable image"):
        load_dataset(info)


def test_labels_that_are_words(folders: Path) -> None:
    info = tiny("cifar10")
    write_parquet(folders / "cifar10", arrays(info))
    file = folders / "cifar10" / "test-00000-of-00001.parquet"
    table = pq.read_table(file)
    pq.write_table(table.set_column(1, "label", pa.array(["cat"] * 7)), file)
    with pytest.raises(UserError, match=r"column label holds string, class ids are integers"):
        load_dataset(info)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range(folders: Path, label: int) -> None:
    info = tiny("cifar10")
    data = arrays(info)
    data["test"][1][4] = label
    write_parquet(folders / "cifar10", data)
    with pytest.raises(UserError, match=rf"test-.*row 4: label {label} is out of range, cifar10 has 0..2") as error:
        load_dataset(info)
    one_line(error)


def test_bytes_that_are_no_image(folders: Path) -> None:
    info = tiny("cifar10")
    write_folders(folders / "cifar10", arrays(info), test="test")
    (folders / "cifar10" / "train" / "class-1" / "001.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"class-1/001.png: not a readable image") as error:
        load_dataset(info)
    one_line(error)


def test_a_missing_shard(folders: Path) -> None:
    info = tiny("cifar10")
    write_parquet(folders / "cifar10", arrays(info), shards=4)
    (folders / "cifar10" / "train-00002-of-00004.parquet").unlink()
    with pytest.raises(UserError, match=r"1 of 4 shards missing, the first is train-00002-of-00004.parquet") as error:
        load_dataset(info)
    one_line(error)


def test_a_missing_part(folders: Path) -> None:
    info = tiny("cifar10")
    write_parquet(folders / "cifar10", {"train": arrays(info)["train"]})
    with pytest.raises(UserError, match="none of its test part"):
        load_dataset(info)


def test_shards_of_two_divisions(folders: Path) -> None:
    info = tiny("cifar10")
    write_parquet(folders / "cifar10", arrays(info), shards=2)
    write_parquet(folders / "cifar10", arrays(info), shards=3)
    with pytest.raises(UserError, match="mixes shards of 2 and of 3 files"):
        load_dataset(info)


def test_a_checksum_beside_the_shards_is_kept(folders: Path) -> None:
    info = tiny("cifar10")
    write_parquet(folders / "cifar10", arrays(info))
    name = "test-00000-of-00001.parquet"
    (folders / "cifar10" / "manifest.json").write_text(f'{{"{name}": {{"sha256": "{"0" * 64}"}}}}')
    with pytest.raises(UserError, match=f"{name} is not the published file: its SHA256 is") as error:
        load_dataset(info)
    one_line(error)


@pytest.mark.parametrize("layout", ["parquet", "folder file", "folder class", "pickles", "idx"])
def test_a_link_that_leaves_the_data_folder(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    info = tiny("mnist" if layout == "idx" else "cifar10")
    data = arrays(info)
    match layout:
        case "parquet":
            write_parquet(folders / "cifar10", data)
            link = folders / "cifar10" / "test-00000-of-00001.parquet"
        case "folder file" | "folder class":
            write_folders(folders / "cifar10", data, test="test")
            link = folders / "cifar10" / "train" / "class-0"
            link = link / "002.png" if layout == "folder file" else link
        case "pickles":
            write_pickles(folders / "cifar-10-batches-py", data, monkeypatch)
            link = folders / "cifar-10-batches-py" / "data_batch_3"
        case "idx":
            write_idx(folders / "MNIST" / "raw", data, False, monkeypatch)
            link = folders / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    outside = tmp_path / "outside"
    link.rename(outside)
    link.symlink_to(outside)
    with pytest.raises(UserError, match="is a symbolic link that leaves the data folder") as error:
        load_dataset(info)
    assert str(outside) in one_line(error)


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_of_another_md5_is_never_unpickled(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tiny("cifar10")
    folder = folders / "cifar-10-batches-py"
    write_pickles(folder, arrays(info), monkeypatch)
    trap = tmp_path / "sprung"
    (folder / "data_batch_1").write_bytes(pickle.dumps(Payload(trap)))
    with pytest.raises(
        UserError, match=r"data_batch_1 is not the published file: its MD5 is .* it was not used"
    ) as error:
        load_dataset(info)
    one_line(error)
    with pytest.raises(UserError, match="is not the published file"):
        list(require_source(info).chunks("train"))
    assert not trap.exists()
    assert not list((tmp_path / "cache").glob("*/"))


@pytest.mark.parametrize("fault", ["cut", "shape", "labels", "type"])
def test_a_damaged_idx_file(folders: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    info = tiny("mnist")
    data = arrays(info)
    if fault == "shape":
        data["train"] = (data["train"][0][..., :27], data["train"][1])
    if fault == "labels":
        data["train"] = (data["train"][0], data["train"][1][:-1])
    write_idx(folders / "MNIST" / "raw", data, False, monkeypatch)
    file = folders / "MNIST" / "raw" / "train-images-idx3-ubyte"
    if fault == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    if fault == "type":
        file.write_bytes(b"\0\0\x0d" + file.read_bytes()[3:])
    expected = {
        "cut": "is cut short or too long",
        "shape": "images are 28x27",
        "labels": "11 labels for 12 images",
        "type": "is not an idx file of unsigned bytes",
    }
    with pytest.raises(UserError, match=expected[fault]) as error:
        load_dataset(info)
    one_line(error)


def test_a_damaged_gzip_file(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tiny("mnist")
    write_idx(folders / "MNIST" / "raw", arrays(info), True, monkeypatch)
    file = folders / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    content = bytearray(file.read_bytes())
    content[-6] ^= 1  # the stored checksum of the contents
    file.write_bytes(content)
    with pytest.raises(UserError, match="is not the published file"):
        load_dataset(info)
    monkeypatch.setitem(idx.MD5["mnist"], file.name, hashlib.md5(content).hexdigest())
    with pytest.raises(UserError, match="is damaged"):
        load_dataset(info)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("unlisted", r"val_7.JPEG has no line in val_annotations.txt"),
        ("absent", r"lacks val_3.JPEG, which val_annotations.txt lists"),
        ("class", r"val_annotations.txt, line 8: there is no class 'n99' in train/"),
        ("classes", r"has 4 class folders, tiny-imagenet has 3 classes"),
    ],
)
def test_a_damaged_tiny_imagenet(folders: Path, fault: str, message: str) -> None:
    info = tiny("tiny-imagenet")
    folder = folders / "tiny-imagenet-200"
    write_tiny_imagenet(folder, arrays(info))
    images = folder / "val" / "images"
    if fault == "unlisted":
        (images / "val_7.JPEG").write_bytes((images / "val_0.JPEG").read_bytes())
    if fault == "absent":
        (images / "val_3.JPEG").unlink()
    if fault == "class":
        with (folder / "val" / "val_annotations.txt").open("a") as file:
            file.write("val_7.JPEG\tn99\t0\t0\t0\t0\n")
    if fault == "classes":
        (folder / "train" / "n99").mkdir()
    with pytest.raises(UserError, match=message) as error:
        load_dataset(info)
    one_line(error)


# Download


def test_download_is_torchvisions(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for torchvision's class: what is asked of it, and that what it fetched is then found."""
    from torchvision import datasets

    info = tiny("mnist")

    def fetch(root: str, download: bool) -> None:
        assert download
        write_idx(Path(root) / "MNIST" / "raw", arrays(info), False, monkeypatch)

    monkeypatch.setattr(datasets, "MNIST", fetch)
    same(
        {
            part: (load_dataset(info, download=True).part(part).images[:], load_dataset(info).part(part).labels)
            for part in PARTS
        },
        arrays(info),
    )


def test_a_failed_download_is_one_line(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    def fetch(root: str, download: bool) -> None:
        raise RuntimeError("Error downloading\ntrain-images-idx3-ubyte.gz")

    monkeypatch.setattr(datasets, "MNIST", fetch)
    with pytest.raises(UserError, match=r"download of 'mnist' into .* failed: Error downloading") as error:
        load_dataset("mnist", download=True)
    one_line(error)


def test_what_torchvision_cannot_download_says_where_to_get_it() -> None:
    with pytest.raises(UserError, match=r"torchvision cannot download 'imagenet'; get it from https://image-net.org"):
        load_dataset("imagenet", download=True)


# Inspection


def test_list_names_what_is_here_and_what_is_broken(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(folders / "cifar10", arrays(tiny("cifar10")))
    write_parquet(folders / "cifar100", arrays(tiny("cifar10")), shards=2)
    (folders / "cifar100" / "train-00001-of-00002.parquet").unlink()
    found = {line.info.name: line for line in list_datasets()}
    assert list(found) == list(DATASETS)
    assert found["digits"].layout == "embedded"
    assert found["cifar10"].layout == "parquet"
    assert found["cifar10"].bytes == sum(file.stat().st_size for file in (folders / "cifar10").iterdir())
    assert "shards missing" in str(found["cifar100"].problem)
    assert found["mnist"].layout is None
    assert path("cifar10") == folders / "cifar10"
    assert path("digits").is_dir()


def test_verify_names_sizes_duplicates_and_damage(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = replace(tiny("cifar10"), test_size=8)
    monkeypatch.setitem(DATASETS, "cifar10", info)
    data = arrays(info)
    data["test"][0][2] = data["train"][0][9]
    write_parquet(folders / "cifar10", data)
    text = {finding.text: finding.level for finding in verify("cifar10")}
    assert text["1 images stand in both parts (train row=test row): 9=2"] == "note"
    assert text["test: 7 images, 2 to 3 a class; 8 images are expected"] == "error"
    assert text["train: 12 images, 4 a class"] == "ok"
    # Damage that leaves size and time as they were: the source no longer is what was decoded.
    file = folders / "cifar10" / "train-00000-of-00001.parquet"
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    levels = {
        finding.level for finding in verify("cifar10") if "changed since it was decoded: train-00000" in finding.text
    }
    assert levels == {"error"}


def test_verify_of_what_is_not_here_is_a_finding() -> None:
    (finding,) = verify("cifar100")
    assert finding.level == "error"
    assert "not found" in finding.text
