"""The events layer: kinds and records, the dispatcher of interventions, the hubs and streams of notifications."""
