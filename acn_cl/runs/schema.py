"""What the files of a run hold. One folder a run: ``RUNS_DIR/<experiment>/seed-<n>/``.

``spec.json``         the resolved spec of this one run, with schema version, package versions, commit and device; where
                      known: ``comparisons`` that its recipe declares, ``parameters``, ``peak_memory`` (bytes),
                      ``compiled`` (whether steps were, see ``docs/speed.md``),
                      ``flops_by_depth`` (one image forward, sub-networks 0..L), ``data_checksum`` of the data set
``accuracy.parquet``  one row an (experience trained, experience evaluated, depth): see :data:`ACCURACY`
``layers.parquet``    one row a (experience, epoch, layer, quantity): see :data:`LAYERS`
``confusion.parquet`` one row a (experience trained, experience tested, experience answered): see :data:`CONFUSION`
``timing.parquet``    one row a phase of the run: see :data:`TIMING`
``status.json``       state, progress, the error if any
``checkpoints/``      the weights
"""

from pathlib import Path

import pyarrow as pa

from acn_cl.errors import UserError

SCHEMA_VERSION = 1
"""Of every file here and of the checkpoints. It rises when today's program could not read what tomorrow's writes."""

VERSION_KEY = b"acn_cl.schema_version"
"""Where a parquet file has it, in its schema's metadata; JSON has it under ``schema_version``."""

ACCURACY = pa.schema(
    [
        ("trained", pa.int32()),  # index of the last experience learned; -1: before any
        ("step", pa.int32()),  # -1: at its end; else the step within the next experience
        ("evaluated", pa.int32()),  # index of the experience tested
        ("part", pa.string()),  # test | validation
        ("condition", pa.string()),  # clean, or a corruption's name
        ("depth", pa.int32()),  # 0..L: the sub-network that answered
        ("accuracy", pa.float64()),  # share of samples, 0..1
        ("loss", pa.float64()),  # mean cross-entropy, nats
        ("samples", pa.int32()),
    ]
)

LAYERS = pa.schema(
    [
        ("trained", pa.int32()),  # index of the experience being learned
        ("epoch", pa.int32()),  # 0-based; -1: at the end of the experience
        ("layer", pa.int32()),  # 0: embedding; 1..L: blocks; L+1: everything after the last block
        ("quantity", pa.string()),
        ("value", pa.float64()),
    ]
)

TIMING = pa.schema(
    [
        ("trained", pa.int32()),
        ("phase", pa.string()),  # train | evaluate | probe | save
        ("seconds", pa.float64()),
        ("samples", pa.int64()),
    ]
)

CONFUSION = pa.schema(  # of class-incremental runs: the whole network, clean test images, ends of experiences
    [
        ("trained", pa.int32()),  # index of the last experience learned
        ("evaluated", pa.int32()),  # index of the experience that the images are of
        ("predicted", pa.int32()),  # index of the experience whose class was answered
        ("count", pa.int64()),  # images; a pair that has none has no row
    ]
)

TABLES = {"accuracy": ACCURACY, "layers": LAYERS, "timing": TIMING, "confusion": CONFUSION}

JOINED = ("confusion",)
"""Tables that the first runs of this version did not write yet."""

PARTS = ("test", "validation")
STATES = ("running", "done", "failed")


def check_version(version: object, path: Path) -> None:
    """See that this program can read a file. One without a version is older than the habit, and is read as version 1.

    Raises:
        UserError: the file is of a later version, or its version is no number.
    """
    if version is None:
        return
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UserError(f"{path}: damaged (schema version {str(version)[:40]!r})")
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema version {version}, of a later acn-cl; this one reads up to {SCHEMA_VERSION}: update acn-cl"
        )
