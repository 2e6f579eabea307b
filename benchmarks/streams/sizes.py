"""How many classes each experience gets, and the nearest right number where it does not come out even."""

from acn_cl.errors import SpecError


def class_sizes(classes: int, experiences: int, first: int | None = None) -> tuple[int, ...]:
    """Classes of each experience: ``first`` in the first one if given, the others equal.

    >>> class_sizes(100, 6, first=50)
    (50, 10, 10, 10, 10, 10)

    Raises:
        SpecError: they do not divide; the message gives the nearest counts that do.
    """
    if first is not None and first > classes:
        raise SpecError(("first",), f"the first experience cannot have {first} classes, there are {classes}")
    if experiences not in _possible(classes, first):
        raise SpecError(("experiences",), _does_not_divide(classes, experiences, first))
    if first is None:
        return (classes // experiences,) * experiences
    if experiences == 1:
        return (classes,)
    return (first, *((classes - first) // (experiences - 1),) * (experiences - 1))


def _possible(classes: int, first: int | None) -> list[int]:
    """Numbers of experiences among which the classes divide."""
    if first is None:
        return _divisors(classes)
    if first == classes:
        return [1]
    return [1 + count for count in _divisors(classes - first)]


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def _does_not_divide(classes: int, experiences: int, first: int | None) -> str:
    possible = _possible(classes, first)
    below = max((n for n in possible if n < experiences), default=None)
    above = min((n for n in possible if n > experiences), default=None)
    near = " or ".join(str(n) for n in (below, above) if n is not None)
    rest = f"the {classes - first} classes after the first {first}" if first is not None else f"{classes} classes"
    return f"{rest} do not divide into {experiences} experiences; the nearest that do: {near}"
