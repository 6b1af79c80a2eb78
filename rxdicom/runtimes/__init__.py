"""The runtimes: sockets, TLS, timers, files, threads and tasks. No protocol decision is made here."""
