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
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            self.data: Any = self._read(loader, root, "") if root is not None else None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            message = " ".join(part for part in (error.problem, error.context) if part)
            fault = Fault("", f"not YAML: {message}", mark.line + 1 if mark else None)
            raise PolicyError([fault], name) from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise PolicyError([Fault("", f"not YAML: {error}")], name) from None
        finally:
            loader.dispose()
        if self._faults:
            raise PolicyError(self._faults, name)

    def _read(self, loader: yaml.SafeLoader, node: yaml.Node, path: str) -> Any:  # noqa: ANN401 - YAML holds anything
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise ValueError(f"more than {_MAX_NODES:,} values once its aliases are followed")
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._read(loader, item, _join(path, index)) for index, item in enumerate(node.value)]
        return loader.construct_object(node)

    def _mapping(self, loader: yaml.SafeLoader, node: yaml.MappingNode, path: str) -> dict[Any, Any]:
        loader.flatten_mapping(node)
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            # Every name in a policy is text, also where YAML would see a number or, in `on`, a truth.
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else str(key_node.tag)
            place = _join(path, key)
            line = key_node.start_mark.line + 1
            if key in mapping:
                self._faults.append(Fault(place, f"is already on line {self._lines[place]}", line))
                continue
            self._lines[place] = line
            mapping[key] = self._read(loader, value_node, place)
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


def _join(path: str, step: str | int) -> str:
    return f"{path}.{step}" if path else str(step)
