"""The command ``gender-classifier``, one module per subcommand."""
