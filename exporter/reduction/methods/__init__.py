"""One file per reduction method; each defines `METHOD`. A new file is found by being here."""
