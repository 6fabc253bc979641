"""A service's connection to Message Flow: who it is, what it needs, and what it is told."""

from ._backoff import Backoff
from ._service import Lost, Refused, Required, Service

__all__ = ["Backoff", "Lost", "Refused", "Required", "Service"]
