"""The command gender-classifier, a module for each subcommand."""
