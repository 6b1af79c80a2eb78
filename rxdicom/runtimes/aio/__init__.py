"""The asyncio runtime: everything of an association happens on one event loop. Data goes through these in order:
``dialing`` (sockets), ``connection`` (the pump), ``association`` (what users hold), ``server``, ``ae``.
"""
