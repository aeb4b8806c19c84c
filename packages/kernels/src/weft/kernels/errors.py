"""Errors of this package: each is a `KernelError` and the built-in exception it resembles."""

from __future__ import annotations


class KernelError(Exception):
    """Base of every error this package raises on purpose."""


class KernelValueError(KernelError, ValueError):
    """An argument has a value the operation does not accept."""


class KernelShapeError(KernelError, ValueError):
    """An argument has the wrong number of dimensions, or one of its sizes disagrees with another argument."""


class KernelTypeError(KernelError, TypeError):
    """An argument has the wrong dtype, or is not what the operation works on."""


class KernelDeviceError(KernelError, ValueError):
    """Two arguments of one call live on different devices."""


class KernelBackendError(KernelError, RuntimeError):
    """The requested backend cannot run this call on this machine."""


class DoubleBackwardError(KernelError, RuntimeError):
    """A gradient of a gradient was asked of an operation that only has a first derivative."""
