"""The blocking runtime: a reader thread per association, callers that wait for it. Data goes through these in order:
``transport`` (bytes), ``connection`` (the pump), ``association`` (what users hold), ``server``, ``ae``.
"""
