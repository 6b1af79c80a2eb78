"""The command-line programs, one module each: ``add_arguments(parser)`` and ``run(args)``, over the public API only."""
