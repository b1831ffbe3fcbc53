"""The page that segments a scan in a browser.

It is TypeScript built by npm; `write_page` puts an artefact beside it.
"""
