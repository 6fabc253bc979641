"""What a plugin in Python has around it. The build puts it there; no plugin has to import it.

It says why a plugin failed: an exception that nothing catches ends the call, so it is written to the
router's log, from where it gets into the error that the operator reads. What is returned and is no
answer would end the call without a word; so it is held against the types in `wit_world`, and becomes
an error that says what was expected.

And it has every instance draw random numbers of its own: a component is a snapshot of an interpreter
that has run already, and its instances are copies, with the same state of `random` in them.
"""

import functools
import importlib
import sys
from dataclasses import is_dataclass
from typing import Union, get_args, get_origin, get_type_hints

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import log


# True in the snapshot, and so at the beginning of each instance.
_is_new = True


def _begin():
    global _is_new
    _is_new = False
    if random := sys.modules.get("random"):
        random.seed()


def _say(error):
    # The module traceback would look for the source files, which are not there.
    trace, place = error.__traceback__, ""
    while trace:
        place = f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})"
        trace = trace.tb_next
    log.log(log.Level.ERROR, f"{type(error).__name__}: {error}{place}")


def _types(hint):
    """What a value may be, with the fields of each; none where that is not looked at."""
    kinds = get_args(hint) if get_origin(hint) is Union else (hint,)
    if any(not isinstance(kind, type) for kind in kinds):
        return None
    return {kind: _fields(kind) for kind in kinds}


def _fields(kind):
    hints = get_type_hints(kind) if is_dataclass(kind) else {}
    fields = ((name, _types(hint)) for name, hint in hints.items())
    return tuple((name, types) for name, types in fields if types)


def _is(value, types):
    fields = types.get(type(value))
    if not fields:
        return fields is not None
    for name, inner in fields:
        if not _is(getattr(value, name), inner):
            return False
    return True


def _wrong(value, types, where):
    fields = types.get(type(value))
    if fields is None:
        names = " or ".join(kind.__name__ for kind in types if not kind.__name__.endswith("_Other"))
        return f"{where} {value!r:.200}, which is not {names}"
    for name, inner in fields:
        if wrong := _wrong(getattr(value, name), inner, f"{where} {type(value).__name__} with the {name}"):
            return wrong
    return None


def _telling(function, declared):
    types = _types(get_type_hints(declared).get("return"))

    @functools.wraps(function)
    def call(*arguments):
        if _is_new:
            _begin()
        try:
            answer = function(*arguments)
        except Err:
            raise
        except BaseException as error:
            _say(error)
            raise
        if types and not _is(answer, types):
            raise Err(_wrong(answer, types, f"{function.__name__} returned"))
        return answer

    return call


def _watch(plugin, interface):
    for name in vars(interface):
        function = getattr(plugin, name, None)
        if callable(function) and not name.startswith("_"):
            setattr(plugin, name, _telling(function, getattr(interface, name)))


def watched(name):
    """What is in the module of this name, with its plugins watched."""
    module = vars(importlib.import_module(name))
    for name, interface in vars(exports).items():
        if isinstance(interface, type) and interface.__module__ == exports.__name__:
            if name not in module:
                raise AttributeError(f"{module['__name__']}.py has no class {name}, which its world exports")
            _watch(module[name], interface)
    return {name: value for name, value in module.items() if not name.startswith("__")}
