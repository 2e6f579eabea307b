"""The table of data sets. Adding one is a line here; importing this file imports no torch.

``acn-cl data list`` prints it; :mod:`acn_cl.benchmarks.datasets.load` reads by it.
"""

from dataclasses import dataclass

from acn_cl.benchmarks.datasets import classes

EMBEDDED = "acn_cl.benchmarks.datasets.digits:load_digits"
DECODED = "acn_cl.benchmarks.datasets.decoded:load_decoded"
STREAMED = "acn_cl.benchmarks.datasets.streamed:load_streamed"


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What is known of a data set before a file of it is opened."""

    name: str
    about: str
    """One line for ``acn-cl data list``."""
    classes: int
    image_size: tuple[int, int]
    """Height and width in pixels, as the backbone sees them."""
    channels: int
    train_size: int
    """Images in the training part."""
    test_size: int
    mean: tuple[float, ...]
    """Per channel, of pixels in [0, 1]: Avalanche's constants, so that its published runs are comparable."""
    std: tuple[float, ...]
    padding: int = 0
    """Training images are padded by so many pixels on each side and cropped back at random; 0: not."""
    flip: bool = False
    """Training images are flipped left to right, each with probability one half."""
    class_names: tuple[str, ...] = ()
    """By label; empty where the folders name the classes."""
    licence: str
    citation: str
    url: str
    loader: str = DECODED
    """Dotted name of ``load(info, download) -> ImageDataset``."""
    folders: tuple[str, ...] = ()
    """Names that its folder goes by under a data folder."""
    hub: tuple[str, ...] = ()
    """Its repositories on the Hugging Face hub (their parquet layout is known)."""
    test_parts: tuple[str, ...] = ("test",)
    """What its test part is called in parquet files and image folders (ImageNet's own test part has no labels)."""
    torchvision: str | None = None
    """The torchvision class that downloads it."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return (self.channels, *self.image_size)

    @property
    def size(self) -> int:
        """Images in all."""
        return self.train_size + self.test_size


_CIFAR_CITATION = "A. Krizhevsky, Learning multiple layers of features from tiny images, technical report, 2009"
_CIFAR_LICENCE = "none stated by its authors; cite the report"
_IMAGENET_LICENCE = "non-commercial research and education only (image-net.org/download)"

_LINES = (
    DatasetInfo(
        name="digits",
        about="handwritten digits inside scikit-learn: real data, nothing to download",
        classes=10,
        image_size=(8, 8),
        channels=1,
        train_size=1442,
        test_size=355,
        mean=(0.3052,),  # of the training part; tests/test_datasets.py computes both again
        std=(0.3760,),
        class_names=classes.DIGITS,
        licence="CC BY 4.0",
        citation="E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998, doi:10.24432/C50P49",
        url="https://archive.ics.uci.edu/dataset/80",
        loader=EMBEDDED,
    ),
    DatasetInfo(
        name="mnist",
        about="28x28 grey handwritten digits",
        classes=10,
        image_size=(28, 28),
        channels=1,
        train_size=60_000,
        test_size=10_000,
        mean=(0.1307,),
        std=(0.3081,),
        class_names=classes.DIGITS,
        licence="CC BY-SA 3.0",
        citation="Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition, "
        "Proc. IEEE 86(11), 1998",
        url="http://yann.lecun.com/exdb/mnist/",
        folders=("MNIST", "mnist"),
        hub=("ylecun/mnist",),
        torchvision="MNIST",
    ),
    DatasetInfo(
        name="fashion-mnist",
        about="28x28 grey clothes",
        classes=10,
        image_size=(28, 28),
        channels=1,
        train_size=60_000,
        test_size=10_000,
        mean=(0.2860,),
        std=(0.3530,),
        class_names=classes.FASHION,
        licence="MIT",
        citation="H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST, arXiv:1708.07747, 2017",
        url="https://github.com/zalandoresearch/fashion-mnist",
        folders=("FashionMNIST", "fashion-mnist", "fashion_mnist"),
        hub=("zalando-datasets/fashion_mnist",),
        torchvision="FashionMNIST",
    ),
    DatasetInfo(
        name="cifar10",
        about="32x32 colour images of 10 classes",
        classes=10,
        image_size=(32, 32),
        channels=3,
        train_size=50_000,
        test_size=10_000,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        padding=4,
        flip=True,
        class_names=classes.CIFAR10,
        licence=_CIFAR_LICENCE,
        citation=_CIFAR_CITATION,
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
        folders=("cifar10", "cifar-10", "CIFAR10"),
        hub=("uoft-cs/cifar10",),
        torchvision="CIFAR10",
    ),
    DatasetInfo(
        name="cifar100",
        about="32x32 colour images of 100 classes in 20 super-classes",
        classes=100,
        image_size=(32, 32),
        channels=3,
        train_size=50_000,
        test_size=10_000,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        padding=4,
        flip=True,
        class_names=classes.CIFAR100,
        licence=_CIFAR_LICENCE,
        citation=_CIFAR_CITATION,
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
        folders=("cifar100", "cifar-100", "CIFAR100"),
        hub=("uoft-cs/cifar100",),
        torchvision="CIFAR100",
    ),
    DatasetInfo(
        name="tiny-imagenet",
        about="64x64 colour images of 200 ImageNet classes; its validation part is the test part here",
        classes=200,
        image_size=(64, 64),
        channels=3,
        train_size=100_000,
        test_size=10_000,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        flip=True,
        licence=_IMAGENET_LICENCE,
        citation="Y. Le, X. Yang, Tiny ImageNet visual recognition challenge, Stanford CS 231N, 2015",
        url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        folders=("tiny-imagenet-200", "tiny-imagenet", "tiny_imagenet"),
        hub=("zh-plus/tiny-imagenet",),
        test_parts=("val", "valid", "validation"),
    ),
    DatasetInfo(
        name="imagenet",
        about="ImageNet-1K at 224x224, decoded while streaming; its validation part is the test part here",
        classes=1000,
        image_size=(224, 224),
        channels=3,
        train_size=1_281_167,
        test_size=50_000,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        licence=_IMAGENET_LICENCE,
        citation="O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 115(3), 2015",
        url="https://image-net.org/download",
        loader=STREAMED,
        folders=("imagenet", "imagenet-1k", "ILSVRC2012", "ImageNet"),
        hub=("ILSVRC/imagenet-1k",),
        test_parts=("val", "valid", "validation"),
    ),
)

DATASETS: dict[str, DatasetInfo] = {line.name: line for line in _LINES}
