"""Running, failing and publishing of stages, and the code that DVC watches."""
