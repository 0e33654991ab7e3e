"""YAML with line numbers: from text to plain data, and from a place in it back to its line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from ratelimit.errors import Fault, PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_NODES = 1_000_000


class Source:
    """A YAML text that knows where everything in it stands.

    Attributes:
        data: the text as plain Python data.

    Raises:
        PolicyError: the text is not YAML, or says something twice.
    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self._lines: dict[str, int] = {}
        self._faults: list[Fault] = []
        self._nodes = 0
        try:
            loader = yaml.SafeLoader(text)
            root = loader.get_single_node()
            self.data: Any = self._read(loader, root, "") if root is not None else None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            message = " ".join(part for part in (error.problem, error.context) if part)
            fault = Fault("", f"not YAML: {message}", mark.line + 1 if mark else None)
            raise PolicyError([fault], name) from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise PolicyError([Fault("", f"not YAML: {error.reason}", line)], name) from None
        except RecursionError:
            raise PolicyError([Fault("", "not YAML that can be read: nested too deeply")], name) from None
        if self._faults:
            raise PolicyError(self._faults, name)

    def _read(self, loader: yaml.SafeLoader, node: yaml.Node, path: str) -> Any:  # noqa: ANN401 - YAML holds anything
        line = node.start_mark.line + 1
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            fault = Fault(
                path, f"not YAML to run: over {_MAX_NODES:,} values once aliases are followed", line
            )
            raise PolicyError([fault], self.name)
        self._lines.setdefault(path, line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._read(loader, item, _join(path, index)) for index, item in enumerate(node.value)]
        try:
            return loader.construct_object(node)
        except (
            ValueError,
            LookupError,
            AttributeError,
            TypeError,
        ) as error:  # a date that is none, or an odd tag
            raise PolicyError([Fault(path, f"not YAML: {error}", line)], self.name) from None

    def _mapping(self, loader: yaml.SafeLoader, node: yaml.MappingNode, path: str) -> dict[Any, Any]:
        written = [_name_of(key) for key, _ in node.value]
        for number, (key, _) in enumerate(node.value):
            name = written[number]
            if name in written[:number]:
                before = node.value[written.index(name)][0].start_mark.line + 1
                message = f"is already on line {before}"
                self._faults.append(Fault(_join(path, name), message, key.start_mark.line + 1))
        loader.flatten_mapping(
            node
        )  # what `<<` merges comes first, so that what is written here goes over it
        mapping: dict[str, Any] = {}
        for key, value in node.value:
            placed = _join(path, _name_of(key))
            self._lines[placed] = key.start_mark.line + 1
            mapping[_name_of(key)] = self._read(loader, value, placed)
        return mapping

    def refuse(self, faults: Iterable[Fault]) -> None:
        """Raise PolicyError with every fault on its line, if there is one."""
        placed = sorted(
            (fault if fault.line else fault._replace(line=self._line(fault.path)) for fault in faults),
            key=lambda fault: fault.line or 0,
        )
        if placed:
            raise PolicyError(placed, self.name)

    def _line(self, path: str) -> int | None:
        """Return the line of `path`, or of the nearest thing around it that was written down."""
        while path and path not in self._lines:
            path = path.rpartition(".")[0]
        return self._lines.get(path)


def _name_of(node: yaml.Node) -> str:
    """Every name in a policy is text, also where YAML would see a number or, in `on`, a truth."""
    return node.value if isinstance(node, yaml.ScalarNode) else str(node.tag)


def _join(path: str, step: str | int) -> str:
    return f"{path}.{step}" if path else str(step)
