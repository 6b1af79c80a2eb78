"""The services layer: one pure generator per kind of service. Effects go out, replies come in, no socket is touched."""
