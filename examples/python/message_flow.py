"""Lets a plugin in Python say why it failed: `import message_flow` at the top of it is all.

An exception that nothing catches ends the call, and a component has no standard error for its
traceback to go to. So it is written to the router's log, from where it gets into the error that the
operator reads.
"""

import functools

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import log


def _say(error):
    # The module traceback would look for the source files, which are not there.
    trace, place = error.__traceback__, ""
    while trace:
        place = f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})"
        trace = trace.tb_next
    log.log(log.Level.ERROR, f"{type(error).__name__}: {error}{place}")


def _telling(function):
    @functools.wraps(function)
    def call(*arguments):
        try:
            return function(*arguments)
        except Err:
            raise
        except BaseException as error:
            _say(error)
            raise

    return call


def _watch(interface):
    def init_subclass(plugin):
        super(interface, plugin).__init_subclass__()
        for name, function in list(vars(plugin).items()):
            if callable(function) and not name.startswith("_"):
                setattr(plugin, name, _telling(function))

    interface.__init_subclass__ = classmethod(init_subclass)


# Whatever a plugin derives from the exported interfaces tells why it fails.
for interface in list(vars(exports).values()):
    if isinstance(interface, type) and interface.__module__ == exports.__name__:
        _watch(interface)
