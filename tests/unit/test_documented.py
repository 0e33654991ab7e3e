"""Every public name has a docstring: of the library, of the modules for frameworks, and of their classes."""

import importlib
import inspect

import pytest

import ratelimit

MODULES = ("ratelimit", "ratelimit.asgi", "ratelimit.fastapi", "ratelimit.httpx", "ratelimit.wsgi")


def list_public():
    """Give each public function, class and method, by its full name."""
    for name in MODULES:
        module = importlib.import_module(name)
        yield name, module
        exported = ratelimit.__all__ if module is ratelimit else vars(module)
        for member_name in exported:
            member = getattr(module, member_name)
            is_own = module is ratelimit or getattr(member, "__module__", None) == name
            if member_name.startswith("_") or not is_own or not (inspect.isclass(member) or callable(member)):
                continue
            yield f"{name}.{member_name}", member
            if inspect.isclass(member):
                yield from list_methods(f"{name}.{member_name}", member)


def list_methods(name, cls):
    for method_name, method in inspect.getmembers(cls):
        if not method_name.startswith("_") and str(getattr(method, "__module__", "")).startswith("ratelimit"):
            yield f"{name}.{method_name}", method
    for property_name, found in vars(cls).items():
        if isinstance(found, property) and not property_name.startswith("_"):
            yield f"{name}.{property_name}", found


@pytest.mark.parametrize(("name", "member"), [pytest.param(*item, id=item[0]) for item in list_public()])
def test_every_public_name_has_a_docstring_of_its_own(name, member):
    if inspect.isclass(member) or inspect.ismodule(member):
        assert member.__doc__, name
    else:
        assert inspect.getdoc(member), name


@pytest.mark.parametrize(
    "name", ["Limiter", "AsyncLimiter", "limited", "Limit", "Policy", "Usage", "Check", "Decision"]
)
def test_help_names_every_argument(name):
    member = getattr(ratelimit, name)
    text = inspect.getdoc(member)
    if name == "AsyncLimiter":
        assert "arguments, methods and errors of `Limiter`" in text
        return
    for parameter in inspect.signature(member).parameters:
        assert f"{parameter}:" in text, parameter
