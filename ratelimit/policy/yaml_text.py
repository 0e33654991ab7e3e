"""YAML text as plain data, with the line of each value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from ratelimit.errors import Fault, PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_VALUES: Final = 1_000_000


class YamlText:
    """YAML text that can tell the line of each value.

    Attributes:
        data: the text as plain Python data.
        name: the name of the text, for messages.

    Raises:
        PolicyError: the text is not YAML, or a mapping contains the same name twice.
    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self._lines: dict[str, int] = {}
        self._faults: list[Fault] = []
        self._value_count = 0
        try:
            loader = yaml.SafeLoader(text)
            root = loader.get_single_node()
            self.data: Any = self._read_node(loader, root, "") if root is not None else None
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

    def _read_node(self, loader: yaml.SafeLoader, node: yaml.Node, path: str) -> Any:  # noqa: ANN401 - YAML holds anything
        line = node.start_mark.line + 1
        self._value_count += 1
        if self._value_count > _MAX_VALUES:
            message = f"not YAML that can be read: more than {_MAX_VALUES:,} values, aliases included"
            raise PolicyError([Fault(path, message, line)], self.name)
        self._lines.setdefault(path, line)
        if isinstance(node, yaml.MappingNode):
            return self._read_mapping(loader, node, path)
        if isinstance(node, yaml.SequenceNode):
            return [
                self._read_node(loader, item, _join_path(path, index))
                for index, item in enumerate(node.value)
            ]
        try:
            return loader.construct_object(node)
        except (ValueError, LookupError, AttributeError, TypeError) as error:  # such as an impossible date
            raise PolicyError([Fault(path, f"not YAML: {error}", line)], self.name) from None

    def _read_mapping(self, loader: yaml.SafeLoader, node: yaml.MappingNode, path: str) -> dict[Any, Any]:
        names = [_read_name(key) for key, _ in node.value]
        for index, (key, _) in enumerate(node.value):
            name = names[index]
            if name in names[:index]:
                first_line = node.value[names.index(name)][0].start_mark.line + 1
                message = f"is already defined on line {first_line}"
                self._faults.append(Fault(_join_path(path, name), message, key.start_mark.line + 1))
        # This puts the values that `<<` merges first, so that the mapping's own values replace them.
        loader.flatten_mapping(node)
        mapping: dict[str, Any] = {}
        for key, value in node.value:
            value_path = _join_path(path, _read_name(key))
            self._lines[value_path] = key.start_mark.line + 1
            mapping[_read_name(key)] = self._read_node(loader, value, value_path)
        return mapping

    def raise_faults(self, faults: Iterable[Fault]) -> None:
        """Raise PolicyError with all faults and their lines, if there is any fault."""
        with_lines = sorted(
            (fault if fault.line else fault._replace(line=self._find_line(fault.path)) for fault in faults),
            key=lambda fault: fault.line or 0,
        )
        if with_lines:
            raise PolicyError(with_lines, self.name)

    def _find_line(self, path: str) -> int | None:
        """Return the line of `path`, or of the nearest mapping or list around it that is in the text."""
        while path and path not in self._lines:
            path = path.rpartition(".")[0]
        return self._lines.get(path)


def _read_name(node: yaml.Node) -> str:
    """Read a name as text. YAML would read `1` as a number and `on` as a boolean."""
    return node.value if isinstance(node, yaml.ScalarNode) else str(node.tag)


def _join_path(path: str, step: str | int) -> str:
    return f"{path}.{step}" if path else str(step)
