"""A YAML file as plain values, with the line of every key, so that an error can say where it is.

Only YAML's plain data is read: no tags, no aliases (an alias can unfold a small file into gigabytes).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from acn_cl.errors import UserError

LARGEST = 1_000_000  # bytes; a spec is a page of text
DEEPEST = 20

KeyPath = tuple[str | int, ...]


class SpecLoader(yaml.SafeLoader):
    """YAML's plain data, with 1e6 and 1.0e6 as the numbers that they are in YAML 1.2 (text in YAML 1.1)."""


SpecLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class SpecFile:
    """A spec as it was written.

    Args:
        source: the file's name, as the user gave it.
        data: what it holds, unchecked.
        lines: 1-based line of every key and list item.
    """

    source: str
    data: dict[str, Any]
    lines: dict[KeyPath, int]

    def where(self, path: KeyPath) -> str:
        """``file:line`` of the nearest key on the way to ``path`` that stands in the file."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.source}:{self.lines[path[:length]]}"
        return self.source


def read_spec_file(path: Path) -> SpecFile:
    """Read one YAML file.

    Raises:
        UserError: it is missing, a folder, empty, too large, not text, not YAML or not a mapping; one line.
    """
    text = _read_text(path)
    try:
        _refuse_tricks(text, path)
        loader = SpecLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise UserError(f"{path}: the file is empty; the least that it needs is `stream: {{name: split-digits}}`")
        if not isinstance(node, yaml.MappingNode):
            raise UserError(f"{path}:1: a spec is a mapping of keys to values, and this is not one")
        lines = dict(_lines(node, (), str(path)))
        return SpecFile(str(path), loader.construct_document(node), lines)
    except yaml.YAMLError as error:
        raise UserError(f"{path}{_line(getattr(error, 'problem_mark', None))}: not YAML: {_reason(error)}") from None
    except ValueError as error:  # YAML's own dates and numbers: 2026-99-99
        raise UserError(f"{path}: not YAML: {error}") from None


def _refuse_tricks(text: str, path: Path) -> None:
    """Refuse aliases and deep nesting, event by event, before anything that takes time or stack is done with them."""
    depth = 0
    for event in yaml.parse(text, Loader=SpecLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise UserError(f"{path}{_line(event.start_mark)}: nested more than {DEEPEST} deep; a spec is not")
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"{path}{_line(event.start_mark)}: YAML aliases (*{event.anchor}) are not read here")


def _read_text(path: Path) -> str:
    try:
        if path.is_dir():
            raise UserError(f"{path}: this is a folder; give the YAML file in it")
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: {path.stat().st_size:,} bytes are too many for a spec (at most {LARGEST:,})")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not text (byte {error.start} is not UTF-8)") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _lines(node: yaml.Node, path: KeyPath, source: str) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"{source}:{line}: a key must be a plain word")
            if key.value in seen:
                raise UserError(f"{source}:{line}: the key {key.value!r} stands twice")
            seen.add(key.value)
            yield (*path, key.value), line
            yield from _lines(value, (*path, key.value), source)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), item.start_mark.line + 1
            yield from _lines(item, (*path, index), source)


def _line(mark: Any) -> str:
    return f":{mark.line + 1}" if mark is not None else ""


def _reason(error: yaml.YAMLError) -> str:
    return " ".join(str(getattr(error, "problem", None) or error).split())
