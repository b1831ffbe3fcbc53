"""The page that segments a scan in a browser: TypeScript built by npm, with an artefact beside it."""
