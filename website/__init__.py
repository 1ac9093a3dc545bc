"""The site of the documentation: pages made from the code, and the hooks of MkDocs that put them in."""
