"""Writing an artefact from a run."""
