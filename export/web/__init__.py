"""The page that segments a scan in a browser: TypeScript built by npm, and what puts an artefact beside it."""
