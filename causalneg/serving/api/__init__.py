"""The HTTP interface over a `Service`: routes, limits, keys, deadlines, and one shape for every error. Knows no Ray."""

from causalneg.serving.api.app import create_app
from causalneg.serving.api.service import Embedded, Service

__all__ = ["Embedded", "Service", "create_app"]
