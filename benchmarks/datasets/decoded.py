"""Loader of data sets with images of fixed size up to 64 pixels: decoded once, then memory-mapped."""

from rich.console import Console
from rich.progress import Progress

from acn_cl.benchmarks.datasets.arrays import Chunks, ImageDataset
from acn_cl.benchmarks.datasets.cache import Watch, open_or_decode
from acn_cl.benchmarks.datasets.search import require_source
from acn_cl.benchmarks.datasets.table import DatasetInfo


def load_decoded(info: DatasetInfo, download: bool = False) -> ImageDataset:
    """The data set, its images memory-mapped from the decoded cache.

    Raises:
        UserError: it is not found, is damaged, or the cache cannot be written.
    """
    return open_or_decode(require_source(info, download), progress(info))


def progress(info: DatasetInfo) -> Watch:
    """Show on standard error, where that is a terminal, how much of a part is decoded."""

    def watch(part: str, chunks: Chunks) -> Chunks:
        console = Console(stderr=True)
        total = info.train_size if part == "train" else info.test_size
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(f"decoding {info.name}, {part} part", total=total)
            for pixels, labels in chunks:
                bar.advance(task, len(labels))
                yield pixels, labels

    return watch
