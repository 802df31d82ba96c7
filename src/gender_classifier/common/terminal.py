"""Safe text output: characters the encoding lacks, control characters and secrets."""

import codecs
import os
import sys

from gender_classifier.common.credentials import hide_secrets, protect_stderr

BYTES_OR_ESCAPES = "gender_classifier.bytes_or_escapes"
"""Name of the encoding error handler that restores undecodable bytes and escapes characters the encoding lacks."""


def make_output_safe(*, errors: str = "backslashreplace") -> None:
    r"""Write characters that the output's encoding lacks as ``\u`` escapes instead of failing on them.

    A replaced stream without ``reconfigure`` is left as it is, and a closed one (``>&-``) discards what is written.
    Standard error hides the environment's secrets from now on.

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
    """Print one line on standard error, without control characters and secrets."""
    print(printable(hide_secrets(f"{name}: {kind}: {message}")), file=sys.stderr)


def drop_output() -> None:
    """Discard the rest of standard output, which cannot be written; call this after reporting the error."""
    try:
        target = sys.stdout.fileno()
    except (OSError, ValueError):  # not a file
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, target)
    os.close(null)


def describe_os_error(error: OSError) -> str:
    """Return an operating system error in one line: the file, if known, and the reason."""
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename else reason


def printable(text: str) -> str:
    """Escape line breaks and control characters."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _give_bytes_or_escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """Encode one character: a surrogate of a byte as that byte, any other as its escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    char = error.object[error.start]
    if "\udc80" <= char <= "\udcff":
        return bytes([ord(char) - 0xDC00]), error.start + 1
    return ascii(char)[1:-1], error.start + 1


codecs.register_error(BYTES_OR_ESCAPES, _give_bytes_or_escape)
