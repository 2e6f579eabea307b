"""Corruptions: the stated noise, the same for an image in whatever batch it comes, on pixels in [0, 1]."""

import numpy as np
import pytest
from scipy.stats import kstest, norm

from acn_cl.benchmarks.streams.build import build_stream
from acn_cl.benchmarks.streams.corruptions import KINDS, PAPER_LEVELS, corruption
from acn_cl.errors import UserError

GREY = np.full((200, 3, 16, 16), 128, np.uint8)
ROWS = np.arange(200)


@pytest.mark.parametrize("sigma", [0.01, 0.1])
def test_gaussian_noise_is_normal_with_its_standard_deviation(sigma: float) -> None:
    noisy = corruption(f"gaussian-{sigma}")(GREY, ROWS, "grey/test")
    noise = noisy.astype(np.float64).ravel() - 128 / 255
    assert noise.std() == pytest.approx(sigma, rel=0.01)
    assert kstest(noise[::50], norm(0, sigma).cdf).pvalue > 1e-3


def test_gaussian_noise_is_independent_between_images_channels_and_pixels() -> None:
    noise = corruption("gaussian-0.1")(GREY, ROWS, "grey/test") - np.float32(128 / 255)
    for axis in range(4):
        pairs = np.moveaxis(noise, axis, 0)
        assert abs(np.corrcoef(pairs[:-1].ravel(), pairs[1:].ravel())[0, 1]) < 0.02


def test_the_result_is_clipped_before_normalisation() -> None:
    noisy = corruption("gaussian-0.4")(np.zeros((5, 1, 8, 8), np.uint8), ROWS[:5], "black/test")
    assert noisy.dtype == np.float32
    assert noisy.min() == 0
    assert 0 < noisy.max() <= 1
    assert (noisy == 0).mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 1.0])
def test_salt_and_pepper_hits_its_share_of_whole_pixels(share: float) -> None:
    noisy = corruption(f"salt-pepper-{share}")(GREY, ROWS, "grey/test")
    hit = noisy != np.float32(128 / 255)
    assert np.array_equal(hit.any(axis=1), hit.all(axis=1))
    pixels = noisy[:, 0][hit[:, 0]]
    deviation = (share * (1 - share) / hit[:, 0].size) ** 0.5
    assert hit[:, 0].mean() == pytest.approx(share, abs=4 * deviation + 1e-12)
    assert set(np.unique(pixels)) == {0.0, 1.0}
    assert pixels.mean() == pytest.approx(0.5, abs=4 * 0.5 / len(pixels) ** 0.5)


@pytest.mark.parametrize("name", PAPER_LEVELS)
def test_an_image_gets_the_same_noise_in_any_batch(name: str) -> None:
    noise = corruption(name)
    whole = noise(GREY, ROWS, "grey/test")
    rows = np.array([150, 3, 77])
    np.testing.assert_array_equal(noise(GREY[rows], rows, "grey/test"), whole[rows])


@pytest.mark.parametrize("kind", KINDS)
def test_noise_differs_between_images_parts_and_data_sets(kind: str) -> None:
    noise = corruption(f"{kind}-0.5")
    one = noise(GREY[:2], ROWS[:2], "grey/test")
    assert not np.array_equal(one[0], one[1])
    for source in ("grey/train", "other/test"):
        assert not np.array_equal(one, noise(GREY[:2], ROWS[:2], source))


def test_a_stronger_level_is_the_same_noise_but_more_of_it() -> None:
    weak, strong = (corruption(f"salt-pepper-{p}")(GREY, ROWS, "grey/test") for p in (0.05, 0.1))
    hit = weak != GREY[0, 0, 0, 0] / np.float32(255)
    np.testing.assert_array_equal(weak[hit], strong[hit])
    weak, strong = (corruption(f"gaussian-{s}")(GREY, ROWS, "grey/test") - np.float32(128 / 255) for s in (0.01, 0.02))
    np.testing.assert_allclose(2 * weak, strong, atol=1e-6)


def test_a_part_of_a_stream_is_corrupted_by_its_rows_in_the_data_set() -> None:
    """However a stream is cut, an image of the test part gets the same noise."""
    noise = corruption("gaussian-0.2")
    by_row = {}
    for seed in (0, 1):
        for experience in build_stream("split-digits", seeds=seed).experiences:
            part = experience.test
            for row, image in zip(part.indices, noise.of(part), strict=True):
                if row in by_row:
                    np.testing.assert_array_equal(by_row[row], image)
                by_row[row] = image
    assert len(by_row) == 355


@pytest.mark.parametrize("name", [*PAPER_LEVELS, "gaussian-1", "salt-pepper-0.123"])
def test_names_are_read_back(name: str) -> None:
    assert corruption(name).name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gausian-0.1", r"unknown corruption 'gausian-0.1'.*did you mean 'gaussian'\?"),
        ("gaussian", "a kind and a level, as in gaussian-0.1"),
        ("gaussian-x", "unknown corruption"),
        ("salt-pepper-0", "the level is more than 0 and at most 1, not 0"),
        ("salt-pepper-1.5", "the level is more than 0 and at most 1, not 1.5"),
    ],
)
def test_a_wrong_name_is_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        corruption(name)
