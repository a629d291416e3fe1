"""Exporting: the subset in the formats that trainers read, the ledger, the manifest, the report; one file a format."""
