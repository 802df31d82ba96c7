"""Files, paths, params checks, figures' style, processes and messages: what every room may use."""
