"""The sections of the suite, by name."""

from . import basic, events, growth, latency, memory, parallel, query, start_up, wide_area

SECTIONS = {
    module.SECTION.name: module.SECTION
    for module in (basic, parallel, wide_area, query, latency, memory, growth, events, start_up)
}
