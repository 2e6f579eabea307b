"""Bring images of any size to a data set's."""

from PIL import Image


def fit_centre(image: Image.Image, size: tuple[int, int], shorter: int | None = None) -> Image.Image:
    """Resize until the shorter side has ``shorter`` pixels, then cut ``size`` out of the middle.

    The same pixels as torchvision's ``Resize(shorter)`` and ``CenterCrop(size)`` on a PIL image.

    Args:
        image: any size.
        size: height and width of the result.
        shorter: pixels of the shorter side; None: just as many as ``size`` needs.
    """
    height, width = size
    shorter = max(size) if shorter is None else shorter
    if image.width <= image.height:
        scaled = (shorter, int(shorter * image.height / image.width))
    else:
        scaled = (int(shorter * image.width / image.height), shorter)
    resized = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = round((resized.width - width) / 2), round((resized.height - height) / 2)
    return resized.crop((left, top, left + width, top + height))


def fit_imagenet(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Avalanche's transform of ImageNet: the shorter side to 256 pixels of 224, then the middle."""
    return fit_centre(image, size, shorter=size[0] * 256 // 224)
