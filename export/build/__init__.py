"""Export of a run as an artefact."""
