"""The errors a user can cause. Each message is one finished line: what, where, which value, what to do."""


class GenderClassifierError(Exception):
    """Base of every error that a user can correct. A stage prints its message and exits with status 1."""


class ParamsError(GenderClassifierError):
    """A key of ``params.yaml`` is unknown, missing, ill-typed or out of range."""


class SourceError(GenderClassifierError):
    """The data source cannot be read or is not laid out as a data set."""


class ArchiveError(GenderClassifierError):
    """An archive is no zip file, is damaged, or has a member that must not be read."""


class ImageError(GenderClassifierError):
    """Bytes that are no usable image.

    ``reason`` is one word for the manifest: ``empty``, ``not_an_image``, ``truncated``, ``too_large``, ``too_small`` or
    ``unreadable``. The service, which gives each image a time, has ``too_slow`` too.
    """

    def __init__(self, reason: str, message: str) -> None:
        """Keep the machine-readable ``reason`` beside the sentence for people."""
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        """Cross a process boundary with both arguments."""
        return type(self), (self.reason, str(self))


class InputError(GenderClassifierError):
    """A path given for prediction is missing, cannot be read, or leads to no image."""


class DataError(GenderClassifierError):
    """The data set as a whole is unfit: a class or split is missing, too much was rejected, a file is torn."""


class ModelError(GenderClassifierError):
    """A model or weights file is missing, damaged or made for something else."""


class TrackingError(GenderClassifierError):
    """The MLflow store does not answer."""


class LockError(GenderClassifierError):
    """A lock file cannot be made or locked."""


class ServiceError(GenderClassifierError):
    """The HTTP service cannot start."""
