"""Open handles, one set per process: a data-loader worker never shares a file position with its parent."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

_MAX_OPEN_HANDLES = 64

_handles: OrderedDict[tuple[int, str, str], Any] = OrderedDict()
_handles_lock = threading.RLock()  # reentrant: opening one handle may need another


def cached(key: str, options: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """Return this process's handle for `key`; a forked worker never sees its parent's."""
    full_key = (os.getpid(), key, repr(sorted(options.items())))
    with _handles_lock:
        if full_key in _handles:
            _handles.move_to_end(full_key)
            return _handles[full_key]
        handle = _handles[full_key] = make()
        while len(_handles) > _MAX_OPEN_HANDLES:
            (pid, _, _), old = _handles.popitem(last=False)
            if pid == os.getpid() and hasattr(old, "close"):
                old.close()
        return handle


def close_handles() -> None:
    """Close every archive that this process holds open (they open again when needed)."""
    with _handles_lock:
        for (pid, _, _), handle in list(_handles.items()):
            if pid == os.getpid() and hasattr(handle, "close"):
                handle.close()
        _handles.clear()


def _renew_lock() -> None:
    """Give a forked child a free lock, whatever a thread of its parent was doing."""
    global _handles_lock
    _handles_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
