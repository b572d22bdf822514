"""
Error monitoring: defects are also told to a Sentry, if `SENTRY_DSN` names one. Without it nothing is ever sent.

What is told is where in our code it happened and the request's id, which the log knows more by: no request, no
variables of the frames, no address, and of other libraries' errors only the kind, because a driver's message
may quote a user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import service
from service.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def reporter(dsn: str) -> Callable[[BaseException, Mapping[str, object]], None]:
    """
    Return what tells that Sentry of an error and the event that it was logged with.

    It sends in the background, and gives up silently. Raises `SettingsError` when the SDK is not installed, or
    when the name is none.
    """
    try:
        import sentry_sdk  # noqa: PLC0415  an extra: only who uses it needs it
    except ImportError:
        message = "SENTRY_DSN is set, but the Sentry SDK is not installed: install sentry-sdk>=2,<3 beside the service."
        raise SettingsError(message) from None
    try:
        sentry_sdk.init(
            dsn,
            release=f"ladder@{service.__version__}",
            default_integrations=False,
            auto_enabling_integrations=False,
            send_default_pii=False,
            include_local_variables=False,
            max_request_body_size="never",
            server_name="",
            before_send=_without_data,  # type: ignore[arg-type]  # an event is a dict
        )
    except ValueError:
        message = "SENTRY_DSN must be the address that Sentry shows as DSN."
        raise SettingsError(message) from None

    def report(error: BaseException, event: Mapping[str, object]) -> None:
        with sentry_sdk.new_scope() as scope:
            for name in ("event", "request_id"):
                if name in event:
                    scope.set_tag(name, str(event[name]))
            scope.capture_exception(error)

    return report


def _without_data(event: dict[str, Any], _: object) -> dict[str, Any]:
    for name in ("request", "user", "extra", "breadcrumbs", "modules"):
        event.pop(name, None)
    for error in event.get("exception", {}).get("values", ()):
        if not str(error.get("module")).startswith("service."):
            error["value"] = ""
    return event
