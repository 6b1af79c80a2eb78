"""``rxdicom demo``: real files travel between two application entities in this process, watched by an Rx pipeline.

Nothing is shown that was not observed: the tables come from the server's event streams, the chart from those of one
association, and each file is compared with what arrived.
"""
