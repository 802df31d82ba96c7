"""Text on standard output and standard error, whatever their encoding can show."""

import codecs
import os
import sys

from gender_classifier.common.credentials import hide_secrets, protect_stderr

BYTES_OR_ESCAPES = "gender_classifier.bytes_or_escapes"
"""Name of the encoding error handler that gives undecodable bytes back and escapes what the encoding lacks."""


def make_output_safe(*, errors: str = "backslashreplace") -> None:
    r"""Write characters that the terminal's or pipe's encoding lacks as ``\u`` escapes, instead of failing on them.

    A stream that was replaced by one without ``reconfigure`` is left as it is. One that the caller has closed, as
    ``>&-`` does, takes everything and shows nothing. Standard error shows no secret of the environment from now on.

    Args:
        errors: handler of standard output's encoding errors; standard error always escapes.
    """
    for name, handler in (("stdout", errors), ("stderr", "backslashreplace")):
        stream = getattr(sys, name)
        if stream is None:
            null = open(os.devnull, "w", encoding="utf-8", errors="replace")  # noqa: SIM115, PTH123  open to the end
            setattr(sys, name, null)
        elif hasattr(stream, "reconfigure") and not stream.closed:
            stream.reconfigure(errors=handler)
    protect_stderr()


def complain(name: str, message: object, *, kind: str = "error") -> None:
    """Tell on standard error, in one line, what is wrong; nothing in it controls the terminal or is secret."""
    print(printable(hide_secrets(f"{name}: {kind}: {message}")), file=sys.stderr)


def drop_output() -> None:
    """Send what is still to be written to standard output nowhere: it cannot be written, and this was reported."""
    try:
        target = sys.stdout.fileno()
    except (OSError, ValueError):  # not a file
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, target)
    os.close(null)


def describe_os_error(error: OSError) -> str:
    """Return an error of the operating system in one line: the file, where it is known, and the reason."""
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename else reason


def printable(text: str) -> str:
    """Escape what would break a line or control the terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _give_bytes_or_escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """Encode one character: a surrogate that stands for a byte as this byte, any other as its escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    char = error.object[error.start]
    if "\udc80" <= char <= "\udcff":
        return bytes([ord(char) - 0xDC00]), error.start + 1
    return ascii(char)[1:-1], error.start + 1


codecs.register_error(BYTES_OR_ESCAPES, _give_bytes_or_escape)
